"""How a discriminator takes labels into account: one file a way, each on top of any discriminator's features."""
