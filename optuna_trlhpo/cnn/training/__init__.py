"""Training: one network on a fixed budget, as fast as the machine allows.."""
