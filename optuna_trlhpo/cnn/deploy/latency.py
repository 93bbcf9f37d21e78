"""How long networks take, each measured once, while nothing of this process is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from optuna_trlhpo.cnn.timing_lock import TIMING_LOCK
from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.space import LayerSpace


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
            with TIMING_LOCK.measuring():
                if key not in self._known:  # another thread may have been faster
                    self._known[key] = self._measure(layers)
        return self._known[key]

    def __reduce__(self) -> tuple[type[Latencies], tuple[Callable[[Network], float]]]:
        return Latencies, (self._measure,)  # another process may run on another machine


def check_reachable(max_latency: float, measure: Callable[[Network], float], space: LayerSpace) -> None:
    """Raise a ``ValueError`` if even the cheapest network of one layer takes longer than ``max_latency``."""
    layers, seconds = cheapest_layer(space), math.inf
    for _ in range(3):  # once it may have been disturbed
        seconds = min(seconds, measure(layers))
        if seconds <= max_latency:
            return
    raise ValueError(
        f"max_latency is {max_latency:g} s; the cheapest network of one layer, {describe(layers)}, takes "
        f"{seconds:.3g} s here"
    )


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
