"""Stand-ins for a trial, as far as `Hyperparameter.suggest` needs one: layers -> parameters and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna_trlhpo.layers import Layer, unmasked


class Recorder:
    """Stands in for a trial: answers with the values of one layer and notes the names asked for."""

    def __init__(self, layer: Layer) -> None:
        values = layer.values
        self._values = dict(zip((hp.name for hp in layer.hyperparameters), values, strict=True))
        self._values["kind"] = layer.kind
        self.params: dict[str, Any] = {}

    def suggest_int(self, name: str, *_: Any, **__: Any) -> Any:
        field = unmasked(name).split("_")[-1]
        self.params[name] = self._values[field]
        return self.params[name]

    suggest_categorical = suggest_int


class Replay:
    """Stands in for a trial: answers from its parameters, with a sentence where one is missing or wrong."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> Any:
        return self.suggest_categorical(name, range(low, high + 1, step))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name not in self._params:
            raise ValueError(f"parameter {name!r} is missing; there are {', '.join(sorted(self._params))}")
        if self._params[name] not in choices:
            span = (
                f"{choices[0]} to {choices[-1]}"
                if isinstance(choices, range)
                else ", ".join(map(str, choices))
            )
            raise ValueError(f"parameter {name!r} is {self._params[name]!r}; it must be one of {span}")
        return self._params[name]
