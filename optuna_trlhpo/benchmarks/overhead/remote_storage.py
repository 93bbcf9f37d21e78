"""A storage as a worker on another machine sees it: every call is counted, and takes a while on its clock."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

T = TypeVar("T")


class RemoteStorage(BaseStorage):
    """A client of a storage that other workers use, too.

    As Optuna's clients do (`RDBStorage` with its cache, `GrpcStorageProxy`), it keeps the names, the
    directions and the finished trials that it has read, and asks again only for trials that were not
    finished.

    Args:
        backend: The storage.

    Attributes:
        calls: Number of calls, by method.
        written: Bytes sent, as JSON.
        read: Bytes of trials received, as JSON.
        bookkeeping: Seconds of the processor for counting the bytes, which a worker would not spend.
    """

    def __init__(self, backend: BaseStorage) -> None:
        self._backend = backend
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._finished: set[int] = set()  # ids of the trials that need not be read again
        self.reset()

    def reset(self) -> None:
        """Count from zero. What was read stays known."""
        self.calls: Counter[str] = Counter()
        self.written = 0
        self.read = 0
        self.bookkeeping = 0.0

    def _call(self, method: Callable[..., T], *arguments: Any, **named: Any) -> T:
        self.calls[method.__name__] += 1
        return method(*arguments, **named)

    def _write(self, method: Callable[..., T], *arguments: Any) -> T:
        begin = time.thread_time()
        self.written += _size(arguments)
        self.bookkeeping += time.thread_time() - begin
        return self._call(method, *arguments)

    def _once(self, method: Callable[..., T], *arguments: Any) -> T:
        key = method.__name__, *arguments
        if key not in self._kept:
            self._kept[key] = self._call(method, *arguments)
        value: T = self._kept[key]
        return value

    def _receive(self, trials: Sequence[FrozenTrial]) -> None:
        begin = time.thread_time()
        for trial in trials:
            if trial._trial_id not in self._finished:
                self.read += size_of_trial(trial)
                if trial.state.is_finished():
                    self._finished.add(trial._trial_id)
        self.bookkeeping += time.thread_time() - begin

    # Studies ------------------------------------------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Forward the call."""
        return self._write(self._backend.create_new_study, directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """Forward the call, and forget the study."""
        self._call(self._backend.delete_study, study_id)
        self._kept.clear()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Forward the call."""
        self._write(self._backend.set_study_user_attr, study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Forward the call."""
        self._write(self._backend.set_study_system_attr, study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Forward the first call."""
        return self._once(self._backend.get_study_id_from_name, study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Forward the first call."""
        return self._once(self._backend.get_study_name_from_id, study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Forward the first call."""
        return self._once(self._backend.get_study_directions, study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Forward the call."""
        return self._call(self._backend.get_study_user_attrs, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Forward the call."""
        return self._call(self._backend.get_study_system_attrs, study_id)

    def get_all_studies(self) -> Any:
        """Forward the call."""
        return self._call(self._backend.get_all_studies)

    # Trials -------------------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Forward the call."""
        return self._write(self._backend.create_new_trial, study_id, template_trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Forward the call."""
        arguments = trial_id, param_name, param_value_internal, distribution
        self._write(self._backend.set_trial_param, *arguments)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Forward the call."""
        return self._write(self._backend.set_trial_state_values, trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Forward the call."""
        self._write(self._backend.set_trial_intermediate_value, trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Forward the call."""
        self._write(self._backend.set_trial_user_attr, trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Forward the call."""
        self._write(self._backend.set_trial_system_attr, trial_id, key, value)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """Forward the first call."""
        return self._once(self._backend.get_trial_id_from_study_id_trial_number, study_id, trial_number)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Forward the call, unless the trial is known to be finished."""
        if trial_id in self._finished:
            return self._backend.get_trial(trial_id)
        trial = self._call(self._backend.get_trial, trial_id)
        self._receive([trial])
        return trial

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Forward the call, as one for the trials of every state that are not known to be finished."""
        everything = self._call(self._backend.get_all_trials, study_id, deepcopy=deepcopy)
        self._receive(everything)
        return [trial for trial in everything if states is None or trial.state in states]


def size_of_trial(trial: FrozenTrial) -> int:
    """Return the bytes of a trial as JSON."""
    return _size(
        [
            *(trial.number, trial.state, trial.values, trial.datetime_start, trial.datetime_complete),
            *(trial.params, list(trial.distributions.values()), trial.intermediate_values),
            *(trial.user_attrs, trial.system_attrs),
        ]
    )


def _size(value: Any) -> int:
    return len(json.dumps(value, default=_as_json))


def _as_json(value: Any) -> str:
    return distribution_to_json(value) if isinstance(value, BaseDistribution) else str(value)
