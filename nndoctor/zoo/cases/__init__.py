"""Sick and healthy training runs, one file each; a new file is found by itself."""
