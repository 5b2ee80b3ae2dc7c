"""What keeps a discriminator well behaved beside the loss, one penalty a file."""
