"""Measurements of the time that the sampler and the figures take."""
