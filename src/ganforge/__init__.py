"""ganforge: compose, train, evaluate and sample generative adversarial networks."""

__version__ = "0.1.0"
