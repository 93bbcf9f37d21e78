"""`TRLHPOSampler`: joins Optuna to the agent, and computes nothing itself.

When a trial asks for its first parameter, the agent learns from every trial that has finished since. What the
trial has and has reported is read (`episode`), a network is planned (`search`), and the plan is answered
parameter by parameter. Everything random is drawn from generators made of the seed, the trial's number and
the place in the trial, so nothing depends on the order in which trials run.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo import hooks
from optuna_trlhpo._agent.config import AgentConfig
from optuna_trlhpo._agent.ddpg import DDPG
from optuna_trlhpo._agent.noise import ornstein_uhlenbeck
from optuna_trlhpo._agent.planning import Settled
from optuna_trlhpo._agent.prior import LayerPrior
from optuna_trlhpo._agent.threads import isolated
from optuna_trlhpo.arguments import named_only
from optuna_trlhpo.configurations import read_record
from optuna_trlhpo.episode import (
    PERFORMANCE_VALUES,
    Request,
    Seen,
    decode,
    encode,
    place_of_report,
    read_episode,
    read_request,
)
from optuna_trlhpo.experience import Experience
from optuna_trlhpo.explain import with_episode, with_path_plan, with_plan
from optuna_trlhpo.growth import fixed_network
from optuna_trlhpo.layers import ACTION_SLOTS
from optuna_trlhpo.notes import (
    AGENT_ATTRIBUTE,
    SAMPLER_ATTRIBUTE,
    SEEN_ATTRIBUTE,
    AgentNote,
    fixed_params,
    read_from_study,
    seen_in,
    write_to_study,
    write_to_trial,
)
from optuna_trlhpo.ordering import (
    ORDER_ATTRIBUTE,
    PLAN_ATTRIBUTE,
    in_order,
    keeps_order,
    order_note,
    planned_digest,
    reordered,
    with_params,
)
from optuna_trlhpo.path_agent import PathAgent
from optuna_trlhpo.path_search import PathPlan
from optuna_trlhpo.path_trial import Announced, PathTrial, digest_of
from optuna_trlhpo.reward import signs_of, worths_of
from optuna_trlhpo.search import Entered, Plan, Search, Space
from optuna_trlhpo.sources import EarlierStudy, Source
from optuna_trlhpo.unseen import seen_by_names

_logger = optuna.logging.get_logger("optuna.trlhpo.sampler")

_CATCH_UP = 10
"""A sampler that meets many finished trials at once updates as often as for this many."""
_ROUNDING = 1e-6
"""An action that is carried out is the one that was planned, but for so much."""
_STARTUP_VALUES = 1.5
"""Networks with a value for each startup trial, on average, that make further ones unnecessary."""
_MOST_PENDING = 32
"""Plans of other running trials whose outcome is imagined: the latest."""
_MOST_RUNNING = 200
"""Running trials that are looked at: of older ones nobody knows whether they still run."""
_MINIMUM_TRIALS = 2
"""Finished trials before the first update."""

_INSTEAD = {
    "constraints_func": "the objective calls trial.set_constraint(name, value), which the sampler reads",
    "multivariate": "it always considers parameters together",
    "group": "it always considers parameters together",
    "constant_liar": "it always considers what other trials are trying",
    "n_ei_candidates": "pass agent=AgentConfig(n_candidates=...)",
    "source_trials": "pass warm_start=[study, ...]",
}
"""For arguments of Optuna's samplers."""


@dataclass
class _Running:
    """What is kept of a trial while it runs."""

    seen: list[tuple[int, int]] = field(default_factory=list)
    n_asked: int = 0  # parameters the trial had, with the one asked for, at the last call
    plan: Plan | None = None
    n_seen: int = 0  # reports that the plan was made with
    note: AgentNote | None = None  # what is to be kept of it; None until the agent has decided something
    n_noted: int = 0  # pairs of `seen` that the storage has
    path: PathTrial = field(default_factory=lambda: PathTrial(-1))


class _Proposal(NamedTuple):
    value: Any  # which may be None, as a category


