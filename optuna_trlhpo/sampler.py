"""`TRLHPOSampler`: connects Optuna to the agent, and computes nothing itself.

Each call reads the study (`trials.study_reader`), passes newly finished trials to the agent, and asks it for
a value (`agent.agent`). A parameter that the agent does not decide is sampled independently.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo._checks import check_integer, check_positive_number, named_only
from optuna_trlhpo._threads import isolated
from optuna_trlhpo.agent.agent import Agent
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.generators import make_generator
from optuna_trlhpo.agent.layer_prior import load_priors
from optuna_trlhpo.agent.prior_knowledge import GrowthContext, NetworkSpace
from optuna_trlhpo.checkpoints.checkpointed_sampler import CheckpointedSampler, learned_anew_on_error
from optuna_trlhpo.space import sampler_hooks
from optuna_trlhpo.trials.agent_record import AGENT_ATTRIBUTE
from optuna_trlhpo.trials.attributes import (
    SAMPLER_ATTRIBUTE,
    read_from_study,
    write_to_study,
    write_to_trial,
)
from optuna_trlhpo.trials.earlier_study import EarlierStudy
from optuna_trlhpo.trials.fixed_network import fixed_network
from optuna_trlhpo.trials.study_reader import Reading, StudyReader

_logger = optuna.logging.get_logger("optuna.trlhpo.sampler")

_INSTEAD = {
    "constraints_func": "the objective calls trial.set_constraint(name, value), which the sampler reads",
    "multivariate": "it always considers parameters together",
    "group": "it always considers parameters together",
    "constant_liar": "it always considers the running trials",
    "n_ei_candidates": "pass agent=AgentConfig(n_candidates=...)",
    "source_trials": "pass warm_start=[study, ...]",
}
"""Advice for arguments that Optuna's samplers have and this one does not."""


