"""`TRLHPOClassifier`: search and refit with the interface of scikit-learn. Requires the extra ``cnn``."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import optuna
import torch
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo._checks import check_positive_integer
from optuna_trlhpo._threads import cpu_threads
from optuna_trlhpo.cnn.objective import CNNObjective
from optuna_trlhpo.layers import Vocabulary
from optuna_trlhpo.layers.kinds import MLP
from optuna_trlhpo.sampler import TRLHPOSampler
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.trials.attributes import read_architecture
from optuna_trlhpo.trials.training_record import read_trainings

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        'TRLHPOClassifier needs scikit-learn 1.6 or newer: pip install "optuna-trlhpo[cnn]"'
    ) from error

_STEPS = 300
"""Approximate number of training steps for the default number of epochs."""
_LAYERS = 4
"""Largest number of layers by default, but within limits."""
_EPOCHS = 5, 100
"""Minimum and maximum of the default number of epochs."""


class TRLHPOClassifier(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier that searches a small network for the given data and trains it.

    `fit` searches with `TRLHPOSampler` and evaluates networks on a validation split. It confirms the leaders
    and trains the best of them on all the data.

    Args:
        n_trials: Number of trials of the search. None means as many as the ``timeout`` allows.
        timeout: Maximum duration of the search in seconds. At least one trial is run.
        vocabulary: The kinds of layer. Default: for images `kinds.CNN` within a limit (a ``max_`` argument
            but for the layers), else Table I; for rows `kinds.MLP`.
        max_layers: Maximum number of layers of a network. Default: 4; 8 where `kinds.CNN` is the default.
        max_macs: Maximum MACs of a network for one input. None means no limit.
        max_parameters: Maximum number of weights and biases of a network. None means no limit.
        max_activation_bytes: Maximum size in bytes of the input and output of one layer together. None means
            no limit.
        max_model_bytes: Maximum size of the network's ONNX file in bytes. None means no limit.
        quantize: ``"int8"`` if both limits in bytes are meant for 8-bit integers, see `CNNObjective`.
        augment: Random transformations of training images, see `CNNObjective`.
        epochs: Number of epochs of a training. Default: 5 to 100, for about 300 steps.
        batch_size: Number of inputs in a step.
        learning_rate: Peak learning rate of Adam.
        confirm: Number of leaders of the search to train again with new seeds before the best is chosen. 1
            selects the best observed network directly.
        validation_fraction: Fraction of the data for validation.
        sampler: Sampler of the search. Default: a `TRLHPOSampler` with the seed of ``random_state``.
        study: Study to continue, which maximises, preferably without a pruner. Default: a new in-memory
            study. Only its trials with the data, arguments and seed of this fit are considered. So the folds
            of a cross-validation that share a stored study do not choose one another's networks.
        device: Device of the trainings. Default: the GPU if there is one.
        threads: Number of CPU threads. "auto" measures how many are worthwhile.
        verbose: Whether to show Optuna's progress bar and log.
        random_state: Random seed of the split, the sampler and the trainings.

    Attributes:
        classes_: Sorted labels.
        n_features_in_: Length of the second axis of the inputs of `fit`.
        study_: Study of the search.
        architecture_: Architecture of the chosen network.
        network_: The chosen network, trained.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = TRLHPOClassifier(n_trials=3, random_state=0).fit(X[::2], y[::2])
        >>> bool(model.score(X[1::2], y[1::2]) > 0.9)
        True
    """

    def __init__(
        self,
        *,
        n_trials: int | None = 50,
        timeout: float | None = None,
        vocabulary: Vocabulary | None = None,
        max_layers: int | None = None,
        max_macs: float | None = None,
        max_parameters: int | None = None,
        max_activation_bytes: int | None = None,
        max_model_bytes: int | None = None,
        quantize: str | None = None,
        augment: Any = None,
        epochs: int | None = None,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        confirm: int = 3,
        validation_fraction: float = 0.25,
        sampler: BaseSampler | None = None,
        study: optuna.Study | None = None,
        device: str | None = None,
        threads: int | str = 1,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_trials = n_trials
        self.timeout = timeout
        self.vocabulary = vocabulary
        self.max_layers = max_layers
        self.max_macs = max_macs
        self.max_parameters = max_parameters
        self.max_activation_bytes = max_activation_bytes
        self.max_model_bytes = max_model_bytes
        self.quantize = quantize
        self.augment = augment
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.confirm = confirm
        self.validation_fraction = validation_fraction
        self.sampler = sampler
        self.study = study
        self.device = device
        self.threads = threads
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> TRLHPOClassifier:
        """Search for a network, choose the best one and train it.

        Args:
            X: Images ``[N, H, W]`` or ``[N, C, H, W]``, or rows ``[N, F]``. Inputs with other axes need a
                vocabulary for them.
            y: Labels ``[N]`` of any type, each at least twice.

        Raises:
            ValueError: If data or arguments are invalid, or no trial of the search completed.
        """
        self._check_search()
        X, y = validate_data(self, X, y, allow_nd=True, dtype=np.float32, ensure_min_samples=2)
        check_classification_targets(y)
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction!r}; it must be between 0 and 1"
            )
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            only = self.classes_.tolist()[0]
            raise ValueError(f"y contains one class only, {only!r}; a classifier needs at least two")
        counts = np.bincount(labels)
        if counts.min() < 2:
            label = self.classes_.tolist()[counts.argmin()]
            raise ValueError(
                f"class {label!r} occurs once in y; each class must occur at least twice, for training "
                "and for validation"
            )
        objective = self._objective(X, labels)
        verbosity = optuna.logging.get_verbosity()
        if not self.verbose:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self.study_: optuna.Study = self._new_study(objective.seed) if self.study is None else self.study
            own = self._search(objective)
            leader: Any = own.best_trial
            if self.confirm > 1:
                leader = objective.confirm(own, top=self.confirm, repeats=2)[0]
        finally:
            optuna.logging.set_verbosity(verbosity)
        refit = objective.refit(leader)
        self._threads = objective.threads
        self.architecture_ = refit.architecture
        self.network_ = refit.network.cpu()
        self._shape, self._is_of_images = X.shape[1:], len(objective.data.input_shape) == 3
        self._mean, self._std = np.array(objective.data.mean), np.array(objective.data.std)
        return self

    def _check_search(self) -> None:
        check_positive_integer("confirm", self.confirm)
        timeout = self.timeout
        is_number = isinstance(timeout, int | float | np.number) and not isinstance(timeout, bool)
        if timeout is not None and not (is_number and timeout >= 0):
            raise ValueError(f"timeout is {timeout!r}; it must be a number of seconds of at least 0, or None")
        if self.n_trials is not None:
            check_positive_integer("n_trials", self.n_trials)
        elif timeout is None:
            raise ValueError("n_trials and timeout are both None; at least one must limit the search")

    def _new_study(self, seed: int) -> optuna.Study:
        sampler = TRLHPOSampler(seed=seed) if self.sampler is None else self.sampler
        # A trial reports small networks first, and a pruner would stop it because of them.
        return optuna.create_study(direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner())

    def _search(self, objective: CNNObjective) -> optuna.Study:
        """Run the trials and return the study.

        If the study contains trainings with other data, arguments or seeds, or networks beyond the limits,
        return a copy without them.
        """
        numbers: list[int] = []
        run = functools.partial(
            self.study_.optimize,
            objective,
            callbacks=[lambda _, trial: numbers.append(trial.number)],
            show_progress_bar=self.verbose,
        )
        run(n_trials=self.n_trials, timeout=self.timeout)
        if not numbers:  # the timeout was too short for a trial
            run(n_trials=1)
        trials = [trial for trial in self.study_.get_trials(deepcopy=False) if trial.state.is_finished()]
        settings = {trial.number: read_trainings(trial)[0] for trial in trials}
        mine = {settings[number] for number in numbers} - {""}
        own = [trial for trial in trials if settings[trial.number] in mine and _is_of(objective.space, trial)]
        if not any(trial.state == TrialState.COMPLETE for trial in own):
            raise ValueError(
                f"none of the {len(numbers)} trials of the search completed: no network was within the "
                "limits and fitted in memory"
            )
        if len(own) == sum(setting != "" for setting in settings.values()):
            return self.study_
        copy = optuna.create_study(direction="maximize")
        copy.add_trials(own)
        return copy

    def _objective(self, X: np.ndarray, labels: np.ndarray) -> CNNObjective:
        limits: dict[str, Any] = {
            "max_macs": self.max_macs,
            "max_parameters": self.max_parameters,
            "max_activation_bytes": self.max_activation_bytes,
            "max_model_bytes": self.max_model_bytes,
        }
        vocabulary, max_layers = self.vocabulary, self.max_layers
        is_free = all(limit is None for limit in limits.values())
        if vocabulary is None and X.ndim == 2:
            vocabulary = MLP
        if max_layers is None and (vocabulary is not None or is_free):
            max_layers = _LAYERS
        n = len(labels)
        validation = min(max(round(self.validation_fraction * n), 1), n - 1)
        epochs = self.epochs
        if epochs is None:
            epochs = min(max(math.ceil(_STEPS * self.batch_size / n), _EPOCHS[0]), _EPOCHS[1])
        return CNNObjective(
            (X, labels),
            validation_size=validation,
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            max_layers=max_layers,
            **limits,
            quantize=self.quantize,
            augment=self.augment,
            min_accuracy=None,  # with many classes, even a good network may have a low accuracy
            vocabulary=vocabulary,
            device=self.device,
            threads=self.threads,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probabilities ``[N, classes]`` of the classes, in the order of ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, dtype=np.float32, reset=False)
        if X.shape[1:] != self._shape:
            raise ValueError(f"X has inputs of shape {X.shape[1:]}; the model was fitted on {self._shape}")
        if self._is_of_images:  # images are standardised per channel, other inputs per feature
            X = X[:, None] if X.ndim == 3 else X
            inputs = (X - self._mean[:, None, None]) / self._std[:, None, None]
        else:
            inputs = (X - self._mean) / self._std
        with torch.inference_mode(), cpu_threads(self._threads):
            batches = torch.from_numpy(inputs.astype(np.float32)).split(1000)
            logits = torch.cat([self.network_(batch) for batch in batches])
            return logits.double().softmax(dim=1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class of each input, ``[N]``."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = False
        return tags


def _is_of(space: LayerSpace, trial: FrozenTrial) -> bool:
    """Return whether the space contains the best network of the trial."""
    found = read_architecture(trial)
    if found is None:
        return False
    try:
        space.check(found[1])
    except ValueError:
        return False
    return True
