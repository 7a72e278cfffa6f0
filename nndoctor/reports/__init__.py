"""From a diagnosis to something a person reads."""
