"""Problems and measurements: ``python -m optuna_trlhpo.benchmarks``."""
