"""States of MetaQNN: what its Q-table knows of the position in a trial.

Where the parameters are layers, this is the published state: the layer before and not all of the network, its
depth, and the *representation size*, the height or width of the image there, in three buckets (Baker et al.,
section 4.1).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import Study

from optuna_trlhpo.baselines.q_learning.metaqnn_space import bucket_of, is_layer_name
from optuna_trlhpo.baselines.q_learning.position import TrialPosition, is_layer
from optuna_trlhpo.layers import Shape, network_in, unmasked
from optuna_trlhpo.space.growth import SPACE_ATTRIBUTE

_LARGEST_INPUT = 10**6


class Representation:
    """Makes states of positions.

    Args:
        input_shape: Shape of the image that the layers of a `LayerSpace` have as input; None: unknown, and
            states have no representation size.

    Examples:
        >>> from optuna.distributions import CategoricalDistribution
        >>> position, kinds = TrialPosition(n_bins=4), CategoricalDistribution(["a", "b"])
        >>> for name in ("x", "y"):
        ...     position.push(name, kinds, "b")
        >>> Representation(None).state(position, "z", kinds)
        ('z', (('x', 1), ('y', 1)))
    """

    def __init__(self, input_shape: Shape | None) -> None:
        self._input_shape = input_shape

    def state(self, position: TrialPosition, name: str, distribution: BaseDistribution) -> Hashable:
        """Return the state in which a parameter is chosen."""
        if not is_layer(name, distribution):
            return name, tuple(choice for step in position.steps for choice in step.choices)
        so_far = position.step_so_far(name)
        steps = position.steps[:-1] if so_far else position.steps
        before = next((step for step in reversed(steps) if step.is_layer), None)
        layer = () if before is None else tuple(before.choices)
        others = tuple(choice for step in steps if not step.is_layer for choice in step.choices)
        return unmasked(name), so_far, layer, others, self._bucket(position, name)

    def _bucket(self, position: TrialPosition, name: str) -> int | None:
        """Return the bucket of the image that the layer has as input; 0 if that is no image."""
        if self._input_shape is None or is_layer_name(name):  # such a name has the bucket in it
            return None
        shape: Shape | None = self._input_shape
        for layer in network_in(position.values):
            shape = None if shape is None else layer.output_shape(shape)
        return bucket_of(min(shape[1:])) if shape is not None and len(shape) == 3 else 0


def representation_of(study: Study) -> Representation:
    """Return the representation of a study, which records the settings of its `LayerSpace`."""
    try:
        settings: Any = study.user_attrs.get(SPACE_ATTRIBUTE)
    except AttributeError:  # a bracket of HyperbandPruner has no attributes
        settings = None
    shape = settings.get("input_shape") if isinstance(settings, dict) else None
    if not isinstance(shape, Sequence) or len(shape) != 3:
        return Representation(None)
    is_valid = all(type(size) is int and 0 < size <= _LARGEST_INPUT for size in shape)
    return Representation(tuple(shape) if is_valid else None)
