"""Evaluation of one network of the search: look it up or train it, and record it in its trial."""

from __future__ import annotations

import time

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.trial import BaseTrial, Trial

from optuna_trlhpo.cnn.training.cache import Trained, TrainingCache, note_training
from optuna_trlhpo.cnn.training.early_stopping import EarlyStop
from optuna_trlhpo.cnn.training.trainer import Trainer
from optuna_trlhpo.cnn.training.weight_inheritance import Lineage
from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.trials.performance import report_performance

_logger = optuna.logging.get_logger("optuna.trlhpo.cnn")

PERFORMANCE_BATCHES, PERFORMANCE_BATCH_SIZE = 32, 16
"""The performance of a network, as the paper's agent sees it: its accuracy on 32 validation batches of 16."""


class Evaluation:
    """Evaluates networks, each only once per setting.

    Args:
        trainer: Trains the networks.
        epochs: Number of epochs of a training without weight inheritance.
        seed: Random seed of the initial weights and of the performance batches.
        early_stop: Pruner that stops hopeless trainings. None stops none.

    Attributes:
        trainer: Trains the networks.
        cache: Looks up networks that were trained before.
        early_stop: Stops hopeless trainings. None stops none.
        batches: Indices of the validation images in each performance batch.
    """

    def __init__(self, trainer: Trainer, *, epochs: int, seed: int, early_stop: BasePruner | None) -> None:
        self.trainer, self._epochs, self._seed = trainer, epochs, seed
        setting = trainer.search_setting
        self.cache = TrainingCache(setting, inherits=trainer.inherits, stopped=early_stop is not None)
        self.early_stop = None if early_stop is None else EarlyStop(early_stop, setting, trainer.data)
        n_images = len(trainer.data.validation_labels)
        self.batches = performance_batches(n_images, np.random.default_rng(seed))

    def __call__(self, trial: BaseTrial, layers: Network, lineage: Lineage = ()) -> Trained | None:
        """Return the training outcome of the network and record it in the trial.

        Return None if memory ran out, which is recorded too.
        """
        with self.cache.lock_for(layers, lineage):
            return self._look_up_or_train(trial, layers, lineage)

    def _look_up_or_train(self, trial: BaseTrial, layers: Network, lineage: Lineage) -> Trained | None:
        known = self.cache.find(trial.study, layers, lineage) if isinstance(trial, Trial) else None
        trained = self._train_and_judge(trial, layers, lineage) if known is None else known
        if trained is None:
            _logger.warning(
                f"Out of memory while training {describe(layers)} on {self.trainer.data.device}; "
                "the trial fails."
            )
            trial.set_user_attr("failed", f"out of memory while training {describe(layers)}")
            return None
        step = len(layers) - 1
        report_performance(trial, trained.performance, step)
        note_training(trial, self.trainer.search_setting, step, trained, looked_up=known is not None)
        return trained

    def _train_and_judge(self, trial: BaseTrial, layers: Network, lineage: Lineage) -> Trained | None:
        """Train and validate a network of the search. Return None if memory ran out."""
        start = time.perf_counter()
        watch = None
        if self.early_stop is not None and isinstance(trial, Trial):
            epochs = self.trainer.inherited_epochs if lineage else self._epochs
            watch = self.early_stop.watch(trial.study, trial, depth=len(layers), epochs=epochs)
        try:
            correct = self.trainer.validate(layers, seed=self._seed, lineage=lineage, watch=watch)
        finally:
            if watch is not None:
                watch.close()
        if correct is None:
            return None
        performance = [float(correct[batch].mean()) for batch in self.batches]
        trained = Trained(float(correct.mean()), performance, time.perf_counter() - start)
        return trained if watch is None else trained._replace(curve=tuple(watch.curve), stopped=watch.stopped)


def performance_batches(images: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the indices of the validation images in 32 batches of 16.

    With fewer than 512 images the batches are smaller. With fewer than 32 images, batches of 16 are drawn
    with replacement.

    Examples:
        >>> [len(batch) for batch in performance_batches(100, np.random.default_rng(0))][:6]
        [4, 4, 4, 4, 3, 3]
    """
    if images < PERFORMANCE_BATCHES:
        return list(rng.integers(images, size=(PERFORMANCE_BATCHES, PERFORMANCE_BATCH_SIZE)))
    chosen = rng.permutation(images)[: PERFORMANCE_BATCHES * PERFORMANCE_BATCH_SIZE]
    return np.array_split(chosen, PERFORMANCE_BATCHES)
