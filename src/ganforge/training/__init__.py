"""Training: the only layer that knows Lightning."""
