"""Tabular Q-learning as Optuna samplers: MetaQNN, one agent per layer, one agent per hyper-parameter."""
