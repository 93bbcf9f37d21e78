"""What the sampler and the figures themselves cost.."""
