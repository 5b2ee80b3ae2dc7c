"""Games: the rules of play between a generator side and a discriminator side; plain PyTorch."""
