"""Checkpoints of an agent: what it has learned, in a file that holds no code."""
