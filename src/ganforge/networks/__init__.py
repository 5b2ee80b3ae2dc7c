"""Pairs of a generator and a discriminator: plain modules that know nothing of training."""
