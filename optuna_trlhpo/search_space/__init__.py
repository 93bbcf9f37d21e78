"""A model of an objective's search space, learned from trials: which parameters it asks for next."""
