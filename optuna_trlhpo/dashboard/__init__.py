"""A study in optuna-dashboard: a note, figures, and for the best few trials a note and files.

It needs the extra: ``pip install "optuna-trlhpo[dashboard]"``.
"""

from optuna_trlhpo.dashboard._publish import PublishCallback, publish

__all__ = ["PublishCallback", "publish"]
