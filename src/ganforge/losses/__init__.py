"""What the two players minimise, one loss a file: pure functions of the discriminator's logits."""
