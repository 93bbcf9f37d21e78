"""The agent: tensors in, tensors out. It knows neither Optuna nor layers nor networks that are trained."""
