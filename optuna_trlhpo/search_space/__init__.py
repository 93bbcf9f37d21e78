"""Which parameters an objective asks for next: a model of its search space, learned from its trials.."""
