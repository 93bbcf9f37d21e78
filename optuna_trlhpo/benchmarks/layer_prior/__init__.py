"""The prior for layers: tables of trained networks, and pretraining on them."""
