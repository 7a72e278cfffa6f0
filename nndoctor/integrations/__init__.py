"""Integrations: the doctor in frameworks that have a training loop of their own, one small file each.

Each file imports its framework; nothing here does. They use nothing of nndoctor but its public names.
"""
