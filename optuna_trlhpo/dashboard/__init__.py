"""Publication of a study in optuna-dashboard: a note, figures, and notes and files for the best trials.

It requires the extra: ``pip install "optuna-trlhpo[dashboard]"``.
"""

from optuna_trlhpo.dashboard._publish import PublishCallback, publish

__all__ = ["PublishCallback", "publish"]
