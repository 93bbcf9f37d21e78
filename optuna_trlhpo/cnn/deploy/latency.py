"""Latency of networks, measured once for each while no thread of this process trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from optuna_trlhpo.cnn.memory import is_out_of_memory
from optuna_trlhpo.cnn.timing_lock import TIMING_LOCK
from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.space import LayerSpace


class Latencies:
    """Latencies of architectures, each measured on first use.

    Args:
        measure: Returns the latency of a network in seconds.
    """

    def __init__(self, measure: Callable[[Network], float]) -> None:
        self._measure = measure
        self._known: dict[str, float] = {}

    def __call__(self, layers: Network) -> float:
        """Return the latency of a network in seconds, measured once.

        It is NaN if memory ran out. The training of the network needs more, so it will fail the trial.
        """
        key = describe(layers)
        if key not in self._known:
            with TIMING_LOCK.measuring():
                if key not in self._known:  # another thread may have measured it meanwhile
                    try:
                        self._known[key] = self._measure(layers)
                    except (RuntimeError, MemoryError) as error:
                        if not is_out_of_memory(error):
                            raise
                        return math.nan  # not kept: other trials may have left more memory
        return self._known[key]

    def __reduce__(self) -> tuple[type[Latencies], tuple[Callable[[Network], float]]]:
        # Measured again in another process, which may run on another machine.
        return Latencies, (self._measure,)


def check_reachable(max_latency: float, measure: Callable[[Network], float], space: LayerSpace) -> None:
    """Raise a ``ValueError`` if even the cheapest network of one layer takes longer than ``max_latency``."""
    layers, seconds = cheapest_layer(space), math.inf
    with TIMING_LOCK.measuring():
        for _ in range(3):  # a single measurement may be disturbed
            seconds = min(seconds, measure(layers))
            if seconds <= max_latency:
                return
    raise ValueError(
        f"max_latency is {max_latency:g} s; the cheapest network of one layer, {describe(layers)}, takes "
        f"{seconds:.3g} s on this machine"
    )


def cheapest_layer(space: LayerSpace) -> Network:
    """Return the network of one layer with the fewest MACs.

    Examples:
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
