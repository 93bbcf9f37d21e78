"""Compression of existing networks: narrower layers and smaller kernels, chosen by a plain Optuna trial."""
