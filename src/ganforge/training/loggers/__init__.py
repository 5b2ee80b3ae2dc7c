"""Where a run's figures and pictures go; none of them can stop the run."""
