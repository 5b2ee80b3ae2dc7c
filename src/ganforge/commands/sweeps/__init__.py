"""Sweeps: many runs of one command, each job a process of its own; grids, and searches over a study of Optuna."""
