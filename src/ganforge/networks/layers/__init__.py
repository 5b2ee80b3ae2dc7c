"""Layers that several networks are made of: one file a kind."""
