"""Fast training of one network on a fixed budget."""
