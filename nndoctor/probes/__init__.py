"""Probes: one file per family of measurements."""
