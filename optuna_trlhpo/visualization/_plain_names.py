"""`with_plain_names`: a study whose layers have one name for each choice, for Optuna's own figures."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.study import Study

import optuna_trlhpo.layers.sequences  # noqa: F401  registers the vocabularies
from optuna_trlhpo.layers import Hyperparameter, unmasked
from optuna_trlhpo.layers.vocabulary import hyperparameter_of


def with_plain_names(study: Study) -> Study:
    """Return a copy of a study in memory whose layers have one parameter name for each choice.

    Optuna forbids a name to have two sets of choices. A `LayerSpace` therefore asks for ``layer2_kind``,
    ``layer2_kind_of_pool_fcl`` and so on, depending on what may follow the layers so far, and a figure that
    treats each name as a parameter of its own has many that say little. In the copy these are all
    ``layer2_kind``, with all choices. Other parameters, values, reports and attributes are unchanged.

    Args:
        study: A study of any sampler.

    Returns:
        A new study in memory. It is for looking at: a search that goes on with it has other names.

    Examples:
        >>> import optuna
        >>> from optuna_trlhpo import LayerSpace
        >>> space = LayerSpace(input_shape=(1, 12, 12), max_layers=3)
        >>> study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        >>> study.optimize(lambda trial: float(space.macs(space.suggest(trial))), n_trials=20)
        >>> plain = with_plain_names(study)
        >>> sorted({name for trial in study.trials for name in trial.params if "layer3_kind" in name})
        ['layer3_kind', 'layer3_kind_of_fcl', 'layer3_kind_of_pool_fcl']
        >>> sorted({name for trial in plain.trials for name in trial.params if "layer3_kind" in name})
        ['layer3_kind']
        >>> figure = optuna.visualization.plot_param_importances(plain)
    """
    copy = optuna.create_study(directions=study.directions)
    if study.metric_names is not None:
        copy.set_metric_names(study.metric_names)
    for name, value in study.user_attrs.items():
        copy.set_user_attr(name, value)
    for trial in study.get_trials():
        params: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        for name, distribution in trial.distributions.items():
            hyperparameter, plain = hyperparameter_of(name, distribution), unmasked(name)
            if hyperparameter is None or plain in trial.params.keys() - {name}:
                plain = name
            else:
                distribution = _whole(hyperparameter)
            params[plain], distributions[plain] = trial.params[name], distribution
        trial.params, trial.distributions = params, distributions
        copy.add_trial(trial)
    return copy


def _whole(hyperparameter: Hyperparameter) -> BaseDistribution:
    """Return the distribution of all values."""
    values = hyperparameter.values
    if hyperparameter.labels or len(values) == 1:
        return CategoricalDistribution(values)
    return IntDistribution(values[0], values[-1], step=values[1] - values[0])
