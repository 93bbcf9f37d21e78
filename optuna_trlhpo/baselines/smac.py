"""`SMACSampler`, which runs SMAC3 of the package ``smac`` trial by trial."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.search_space import intersection_search_space
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo._checks import check_integer
from optuna_trlhpo.baselines._planned import History, PlannedSampler, check_single_objective
from optuna_trlhpo.baselines._values import all_values, is_valid, n_values, random_value

_MISSING = (
    "SMACSampler needs the package smac: pip install 'optuna-trlhpo[smac]', or pip install 'smac>=2.4' "
    "(older versions need SWIG and a compiler)"
)


class SMACSampler(PlannedSampler):
    """SMAC3's facade for hyper-parameter optimisation: a random forest, expected improvement, local search.

    SMAC works on a fixed search space: the given one, or else the parameters that all finished trials share
    (trials before the first has finished are random). Parameters outside this space, such as conditional
    ones, are drawn uniformly. All settings but ``retrain_after`` are those of SMAC's
    ``HyperparameterOptimizationFacade``: a Sobol design of ten trials per parameter, but of at most a quarter
    of ``n_trials``; log expected improvement; a forest of ten trees; every fifth trial at random. Failed
    trials are reported to SMAC as crashed, at the cost of the worst one; pruned ones count with their last
    report, and without one as failed.

    Unlike the other samplers here it keeps SMAC's state from trial to trial. Two runs with one seed are equal
    as long as neither is interrupted and trials run one at a time. A sampler that was pickled, or is new to a
    study, reads all trials and continues from there, but with other random numbers.

    Source: Lindauer et al., "SMAC3: A Versatile Bayesian Optimization Package for Hyperparameter
    Optimization", JMLR 23, 2022.

    Args:
        search_space: Distributions by parameter name; None: the intersection of the finished trials.
        n_trials: Expected number of trials of the study, which determines the size of SMAC's initial design;
            the actual number may differ; at least 1.
        retrain_after: Number of trials after which the forest is fitted again; at least 1. SMAC's own default
            is 8. That takes a sixth of the time, but where the forest proposes too few new networks, the rest
            are random: on NAS-Bench-Macro the regret after 100 trials was about twice as large (5 seeds
            each). With 1 a trial takes about a second of one CPU core.
        seed: Random seed. None draws a new one.

    Attributes:
        session: SMAC's state of the current study; None before it is first asked.

    Raises:
        ImportError: If the package ``smac`` is not installed, or does not work.
        ValueError: If an argument is out of range; when sampling, in a study of several objectives.

    Examples:
        >>> import optuna
        >>> sampler = SMACSampler(n_trials=20, seed=0)  # doctest: +SKIP
        >>> study = optuna.create_study(sampler=sampler)  # doctest: +SKIP
        >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=20)  # doctest: +SKIP
        >>> study.best_value < 0.01  # doctest: +SKIP
        True
    """

    def __init__(
        self,
        *,
        search_space: Mapping[str, BaseDistribution] | None = None,
        n_trials: int = 100,
        retrain_after: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        check_integer("n_trials", n_trials, least=1)
        check_integer("retrain_after", retrain_after, least=1)
        if search_space is not None and not (
            isinstance(search_space, Mapping)
            and all(isinstance(name, str) for name in search_space)
            and all(isinstance(distribution, BaseDistribution) for distribution in search_space.values())
        ):
            raise ValueError(
                f"search_space is {search_space!r}; it must map parameter names to distributions, or be None"
            )
        _import_smac()
        self._search_space = None if search_space is None else dict(search_space)
        self._n_trials = n_trials
        self._retrain_after = retrain_after
        self.session: Session | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        check_single_objective(self, study)
        space = self._search_space
        if space is None:
            space = intersection_search_space(study.get_trials(deepcopy=False))
        return {
            name: distribution for name, distribution in sorted(space.items()) if not distribution.single()
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        check_single_objective(self, study)
        if not search_space:
            return {}
        with self._lock:
            history = History(study, trial)  # under the lock, to include the results that other threads told
            session = self.session
            if session is None or not session.suits(study.study_name, search_space, history):
                self.session = session = Session(
                    study_name=study.study_name,
                    space=search_space,
                    n_trials=self._n_trials,
                    retrain_after=self._retrain_after,
                    seed=self._seed % 2**31,
                )
            session.tell(history)
            values = session.ask(trial)
        if values is None:
            rng = self._generator("plan", trial.number)
            values = {name: random_value(distribution, rng) for name, distribution in search_space.items()}
        return values

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        check_single_objective(self, study)
        return random_value(param_distribution, self._generator("value", trial.number, param_name))

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        pass  # SMAC gets the result when it is asked next

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"session": None}


class Session:
    """SMAC on one study and one search space.

    Its space has the same positions as the study's space. Choices, and numbers with a step, are represented
    by their indices, because SMAC has no steps and allows only few types of choices.

    Attributes:
        facade: SMAC itself, which is asked and told.
    """

    def __init__(
        self,
        *,
        study_name: str,
        space: dict[str, BaseDistribution],
        n_trials: int,
        retrain_after: int,
        seed: int,
    ) -> None:
        smac = _import_smac()
        from ConfigSpace import ConfigurationSpace

        self._study_name = study_name
        self._space = space
        self._told: dict[int, datetime | None] = {}
        self._asked: dict[int, Any] = {}
        self._run_seed = 0  # same for all configurations: SMAC uses the first one that it gets, or draws one
        self._values: dict[str, list[Any]] = {}
        self._config_space = ConfigurationSpace(seed=seed)
        for i, (name, distribution) in enumerate(space.items()):
            self._config_space.add(self._hyperparameter(f"p{i}", name, distribution))
        # SMAC always writes to a folder. It is deleted with the session.
        self._folder = tempfile.TemporaryDirectory(prefix="smac-")
        scenario = smac.Scenario(
            self._config_space,
            output_directory=Path(self._folder.name),
            deterministic=True,
            n_trials=n_trials,
            seed=seed,
        )
        facade = smac.HyperparameterOptimizationFacade
        selector = facade.get_config_selector(scenario, retrain_after=retrain_after)
        self.facade = facade(
            scenario, _not_called, config_selector=selector, overwrite=True, logging_level=False
        )

    def suits(self, study_name: str, space: dict[str, BaseDistribution], history: History) -> bool:
        """Return whether this is the session of that study, and not of an earlier study of the same name."""
        begun = {trial.number: trial.datetime_start for trial in history.finished}
        same = all(begun.get(number) == start for number, start in self._told.items())
        return same and (study_name, space) == (self._study_name, self._space)

    def tell(self, history: History) -> None:
        """Give SMAC the results of trials that have finished since the last call."""
        from smac.runhistory.dataclasses import TrialInfo, TrialValue
        from smac.runhistory.enumerations import StatusType

        finite = [score for score in map(history.score, history.finished) if np.isfinite(score)]
        if not finite:
            return  # SMAC also uses the costs of crashed trials, which need a worst one
        worst, best = min(finite), max(finite)
        for trial in history.finished:
            if trial.number in self._told:
                continue
            self._told[trial.number] = trial.datetime_start
            asked = self._asked.pop(trial.number, None)
            config = self._configuration(trial.params)
            score = history.score(trial)
            crashed = TrialValue(cost=-worst, status=StatusType.CRASHED)
            value = crashed if score == -np.inf else TrialValue(cost=-min(score, best))
            if asked is not None and config == asked.config:
                # Use SMAC's own object: SMAC distinguishes equal configurations by the types of their values.
                self.facade.tell(asked, value, save=False)
                continue
            if asked is not None:
                # The configuration was not tried, as where a value was fixed: it must not stay open.
                self.facade.tell(asked, crashed, save=False)
            if config is not None:
                self.facade.tell(TrialInfo(config, seed=self._run_seed), value, save=False)

    def ask(self, trial: FrozenTrial) -> dict[str, Any] | None:
        """Values for the whole space; None if SMAC finds no new ones."""
        from smac.main.exceptions import ConfigurationSpaceExhaustedException

        try:
            self._asked[trial.number] = info = self.facade.ask()
        except (StopIteration, ConfigurationSpaceExhaustedException):
            return None
        self._run_seed = info.seed
        values = {}
        for i, (name, distribution) in enumerate(self._space.items()):
            value = info.config[f"p{i}"]
            if name in self._values:
                values[name] = self._values[name][int(value)]
            else:
                assert isinstance(distribution, IntDistribution | FloatDistribution)
                number = int(value) if isinstance(distribution, IntDistribution) else float(value)
                values[name] = min(max(number, distribution.low), distribution.high)
        return values

    def _hyperparameter(self, key: str, name: str, distribution: BaseDistribution) -> Any:
        import ConfigSpace as cs

        if isinstance(distribution, CategoricalDistribution):
            self._values[name] = list(distribution.choices)
            return cs.CategoricalHyperparameter(key, list(range(len(distribution.choices))))
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        log = distribution.log
        if isinstance(distribution, FloatDistribution) and distribution.step is None:
            return cs.UniformFloatHyperparameter(key, distribution.low, distribution.high, log=log)
        if isinstance(distribution, IntDistribution) and distribution.step == 1:
            return cs.UniformIntegerHyperparameter(key, distribution.low, distribution.high, log=log)
        self._values[name] = list(all_values(distribution))
        return cs.UniformIntegerHyperparameter(key, 0, int(n_values(distribution)) - 1)

    def _configuration(self, params: Mapping[str, Any]) -> Any:
        """Parameters of a trial as SMAC's configuration; None if they are not in the space."""
        from ConfigSpace import Configuration

        values = {}
        for i, (name, distribution) in enumerate(self._space.items()):
            if name not in params or not is_valid(distribution, params[name]):
                return None
            value = params[name]
            if name in self._values:
                distances = [0 if other == value else 1 for other in self._values[name]]
                if isinstance(distribution, FloatDistribution):
                    distances = [abs(other - value) for other in self._values[name]]
                value = int(np.argmin(distances))
            values[f"p{i}"] = value
        return Configuration(self._config_space, values=values)


def _not_called(config: Any, seed: int = 0) -> float:
    raise AssertionError("the objective is evaluated by Optuna")


def _import_smac() -> Any:
    try:
        import smac
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return smac
