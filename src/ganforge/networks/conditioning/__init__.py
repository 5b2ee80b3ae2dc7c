"""How a generator takes labels into account: one file a way, for any generator that has norms."""
