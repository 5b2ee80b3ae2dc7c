"""What happens beside the game while it is played; every period is in thousands of images."""