class TRLHPOSampler(BaseSampler):
    """A sampler that grows a network layer by layer and reads, inside the trial, what each layer was worth.

    A critic learns from every network that got a value: each reported prefix, and the end of each trial. It
    plans whole networks, answers parameter by parameter from the plan, and plans anew with what the trial has
    reported. With ``agent=AgentConfig.paper()`` the paper's transformer actor-critic decides instead. It
    works on any objective, with any parameter names; without reports it learns from final values. One
    sampler serves one study at a time: at another one it forgets the first.

    Args:
        seed: Of all that is random; None: another one each time.
        n_startup_trials: Trials sampled by ``independent_sampler`` before the agent takes over, or fewer if
            by their reports half as many networks again have a value; none where the prior for layers tells
            enough, and every second one where only earlier studies do.
        n_exploration_trials: Trials over which the noise on the actor falls linearly to 0, where the actor
            decides alone (``AgentConfig(n_candidates=0)``); None: it never falls.
        agent: The agent's settings.
        independent_sampler: Samples what the agent does not decide: the trials at the start, later on one in
            five of those that grow layers of a `LayerSpace` and one in ten of others that differ in which
            parameters they have (`AgentConfig.random_interval`), parameters that no finished trial had, and
            most of those of a trial in which plan after plan did not come about. None: uniformly,
            reproducible trial by trial.
        warm_start: Earlier studies, of this objective or a similar one: another dataset, a smaller one. What
            they expect of a network is believed as far as this study bears it out. Their trials are read
            now, once.
        layer_prior: Whether networks of a `LayerSpace` are judged from the first trial on by what was learned
            about layers on other tasks; or a file that `optuna_trlhpo.benchmarks pretrain` has written.
        repeat: Whether a configuration that was tried may be suggested again, as where the objective is noisy
            and repeats are wanted. False: not while another one can be. Values that the objective rounds by
            itself cannot be known.
        warn_independent_sampling: Whether to log a warning when, after the start, ``independent_sampler`` is
            used for a parameter that no finished trial had.

    Raises:
        ValueError: For an argument out of range.
        TypeError: For an argument that it does not have, such as one of another sampler; it names those that
            it has.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        >>> len(study.trials)
        3
    """

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
        warn_independent_sampling: bool = True,
    ) -> None:
        _check_integer("seed", seed, optional=True)
        _check_integer("n_startup_trials", n_startup_trials)
        _check_integer("n_exploration_trials", n_exploration_trials, optional=True)
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
        if self._config.n_candidates == 0 and earlier:
            raise ValueError("warm_start needs a critic that ranks plans; with n_candidates=0 there is none")
        self._earlier = [EarlierStudy(study) for study in earlier]
        self._prior: LayerPrior | None = None
        if layer_prior is not False and self._config.n_candidates:
            with isolated():
                self._prior = LayerPrior.load(None if layer_prior is True else Path(layer_prior))
        self._lock = threading.RLock()
        self._spaces: dict[tuple[str, int], Entered] = {}  # by study, and the number of a running trial
        self._study: tuple[str, tuple[StudyDirection, ...]] | None = None
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
        warn_independent_sampling: bool = True,
    ) -> TRLHPOSampler:
        """The agent as the paper describes it: the actor decides alone, with noise that fades, from the
        first trial.

        Source: Shaer, Nikan, Shami, "Efficient Transformer-based Hyper-parameter Optimization for
        Resource-constrained IoT Environments", 2024, section IV. ``agent`` defaults to `AgentConfig.paper`.
        """
        return cls(
            seed=seed,
            n_startup_trials=n_startup_trials,
            n_exploration_trials=n_exploration_trials,
            agent=AgentConfig.paper() if agent is None else agent,
            independent_sampler=independent_sampler,
            layer_prior=False,
            warn_independent_sampling=warn_independent_sampling,
        )

    # What Optuna calls --------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}  # every parameter is proposed when it is asked for: by then more is known

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        hooks.serve(study, trial, self)
        with self._working():
            running = self._enter(study, trial)
            trial = self._follow(trial, running, param_name)
            self._note_reports(study, trial, running, param_name)
            entered = self._spaces.get((study.study_name, trial.number))
            at_random = self._is_random(trial, entered)
            if self._grows(entered):
                if not at_random:
                    found = self._answer(trial, running, entered, param_name, param_distribution)
                    if found is not None:
                        return found.value
            elif not at_random:
                known, value = self._answer_path(study, trial, running, param_name, param_distribution)
                if known:
                    running.path.answer = param_name, param_distribution, value
                    return value
            is_new = self._grows(entered) or not self._paths.search.knows(param_name, param_distribution)
            if not at_random and is_new and self._warn_independent_sampling:
                _logger.warning(
                    f"The parameter {param_name!r} in trial#{trial.number} is sampled independently, as no "
                    "finished trial had it. You can suppress this warning by setting "
                    "`warn_independent_sampling` to `False`."
                )
            sampler = self._independent_sampler or RandomSampler(seed=self._draw_seed(trial))
            value = sampler.sample_independent(study, trial, param_name, param_distribution)
            if self._grows(entered):
                return value
            value = self._paths.claim(
                running.path,
                param_name,
                param_distribution,
                value,
                self._generator("open", trial.number, len(trial.params)),
                lambda: self._announced(study, trial.number),
                lambda params: self._write_note(study, trial, PLAN_ATTRIBUTE, digest_of(params)),
            )
            running.path.answer = param_name, param_distribution, value
            return value

    def _is_random(self, trial: FrozenTrial, entered: Entered | None) -> bool:
        """Whether the trial is left to ``independent_sampler``."""
        if self._grows(entered):
            informed, hearsay = self._search.informed(entered), self._search.is_hearsay(entered)
        else:
            informed = hearsay = self._paths.search.informed
        # An earlier study may mislead: of the startup trials every second one is then sampled as ever.
        doubted = hearsay and trial.number % 2 == 1
        if self._is_left_to_chance(trial.number, entered):
            running = self._running[trial.number]
            running.plan = None  # one made for what stood before the layers is void
            return True
        return (not informed or doubted) and self._is_startup(entered)

    def _grows(self, entered: Entered | None) -> bool:
        """Whether networks grow by the sampler's own decisions: in a `LayerSpace`, where the objective asks
        whether growing pays, and where the paper's actor decides alone."""
        return entered is not None or self._was_asked or self._config.n_candidates == 0

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        # Learning waits for the first parameter: an error here would escape `catch` and end the study.
        if self._independent_sampler is not None:
            self._independent_sampler.before_trial(study, trial)
        hooks.serve(study, trial, self)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        hooks.release(study, trial)
        if self._independent_sampler is not None:
            self._independent_sampler.after_trial(study, trial, state, values)
        try:
            self._note_trial(study, trial)
        except Exception as error:  # from here it would end the study, and nothing depends on the note
            _logger.warning(f"What the agent made of trial#{trial.number} was not noted: {error!r}")

    def _is_startup(self, entered: Entered | None) -> bool:
        memory = self._experience if self._grows(entered) else self._paths.search.memory
        if not len(memory):
            return True
        enough = _STARTUP_VALUES * self._n_startup_trials
        return len(memory) < self._n_startup_trials and memory.n_values < enough

    def _is_left_to_chance(self, number: int, entered: Entered | None) -> bool:
        """Whether the trial of that number is one of those that are sampled at random however much is known.

        Only where there is one objective, and trials differ in which parameters they have: there studies were
        seen that stayed with one sort of network, and the critic was sure, and wrong, about sorts that it had
        hardly met.
        """
        interval = self._config.random_interval if self._config.n_candidates else 0
        if not self._grows(entered):
            interval *= 2  # there plans visit what is hardly known by themselves
        if interval == 0 or self._experience.n_weights:
            return False
        if entered is None and (self._grows(entered) or not self._paths.search.branches):
            return False
        return number % interval == interval - 1

    # What `LayerSpace` says and asks -----------------------------------------------------------------------

    def enter_space(self, study: Study, number: int, space: Space, *, whole: bool) -> None:
        """The study's trial of that number grows layers of ``space``.

        Args:
            study: The study.
            number: The trial's.
            space: A `LayerSpace`.
            whole: Whether the trial is asked for the depth first (`LayerSpace.suggest`).
        """
        with self._lock:
            self._spaces[study.study_name, number] = Entered(space, whole)

    def worth_training(self, study: Study, trial: FrozenTrial, *, depth: int, max_depth: int) -> bool:
        """Whether the network that the running ``trial`` has grown to is worth a training.

        It is if it is the one that the agent planned. In a trial that is sampled at random all are: they
        differ more than those of an agent that has begun to learn. Where parameters were fixed beforehand, by
        `Study.enqueue_trial` or in a retried trial, it is the network that they name, and none on the way
        to it. The paper's agent has all of them trained.

        Args:
            study: The study.
            trial: A running trial of it.
            depth: How many layers it has.
            max_depth: How many it may get.
        """
        if self._config.n_candidates == 0:
            return True
        fixed = fixed_network(study, trial)
        if fixed is not None and depth <= fixed.depth:
            return depth == fixed.depth
        with self._working():
            running = self._enter(study, trial)
            self._was_asked = True
            trial = self._follow(trial, running, None)
            plan = running.plan
            if plan is None:
                return True
            return len(plan.names) <= len(read_episode(trial, self._running[trial.number].seen))

    def worth_growing(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether a deeper network is worth another training in the same trial, now that the running
        ``trial`` has reported the one it has.

        It is if such a network promises as much as the best of all that could be tried in a new trial. A
        retry of a trial that had reported something ends with the network that this one had come to.
        """
        if self._config.n_candidates == 0:
            return True
        fixed = fixed_network(study, trial)
        if fixed is not None and fixed.ends_trial:
            return False
        with self._working():
            running = self._enter(study, trial)
            self._was_asked = True
            trial = self._follow(trial, running, None)
            if running.plan is None:
                return True
            if not self._experience.reports_are_values:
                return False
            episode = read_episode(trial, running.seen)
            reports = episode.reports.copy()
            if trial.intermediate_values:
                reports[-1] = trial.intermediate_values[max(trial.intermediate_values)]
            self._search.enter(self._spaces.get((study.study_name, trial.number)))
            grown = self._experience.settled(Request(episode, (), np.empty(0)))
            deeper = self._plan(trial, grown, reports)
            anything = self._experience.settled(Request(episode.first(0), (), np.empty(0)))
            another = self._plan(trial, anything, reports, running=grown)
            return deeper is not None and another is not None and deeper.score >= another.score

    def reseed_rng(self) -> None:
        # Our own generators are made per trial, so parallel workers draw different numbers as they are.
        if self._independent_sampler is not None:
            self._independent_sampler.reseed_rng()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {name: value for name, value in vars(self).items() if name != "_lock"}
            return state | {"_spaces": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()

    # From trials to the agent -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """Alone, and in a world of our own. Where it is broken off, as by Ctrl-C, something may be half
        learned: then all is learned anew from the study, which has everything that there is to know."""
        with self._lock, isolated():
            if self._is_broken:
                self._study = None
            self._is_broken = True
            yield
            self._is_broken = False

    def _enter(self, study: Study, trial: FrozenTrial) -> _Running:
        """What is kept of the running ``trial``; at its first parameter, learn from what has finished
        since."""
        directions = tuple(study.directions)
        if (study.study_name, directions) != self._study or self._is_another(trial):
            self._begin(study)
        if trial.number not in self._running:
            self._learn(study)
            # The note is in the storage if another process began this trial.
            seen = [(n, step) for n, step in seen_in(trial)]
            path = PathTrial(trial.number, fixed_params(trial))
            self._running[trial.number] = _Running(seen, n_noted=len(seen), path=path)
        return self._running[trial.number]

    def _follow(self, trial: FrozenTrial, running: _Running, name: str | None) -> FrozenTrial:
        """The running ``trial`` with its parameters in the order in which they were asked for; ``name`` is
        asked for now."""
        trial = in_order(trial)
        path = running.path
        if any(known not in trial.params for known in path.path.names[-1:]) or len(trial.params) < len(
            path.path
        ):
            running.path = path = PathTrial(trial.number, path.fixed)
        self._paths.note_given(path, path.catch_up(trial.params, trial.distributions))
        path.asked = name
        return reordered(trial, path.path.names)

    def _begin(self, study: Study) -> None:
        """Forget everything: another study is another problem."""
        self._study = None  # until all is made, so that a call that is broken off leaves nothing half made
        experience = Experience(self._config, study.directions, self._seed)
        sources = [
            Source(self._config, earlier, study.directions, self._seed, experience.names)
            for earlier in self._earlier
        ]
        self._experience = experience
        self._search = Search(self._config, experience, self._seed, sources, self._prior)
        records = [
            (
                [read_record(trial, seen_in(trial), earlier.directions) for trial in earlier.trials],
                earlier.directions,
            )
            for earlier in self._earlier
        ]
        self._paths = PathAgent(self._config, study.directions, self._seed, records, repeat=self._repeat)
        self._was_asked = False  # whether the objective has asked what to train
        self._spaces = {key: space for key, space in self._spaces.items() if key[0] == study.study_name}
        self._learned: dict[int, datetime | None] = {}  # trial number -> when it was begun
        self._n_done = 0  # all trials of lower numbers are learned
        self._running: dict[int, _Running] = {}
        self._losses: tuple[float, float | None] | None = None  # of critic and actor, at the last learning
        self._is_noted = False  # whether the study has the settings
        self._agent: DDPG | None = None
        if self._config.n_candidates == 0:
            self._agent = DDPG(
                self._config,
                n_slots=ACTION_SLOTS,
                n_performance=PERFORMANCE_VALUES,
                n_weights=self._experience.n_weights,
                seed=self._seed % 2**63,
            )
        self._study = study.study_name, tuple(study.directions)

    def _is_another(self, trial: FrozenTrial) -> bool:
        """Whether ``trial`` has the number of one that was learned from, and is not that one."""
        return self._learned.get(trial.number, trial.datetime_start) != trial.datetime_start

    def _learn(self, study: Study) -> None:
        self._losses = None
        trials = study.get_trials(deepcopy=False)
        if trials and trials[-1].number == len(trials) - 1:  # the whole study, not a bracket of Hyperband's
            trials = trials[max(self._n_done - 1, 0) :]
        if any(self._is_another(trial) for trial in trials):  # a study of the same name
            self._begin(study)
            trials = study.get_trials(deepcopy=False)
        n_before, n_new = len(self._learned), 0
        derive = None if keeps_order(study) else self._paths.search.model.in_order
        for trial in trials:
            if trial.number in self._learned or not trial.state.is_finished():
                continue
            self._running.pop(trial.number, None)
            self._spaces.pop((study.study_name, trial.number), None)
            n_new += self._learn_trial(in_order(trial, derive), study.directions)
            self._learned[trial.number] = trial.datetime_start
        while self._n_done in self._learned:
            self._n_done += 1
        if len(self._experience) < _MINIMUM_TRIALS:
            return
        if self._agent is None:
            return
        rng = self._generator("learn", n_before)
        updates = range(min(n_new, _CATCH_UP) * self._config.updates)
        losses = [self._agent.update(self._experience.batch(rng)) for _ in updates]
        if losses:
            of_actor = [loss.actor for loss in losses if loss.actor is not None]
            of_critic = [loss.critic for loss in losses]
            self._losses = statistics.fmean(of_critic), statistics.fmean(of_actor) if of_actor else None
            _logger.debug(f"Learned from {n_new} trials; critic loss {self._losses[0]:.4f}.")

    def _learn_trial(self, trial: FrozenTrial, directions: Sequence[StudyDirection]) -> bool:
        """Remember a finished trial; returns whether the agent can learn something from it."""
        seen: Seen | None = seen_in(trial)
        unseen = trial.intermediate_values and SEEN_ATTRIBUTE not in trial.system_attrs
        if unseen and self._config.read_reports:
            seen = seen_by_names(trial, grows=self._paths.search.memory.values_prefixes)
        if seen is None:
            self._paths.observe(trial, [], judge=False)
            return False
        if self._agent is None:
            if not self._paths.observe(trial, seen):
                return False
        elif trial.state == TrialState.FAIL or not trial.values:
            return False  # the paper's agent knows no worst value
        episode = read_episode(trial, seen)
        worths = worths_of(trial, episode, directions)
        if worths is None:
            return False
        self._experience.add(trial.number, episode, worths)
        return True

    def _note_reports(self, study: Study, trial: FrozenTrial, running: _Running, name: str) -> None:
        """Note that the trial reported something before it asked for this parameter.

        Optuna keeps no order between reports and parameters, so it can be seen only now.
        """
        if not self._config.read_reports:
            return
        names = [*trial.params, name]
        earliest, running.n_asked = running.n_asked, len(names)
        last = max(trial.intermediate_values, default=-1)
        if len(names) == 1 or last <= max((step for _, step in running.seen), default=-1):
            return
        n = place_of_report(names, earliest)
        running.seen.append((n, last))
        sign = float(signs_of(study.directions)[0])
        running.path.reports.append((n, sign * trial.intermediate_values[last]))
        # Written whole each time, so only when it has doubled, and at the end of the trial.
        if len(running.seen) >= 2 * running.n_noted:
            self._write_note(study, trial, SEEN_ATTRIBUTE, running.seen)
            running.n_noted = len(running.seen)

    @staticmethod
    def _write_note(study: Study, trial: FrozenTrial, name: str, value: Any) -> None:
        try:
            write_to_trial(study, trial, name, value)
        except Exception as error:  # from here it would fail the trial, which can do without
            _logger.warning(f"The note {name!r} of trial#{trial.number} was not written: {error!r}")

    # Any objective ------------------------------------------------------------------------------------

    def _answer_path(
        self, study: Study, trial: FrozenTrial, running: _Running, name: str, distribution: BaseDistribution
    ) -> tuple[bool, Any]:
        """Whether something is known of the parameter, and a value."""
        paths, mine = self._paths, running.path

        def announce(plan: PathPlan) -> None:
            self._write_note(study, trial, PLAN_ATTRIBUTE, digest_of(plan.path.values))

        before = mine.n_plans
        known, value = paths.propose(
            mine,
            name,
            distribution,
            weights=self._experience.draw_weights(self._generator("weights", trial.number), 1)[0],
            generator=self._generator,
            pending=[other.path for number, other in self._running.items() if number != trial.number],
            others=lambda: self._announced(study, trial.number),
            announce=announce,
        )
        if mine.plan is not None and mine.n_plans > before:
            note = running.note or AgentNote(self._config.critic)
            running.note = with_path_plan(note, mine.plan, mine.path, paths.search)
        return known, value

    def _announced(self, study: Study, number: int) -> list[Announced]:
        """The other trials that run, or have ended since the last learning, as the storage has them now."""
        states = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        trials = study.get_trials(deepcopy=False, states=states)
        others = (other for other in trials if other.number != number and other.number not in self._learned)
        latest = list(others)[-_MOST_RUNNING:]
        return [Announced(self._expected(other), planned_digest(other)) for other in latest]

    def _expected(self, other: FrozenTrial) -> FrozenTrial:
        """A trial with what it will be, where it runs in this process: more than the storage knows."""
        running = self._running.get(other.number)
        if running is None or other.state != TrialState.RUNNING:
            return other
        path = running.path.expected(other)
        return with_params(other, path.values, dict(zip(path.names, path.distributions, strict=True)))

    # Networks that grow -------------------------------------------------------------------------------

    def _answer(
        self,
        trial: FrozenTrial,
        running: _Running,
        entered: Entered | None,
        name: str,
        distribution: BaseDistribution,
    ) -> _Proposal | None:
        """A value, or None if the agent knows nothing of what is asked for."""
        request = read_request(trial, running.seen, name, distribution)
        if not self._search.informed(entered) and not self._experience.knows(request.slots):
            return None
        self._search.enter(entered)
        return self._propose(trial, running, request, name, distribution)

    def _propose(
        self,
        trial: FrozenTrial,
        running: _Running,
        request: Request,
        name: str,
        distribution: BaseDistribution,
    ) -> _Proposal | None:
        """A value, or None if the agent knows nothing of what is asked for."""
        settled = self._experience.settled(request)
        if self._agent is not None:
            exploration = self._exploration(trial)
            running.note = running.note or AgentNote("actor", losses=self._losses, exploration=exploration)
            return _Proposal(decode(name, distribution, self._act(trial, request, settled)[settled.slot]))
        if settled.names[settled.step, settled.slot] < 0:
            return None
        plan = running.plan
        if plan is not None and not plan.answers(settled):
            self._search.refuse(plan)
            plan = None
        if plan is None or running.n_seen != len(running.seen):
            plan = running.plan = self._plan(trial, settled, request.before.reports)
            running.n_seen = len(running.seen)
            if plan is not None:
                note = running.note or AgentNote(self._config.critic)
                running.note = with_plan(note, plan, settled.step, self._search)
        if plan is None and not self._experience.knows(request.slots):
            return None
        action = self._generator("chance", trial.number, len(trial.params)).random()
        if plan is not None:
            action = plan.actions[settled.step, settled.slot]
        value = decode(name, distribution, action)
        if plan is not None:
            settled_action = encode(name, distribution, value)
            if abs(settled_action - action) > _ROUNDING:
                self._search.refuse(plan)
            plan.actions[settled.step, settled.slot] = settled_action
        return _Proposal(value)

    def _plan(
        self, trial: FrozenTrial, settled: Settled, reports: np.ndarray, *, running: Settled | None = None
    ) -> Plan | None:
        """The network that the trial should become; ``reports`` ``[steps]`` are those behind its steps, or
        behind those of ``running`` if the plan need not go on with them."""
        others = (other.plan for number, other in self._running.items() if number != trial.number)
        return self._search.plan(
            settled,
            reports,
            self._experience.draw_weights(self._generator("weights", trial.number), 1)[0],
            self._generator("propose", trial.number, len(trial.params)),
            [plan for plan in others if plan is not None][-_MOST_PENDING:],
            running,
        )

    def _act(self, trial: FrozenTrial, request: Request, settled: Settled) -> np.ndarray:
        """``[A]`` what the actor does, with noise."""
        weights = self._experience.draw_weights(self._generator("weights", trial.number), 1)[0]
        state = self._experience.state(request.before, weights)
        names = np.where(np.arange(ACTION_SLOTS) < 1, settled.names[-1], -1)
        query = self._experience.candidates(np.full((1, ACTION_SLOTS), np.nan), names[None], weights)
        noise = ornstein_uhlenbeck(
            self._generator("noise", trial.number),
            settled.step + 1,
            size=ACTION_SLOTS,
            theta=self._config.noise_theta,
            sigma=self._config.noise_sigma,
        )[-1]
        assert self._agent is not None
        return np.clip(self._agent.act(state, query).numpy() + self._exploration(trial) * noise, 0, 1)

    def _exploration(self, trial: FrozenTrial) -> float:
        """The share of the noise that is on the actor."""
        n_explore = self._n_exploration_trials
        return 1.0 if n_explore is None else max(0.0, 1 - trial.number / max(n_explore, 1))

    # From the agent to the study ----------------------------------------------------------------------

    def _note_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Keep with the trial what cannot be seen in it, and what the agent made of it."""
        with self._lock, isolated():
            if self._study is None or self._study[0] != study.study_name or trial.number not in self._running:
                return
            running = self._running[trial.number]
            ordered = self._follow(trial, running, None)
            # An empty note, too, says that the sampler saw the reports.
            unnoted = trial.intermediate_values and self._config.read_reports and not running.seen
            if running.n_noted < len(running.seen) or unnoted:
                write_to_trial(study, trial, SEEN_ATTRIBUTE, running.seen)
            if list(trial.params) != list(ordered.params) or not keeps_order(study):
                write_to_trial(study, trial, ORDER_ATTRIBUTE, order_note(list(ordered.params)))
            note = running.note
            if note is None:
                return
            if self._agent is not None:
                weights = self._experience.draw_weights(self._generator("weights", trial.number), 1)[0]
                note = with_episode(note, ordered, running.seen, self._agent, self._experience, weights)
        write_to_trial(study, trial, AGENT_ATTRIBUTE, note.to_json())
        if not self._is_noted:
            settings = json.loads(json.dumps(self.settings))  # as a storage gives it back
            if read_from_study(study, SAMPLER_ATTRIBUTE) != settings:  # the latest sampler's stay
                write_to_study(study, SAMPLER_ATTRIBUTE, settings)
            self._is_noted = True

    @property
    def settings(self) -> dict[str, Any]:
        """What the sampler was made with, as it is kept with a study: the agent's settings as far as they are
        not the default's, and the seed, also one that was drawn."""
        default = AgentConfig()
        own = {f.name: getattr(self._config, f.name) for f in fields(AgentConfig)}
        return {
            "sampler": type(self).__name__,
            "seed": self._seed,
            "n_startup_trials": self._n_startup_trials,
            "n_exploration_trials": self._n_exploration_trials,
            "agent": {name: value for name, value in own.items() if value != getattr(default, name)},
            "layer_prior": self._prior is not None,
            "warm_start": [earlier.name for earlier in self._earlier],
            "optuna": optuna.__version__,
            "torch": str(torch.__version__),
        }

    def _generator(self, purpose: str, *place: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, _PURPOSES.index(purpose), *place))

    def _draw_seed(self, trial: FrozenTrial) -> int:
        return int(self._generator("independent", trial.number, len(trial.params)).integers(2**32))


_PURPOSES = ("independent", "learn", "noise", "weights", "propose", "chance", "open")


def _check_integer(name: str, value: Any, *, optional: bool = False) -> None:
    if optional and value is None:
        return
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
        hint = ", or None" if optional else ""
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least 0{hint}")
