"""Data sets: fixed, ordered samples with labels."""
