"""What the discriminator sees of real and fake images alike: one file a paper."""