class TRLHPOSampler(CheckpointedSampler):
    """A sampler that grows a network layer by layer and learns from the report after each layer.

    A critic, a Gaussian process, learns from every network that has a value: each reported prefix, and the
    end of each trial. It ranks whole networks and configurations: variations of the best, random ones, and in
    a `LayerSpace` of Table I or of `kinds.CNN` those that a pretrained transformer, the actor, proposes. The
    sampler answers parameter by parameter from the chosen plan, and plans again after each report. One trial
    in five explores: its network comes in turn from the actor and from chance. With `paper` the transformer
    actor-critic, trained by DDPG, decides alone. The sampler works with any objective and any parameter
    names; without reports it learns from final values. One sampler serves one study at a time: with another
    study it starts afresh.

    Args:
        seed: Random seed. None draws a new one.
        n_startup_trials: Number of trials sampled by ``independent_sampler`` before the agent takes over.
            Reports that give 1.5 times as many networks a value end this phase early. There is none where the
            layer prior applies; where only earlier studies do, every second trial of it is planned.
        n_exploration_trials: Number of trials over which the actor's noise falls linearly to 0, where the
            actor decides alone (``AgentConfig(n_candidates=0)``). None keeps it constant.
        agent: Settings of the agent.
        independent_sampler: Sampler of what the agent does not decide: the startup trials; later, one in five
            trials that grow layers of a `LayerSpace`, one in ten where a pretrained actor explores in turn,
            and one in ten others that differ in which parameters they have (`AgentConfig.random_interval`);
            parameters that no finished trial had; and most of those of a trial whose plans repeatedly failed.
            None: uniform, reproducible for each trial; `LayerSpace.suggest` gets an untried network.
        warm_start: Earlier studies of this objective or a similar one, such as one on another or a smaller
            dataset. Their predictions are trusted as far as this study confirms them. They are read now.
        layer_prior: Whether to propose and judge networks of a `LayerSpace` from the first trial on by an
            actor and a prior over layers that were trained on other tasks, which exist for the layers of
            Table I and of `kinds.CNN`; or the path of a file of `optuna_trlhpo.benchmarks pretrain`.
        repeat: Whether a configuration may be suggested again, as where the objective is noisy. False avoids
            this while an untried one is left, unless the reports of equal trials differ and decide what is
            right next. Values that the objective itself rounds cannot be recognised.
        time_budget: Seconds that the trials of the study may take together, if some take longer than others.
            The gain expected of a plan is then divided by its expected seconds, to the power of the share of
            the budget that is left (Lee et al., 2020, arXiv 2003.10870). The sampler does not end the study:
            pass ``timeout`` to `Study.optimize`. The seconds of a trial are those between its beginning and
            its end, or its user attribute ``"seconds"`` if it has one. None: all trials count the same.
        warn_independent_sampling: Whether to log a warning when, after the startup phase,
            ``independent_sampler`` samples a parameter that no finished trial had, outside of a `LayerSpace`.

    Raises:
        ValueError: For an argument out of range.
        TypeError: For an unknown argument, such as one of another sampler. The message lists the known ones.

    Attributes:
        agent: The agent of the current study. It exists from the study's first parameter on.

    Examples:
        >>> import optuna
        >>> study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        >>> len(study.trials)
        3
    """

    _agent_type: type[Agent] = Agent  # an ablation has another one

    @named_only(_INSTEAD)
    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 8,
        n_exploration_trials: int | None = 100,
        agent: AgentConfig | None = None,
        independent_sampler: BaseSampler | None = None,
        warm_start: Iterable[Study] = (),
        layer_prior: bool | str | Path = True,
        repeat: bool = False,
        time_budget: float | None = None,
        warn_independent_sampling: bool = True,
    ) -> None:
        check_integer("seed", seed, optional=True)
        check_integer("n_startup_trials", n_startup_trials)
        check_integer("n_exploration_trials", n_exploration_trials, optional=True)
        if agent is not None and not isinstance(agent, AgentConfig):
            raise ValueError(f"agent is {agent!r}; it must be an AgentConfig, or None for the default")
        if independent_sampler is not None and not isinstance(independent_sampler, BaseSampler):
            raise ValueError(
                f"independent_sampler is {independent_sampler!r}; it must be an Optuna sampler, or None"
            )
        earlier = list(warm_start) if isinstance(warm_start, Iterable) else [warm_start]
        if not all(isinstance(study, Study) for study in earlier) or isinstance(warm_start, Study):
            raise ValueError(f"warm_start is {warm_start!r}; it must be a list of studies")
        if not isinstance(repeat, bool):
            raise ValueError(f"repeat is {repeat!r}; it must be True or False")
        if not isinstance(layer_prior, bool | str | Path):
            raise ValueError(f"layer_prior is {layer_prior!r}; it must be True, False or the path of a file")
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self._n_startup_trials = n_startup_trials
        self._n_exploration_trials = n_exploration_trials
        self._config = AgentConfig() if agent is None else agent
        self._independent_sampler = independent_sampler
        self._warn_independent_sampling = warn_independent_sampling
        self._repeat = repeat
        self._time_budget = self._checked_budget(time_budget)
        self._earlier = [EarlierStudy(study) for study in earlier]
        self._priors = ()
        if layer_prior is not False and self._config.n_candidates:
            with isolated():
                self._priors = load_priors(None if layer_prior is True else Path(layer_prior))
        self._lock = threading.RLock()
        self._spaces: dict[tuple[str, int], GrowthContext] = {}  # by study name and number of a running trial
        self._reader = StudyReader(read_reports=self._config.read_reports)
        self._is_noted = False  # whether the settings are stored in the study
        self._is_broken = False

    @classmethod
    @named_only(_INSTEAD)
    def paper(
        cls,
        *,
        seed: int | None = None,
        n_startup_trials: int = 0,
        n_exploration_trials: int | None = 200,
        agent: AgentConfig | None = None,
        independent_sampler: BaseSampler | None = None,
        warm_start: Iterable[Study] = (),
        warn_independent_sampling: bool = True,
    ) -> TRLHPOSampler:
        """Return the paper's agent: the actor decides alone, with fading noise, from the first trial.

        Source: Shaer, Nikan, Shami, "Efficient Transformer-based Hyper-parameter Optimization for
        Resource-constrained IoT Environments", 2024, section IV. ``agent`` defaults to `AgentConfig.paper`.
        """
        return cls(
            seed=seed,
            n_startup_trials=n_startup_trials,
            n_exploration_trials=n_exploration_trials,
            agent=AgentConfig.paper() if agent is None else agent,
            independent_sampler=independent_sampler,
            warm_start=warm_start,
            layer_prior=False,
            warn_independent_sampling=warn_independent_sampling,
        )

    # Interface of Optuna ------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}  # parameters are proposed one by one, when more is known

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    @learned_anew_on_error
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler_hooks.serve(study, trial, self)
        with self._working():
            reading = self._read(study, trial, param_name)
            context = self._spaces.get((study.study_name, trial.number))
            proposal = self.agent.propose(reading, param_name, param_distribution, context)
            if proposal.is_decided:
                return self._allowed(param_distribution, proposal.value)
            # In a `LayerSpace` a new kind of layer is no surprise.
            if proposal.is_new and context is None and self._warn_independent_sampling:
                _logger.warning(
                    f"The parameter {param_name!r} in trial#{trial.number} is sampled independently, "
                    "because no finished trial has it. You can suppress this warning by setting "
                    "`warn_independent_sampling` to `False`."
                )
            trial = reading.trial
            rng = make_generator(self._seed, "independent", trial.number, len(trial.params))
            sampler = self._independent_sampler or RandomSampler(seed=int(rng.integers(2**32)))
            value = sampler.sample_independent(study, trial, param_name, param_distribution)
            return self.agent.claim(reading, param_name, param_distribution, value, context)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        # Learning waits for the first parameter: an error raised here would escape `catch` and end the study.
        if self._independent_sampler is not None:
            self._independent_sampler.before_trial(study, trial)
        sampler_hooks.serve(study, trial, self)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        sampler_hooks.release(study, trial)
        if self._independent_sampler is not None:
            self._independent_sampler.after_trial(study, trial, state, values)
        try:
            self._note_trial(study, trial)
        except Exception as error:  # it would end the study, and nothing depends on the record
            _logger.warning(f"The agent's record of trial#{trial.number} was not stored: {error!r}")

    # Interface of `LayerSpace` ------------------------------------------------------------------------

    def enter_space(self, study: Study, number: int, space: NetworkSpace, *, depth_first: bool) -> None:
        """Register that a trial of the study grows layers of ``space``.

        Args:
            study: The study.
            number: Number of the trial.
            space: A `LayerSpace`.
            depth_first: Whether the trial is asked for the depth first (`LayerSpace.suggest`).
        """
        with self._lock:
            draws_whole = depth_first and self._independent_sampler is None
            self._spaces[study.study_name, number] = GrowthContext(space, depth_first, draws_whole)

    @learned_anew_on_error
    def worth_training(self, study: Study, trial: FrozenTrial, *, depth: int, max_depth: int) -> bool:
        """Return whether to train the network that the running ``trial`` has grown to.

        That is the network that the agent planned. In a trial sampled at random every network is trained:
        they are more diverse than those of an agent that has just begun to learn. Where parameters were
        fixed, by `Study.enqueue_trial` or in a retried trial, only the network that they name is trained, and
        no smaller one. With the paper's agent every network is trained.

        Args:
            study: The study.
            trial: A running trial of the study.
            depth: Number of layers of the network.
            max_depth: Largest number of layers that it can have.
        """
        if self._config.n_candidates == 0:
            return True
        fixed = fixed_network(study, trial)
        if fixed is not None and depth <= fixed.depth:
            return depth == fixed.depth
        with self._working():
            reading = self._read(study, trial)
            return self.agent.worth_training(reading)

    @learned_anew_on_error
    def worth_growing(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether to train a deeper network in the running ``trial``, after its last report.

        That is so if a deeper network promises as much as the best that a new trial could try. A retry of a
        trial that had reported something ends with the network that the retried trial had reached.
        """
        if self._config.n_candidates == 0:
            return True
        fixed = fixed_network(study, trial)
        if fixed is not None and fixed.ends_trial:
            return False
        with self._working():
            reading = self._read(study, trial)
            context = self._spaces.get((study.study_name, trial.number))
            return self.agent.worth_growing(reading, context)

    def reseed_rng(self) -> None:
        # Generators are made per trial, so parallel workers draw different numbers anyway.
        if self._independent_sampler is not None:
            self._independent_sampler.reseed_rng()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {name: value for name, value in vars(self).items() if name != "_lock"}
            return state | {"_spaces": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()

    # Implementation -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """Hold the lock, with PyTorch's global settings isolated.

        An interruption, such as Ctrl-C, may leave the agent half updated: the next call learns all anew.
        """
        with self._lock, isolated():
            if self._is_broken:
                self._reader.forget()
            self._is_broken = True
            yield
            self._is_broken = False

    def _read(self, study: Study, trial: FrozenTrial, name: str | None = None) -> Reading:
        """Read the study; another one than before gets an agent of its own."""
        reading = self._reader.read(study, trial, name)
        if reading.is_new_study:
            self._begin(study, reading)
        for other in reading.finished or ():
            self._spaces.pop((study.study_name, other.number), None)
        return reading

    def _begin(self, study: Study, reading: Reading) -> None:
        """Discard everything learned: another study is another problem."""
        self.agent = self._agent_type(
            self._config,
            reading.directions,
            self._seed,
            n_startup_trials=self._n_startup_trials,
            n_exploration_trials=self._n_exploration_trials,
            earlier=self._earlier,
            priors=self._priors,
            repeat=self._repeat,
            time_budget=self._time_budget,
        )
        self._spaces = {key: space for key, space in self._spaces.items() if key[0] == study.study_name}
        self._is_noted = self._is_restored = False

    def _checked_budget(self, seconds: float | None) -> float | None:
        if seconds is None:
            return None
        check_positive_number("time_budget", seconds)
        if not self._config.n_candidates or self._config.acquisition == "thompson":
            raise ValueError(
                f"time_budget is {seconds!r}; it must be None for an agent that expects no gain: the paper's "
                "actor, and the acquisition function 'thompson'"
            )
        return float(seconds)

    def _note_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Store with the trial what it does not show itself, and the agent's record of it."""
        with self._lock, isolated():
            reading = self._reader.close(study, trial)
            record = None if reading is None else self.agent.record(reading)
        if record is None:
            return
        write_to_trial(study, trial, AGENT_ATTRIBUTE, record.to_json())
        if not self._is_noted:
            settings = json.loads(json.dumps(self.settings))  # as a storage returns it
            if read_from_study(study, SAMPLER_ATTRIBUTE) != settings:  # the latest sampler's are kept
                write_to_study(study, SAMPLER_ATTRIBUTE, settings)
            self._is_noted = True

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the sampler as stored with a study: of the agent's, those that differ from the default.

        The seed is included even if it was drawn.
        """
        default = AgentConfig()
        own = {f.name: getattr(self._config, f.name) for f in fields(AgentConfig)}
        return {
            "sampler": type(self).__name__,
            "seed": self._seed,
            "n_startup_trials": self._n_startup_trials,
            "n_exploration_trials": self._n_exploration_trials,
            "agent": {name: value for name, value in own.items() if value != getattr(default, name)},
            "layer_prior": bool(self._priors),
            **({} if self._time_budget is None else {"time_budget": self._time_budget}),
            "warm_start": [earlier.name for earlier in self._earlier],
            "optuna": optuna.__version__,
            "torch": str(torch.__version__),
        }
