"""What experienced people watch in a run: each check is a small class that looks at a few numbers now and then."""
