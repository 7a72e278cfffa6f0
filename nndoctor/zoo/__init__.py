"""Small models, real data, sick and healthy training runs."""
