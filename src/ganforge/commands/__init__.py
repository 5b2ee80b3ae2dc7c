"""The commands: the only layer that knows Hydra."""
