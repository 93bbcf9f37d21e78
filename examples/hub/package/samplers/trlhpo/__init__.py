try:
    from optuna_trlhpo import LayerSpace
    from optuna_trlhpo import TRLHPOSampler
except ImportError as error:
    raise ImportError(
        "TRLHPOSampler needs the package optuna-trlhpo; install it with: pip install optuna-trlhpo"
    ) from error


__all__ = ["LayerSpace", "TRLHPOSampler"]
