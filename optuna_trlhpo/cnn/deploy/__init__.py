"""Cost of a network on a device, and export to files that run there."""
