"""Measurements of the training speed, and of the costs of training less."""
