"""How long networks take, each measured once, while nothing of this process is trained."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.space import LayerSpace


class Machine:
    """Trainings may go side by side, in threads; a measurement waits for them to end, and they wait for it.

    Example:
        >>> machine = Machine()
        >>> with machine.training(), machine.training():
        ...     pass
        >>> with machine.measuring():
        ...     pass
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._trainings = self._to_measure = 0
        self._is_measuring = False

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Within, nothing is measured. Not to be entered again within."""
        with self._changed:
            # Also while one waits to measure, or with many trainings its turn would never come.
            self._changed.wait_for(lambda: self._to_measure == 0)
            self._trainings += 1
        try:
            yield
        finally:
            with self._changed:
                self._trainings -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Within, nothing is trained, and nothing else is measured."""
        with self._changed:
            self._to_measure += 1
            try:
                self._changed.wait_for(lambda: not self._trainings and not self._is_measuring)
            except BaseException:  # an interrupt
                self._to_measure -= 1
                self._changed.notify_all()
                raise
            self._is_measuring = True
        try:
            yield
        finally:
            with self._changed:
                self._to_measure -= 1
                self._is_measuring = False
                self._changed.notify_all()


MACHINE = Machine()
"""The one that all trainings and measurements of this process share."""


class Latencies:
    """Seconds of each architecture, measured when they are first asked for.

    Args:
        measure: Gives the seconds of a network.
    """

    def __init__(self, measure: Callable[[Network], float]) -> None:
        self._measure = measure
        self._known: dict[str, float] = {}

    def __call__(self, layers: Network) -> float:
        """The seconds of a network: the same number whenever it is asked for."""
        key = describe(layers)
        if key not in self._known:
            with MACHINE.measuring():
                if key not in self._known:  # another thread may have been faster
                    self._known[key] = self._measure(layers)
        return self._known[key]

    def __reduce__(self) -> tuple[type[Latencies], tuple[Callable[[Network], float]]]:
        return Latencies, (self._measure,)  # another process may run on another machine


def cheapest_layer(space: LayerSpace) -> Network:
    """The network of one layer that takes the fewest MACs.

    Example:
        >>> cheapest_layer(LayerSpace(input_shape=(1, 8, 8)))
        (Conv(filters=8, kernel=7, stride=2),)
    """
    return min(_of_one_layer(space), key=space.macs)


def _of_one_layer(space: LayerSpace) -> Iterator[Network]:
    for cls in space.kinds(()):
        chosen: list[tuple[object, ...]] = [()]
        for _ in cls.hyperparameters:
            chosen = [(*values, value) for values in chosen for value in space.allowed((), cls, *values)]
        yield from ((cls(*values),) for values in chosen)
