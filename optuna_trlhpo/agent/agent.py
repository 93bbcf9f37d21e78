"""The agent: it observes finished trials, learns from them, and proposes values for running ones.

It has two ways to decide, depending on the objective. Networks that grow, in a `LayerSpace` or where the
objective asks whether to grow further, are decided layer by layer (`network_agent`). Configurations of any
other objective are planned parameter by parameter (`configurations`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.configurations.agent import ConfigurationAgent
from optuna_trlhpo.agent.configurations.memory import read_record
from optuna_trlhpo.agent.configurations.plan import ConfigurationPlan
from optuna_trlhpo.agent.configurations.planner import ConfigurationPlanner
from optuna_trlhpo.agent.configurations.running import PlannedTrial
from optuna_trlhpo.agent.course import Course, Proposal
from optuna_trlhpo.agent.explain import with_path_plan
from optuna_trlhpo.agent.freed_memory import return_free_memory
from optuna_trlhpo.agent.generators import make_generator
from optuna_trlhpo.agent.layer_prior import LayerPrior
from optuna_trlhpo.agent.network_agent import NetworkAgent
from optuna_trlhpo.agent.prior_knowledge import GrowthContext
from optuna_trlhpo.agent.time_budget import TimeBudget
from optuna_trlhpo.agent.workers import Workers
from optuna_trlhpo.trials.agent_record import GROWTH, PLAIN, SPACE, AgentRecord, read_agent
from optuna_trlhpo.trials.announcements import Announced, digest_of, planned_digest
from optuna_trlhpo.trials.attributes import MARKS_ATTRIBUTE, report_marks
from optuna_trlhpo.trials.earlier_study import EarlierStudy
from optuna_trlhpo.trials.episode import ReportMarks
from optuna_trlhpo.trials.inferred_reports import marks_by_names
from optuna_trlhpo.trials.order import in_order, with_params
from optuna_trlhpo.trials.study_reader import Reading

_logger = optuna.logging.get_logger("optuna.trlhpo.sampler")

_MANY_TRIALS = 20
"""Number of trials above which learning from them one by one is announced."""
_TRIM_INTERVAL = 500
"""Number of trials after which freed memory is returned to the operating system."""
_STARTUP_VALUES = 1.5
"""Networks with a value per startup trial, on average, that make further startup trials unnecessary."""


class Agent:
    """Agent of one study, which observes trials, learns from them and proposes values.

    Args:
        config: Settings of the agent.
        directions: Directions of the study's K objectives.
        seed: Random seed.
        n_startup_trials: Trials that are sampled independently at first; fewer where reports give values, and
            none where a prior is known.
        n_exploration_trials: Number of trials over which the noise of the actor fades; None: it never does.
        earlier: Earlier studies, for transfer learning.
        priors: Priors for layers, independent of the task, each for another vocabulary.
        repeat: Whether tried configurations may be proposed again.
        time_budget: Seconds that the study's trials may take together; None: plans are not weighed by time.

    Attributes:
        networks: Agent for networks that grow.
        configurations: Agent for configurations.
        courses: States of running trials, by trial number.
    """

    def __init__(
        self,
        config: AgentConfig,
        directions: Sequence[StudyDirection],
        seed: int,
        *,
        n_startup_trials: int = 0,
        n_exploration_trials: int | None = None,
        earlier: Sequence[EarlierStudy] = (),
        priors: Sequence[LayerPrior] = (),
        repeat: bool = False,
        time_budget: float | None = None,
    ) -> None:
        self._config, self._seed = config, seed
        self._n_startup_trials = n_startup_trials
        self._budget = TimeBudget(time_budget)
        self.networks = NetworkAgent(
            config,
            directions,
            seed,
            n_exploration_trials=n_exploration_trials,
            earlier=earlier,
            priors=priors,
            budget=self._budget,
        )
        records = [
            (
                [read_record(trial, report_marks(trial), study.directions) for trial in study.trials],
                study.directions,
            )
            for study in earlier
        ]
        planner = ConfigurationPlanner(config, directions, seed, records, self._budget)
        self.configurations = ConfigurationAgent(planner, directions, repeat=repeat)
        self.courses: dict[int, Course] = {}
        self._asked: set[str] = set()  # what finished and running trials have asked for, see `AgentRecord`
        # Numbers of trials: all, those before the last `observe`, and its trials that can be learned from.
        self._n_observed = self._n_before = self._n_new = 0

    # Trials -------------------------------------------------------------------------------------------

    def follow(self, reading: Reading) -> Course:
        """Learn from the trials that have finished, and return the state of the running trial.

        The agent learns from one trial after the other, so that it does not matter when it does.
        """
        if reading.finished is not None:
            if len(reading.finished) > _MANY_TRIALS:
                _logger.info(f"Learning from {len(reading.finished)} trials, one after the other.")
            before = self._n_observed
            for trials in [[trial] for trial in reading.finished] or [[]]:
                self.observe(trials, keeps_order=reading.keeps_order)
                self.learn()
            if before // _TRIM_INTERVAL != self._n_observed // _TRIM_INTERVAL:
                return_free_memory()
        running = reading.running
        course = self.courses.get(running.number)
        if course is None:
            course = self.courses[running.number] = Course(PlannedTrial(running))
        if course.configuration.trial is not running:  # the trial has started again
            course.configuration = PlannedTrial(running)
        self.configurations.note_given(course.configuration, reading.given)
        return course

    def observe(self, trials: Sequence[FrozenTrial], *, keeps_order: bool) -> None:
        """Remember trials that have finished.

        Args:
            trials: Trials as read from the storage.
            keeps_order: Whether the storage keeps the order in which parameters were asked for.
        """
        self._n_before, self._n_new = self._n_observed, 0
        derive = None if keeps_order else self.configurations.search.model.in_order
        for trial in trials:
            self._budget.spend(trial)
            trial = in_order(trial, derive)
            if self.courses.pop(trial.number, None) is None:
                self._catch_up(trial)
            self._n_new += self._observe(trial)
            self._n_observed += 1

    def _catch_up(self, trial: FrozenTrial) -> None:
        """Learn what another sampler learned while a finished trial was running."""
        record = read_agent(trial)
        if record is not None:
            self._remember_asked(record.asked)
            self.networks.planner.exclude(record.excluded)
            self.configurations.catch_up(trial, record)

    def _observe(self, trial: FrozenTrial) -> bool:
        """Remember a trial; return whether something can be learned from it."""
        marks: ReportMarks | None = report_marks(trial)
        unmarked = trial.intermediate_values and MARKS_ATTRIBUTE not in trial.system_attrs
        if unmarked and self._config.read_reports:
            marks = marks_by_names(trial, grows=self.configurations.search.memory.values_prefixes)
        if marks is None:
            self.configurations.observe(trial, [], judge=False)
            return False
        if self.networks.ddpg is None:
            if not self.configurations.observe(trial, marks):
                return False
        elif trial.state == TrialState.FAIL or not trial.values:
            return False  # the paper's agent has no worst value for such a trial
        return self.networks.observe(trial, marks)

    def learn(self) -> None:
        """Learn from the trials of the last `observe`."""
        if self.networks.ddpg is not None:
            self.networks.learn(self._n_before, self._n_new)
        elif PLAIN in self._asked and not self._grows_by_itself:
            n = len(self.configurations.search.memory)
            weights = self.networks.weights(n)
            self.configurations.search.learn(weights, make_generator(self._seed, "kernel", n))

    # What is known ------------------------------------------------------------------------------------

    def grows(self, context: GrowthContext | None) -> bool:
        """Return whether the agent decides how networks grow.

        It does so in a `LayerSpace`, where the objective asks whether to grow further, and where the paper's
        actor decides alone.
        """
        return context is not None or self._grows_by_itself or self._config.n_candidates == 0

    @property
    def _grows_by_itself(self) -> bool:
        """Whether the objective asks whether to grow further, without a `LayerSpace`."""
        return GROWTH in self._asked and SPACE not in self._asked

    def _enter(self, course: Course, context: GrowthContext | None) -> None:
        """Note what the trial asks for, and let the part of the agent that decides it learn."""
        self._note_asked(course, PLAIN if context is None else SPACE)
        if self.networks.ddpg is None and self.grows(context):
            self.networks.catch_up(context)

    def _note_asked(self, course: Course, what: str) -> None:
        course.asked.add(what)
        self._remember_asked([what])

    def _remember_asked(self, asked: Iterable[str]) -> None:
        is_new = PLAIN in asked and PLAIN not in self._asked
        self._asked.update(asked)
        if is_new and self.networks.ddpg is None:  # trials of other samplers may have come before
            self.learn()

    def has_prior(self, context: GrowthContext | None) -> bool:
        """Return whether something is known before the first trial has finished."""
        if self.grows(context):
            return self.networks.knowledge.has_prior(context)
        return self.configurations.search.has_prior

    def only_transfer(self, context: GrowthContext | None) -> bool:
        """Return whether all prior knowledge comes from earlier studies."""
        if self.grows(context):
            return self.networks.knowledge.only_transfer(context)
        return self.configurations.search.has_prior

    def is_random_interleave(self, number: int, context: GrowthContext | None) -> bool:
        """Return whether the trial with this number explores: at random, or with a network of the actor.

        This happens only with a single objective and where trials differ in their parameters. Without it some
        studies stayed with one sort of network, while the critic was confident, and wrong, about sorts that
        it had hardly observed.
        """
        interval = self._config.random_interval if self._config.n_candidates else 0
        if not self.grows(context):
            interval *= 2  # these plans already explore what is hardly known
        if interval == 0 or self.networks.replay.n_weights:
            return False
        if context is None and (self.grows(context) or not self.configurations.search.branches):
            return False
        return number % interval == interval - 1

    def _is_random(self, course: Course, number: int, context: GrowthContext | None) -> bool:
        """Return whether the trial is sampled independently."""
        if self.is_random_interleave(number, context):
            # Every second time chance has its turn: the actor knows only what was good on other tasks.
            is_the_actors = number // max(self._config.random_interval, 1) % 2 == 0
            explores = is_the_actors and self.networks.can_explore(context)
            if not (explores and course.explores):
                course.plan = None  # it was made for a parameter before the layers
            course.explores = explores
            return not explores
        # An earlier study may mislead, so every second startup trial is sampled independently all the same.
        doubted = self.only_transfer(context) and number % 2 == 1
        return (not self.has_prior(context) or doubted) and self._is_startup(context)

    def _is_startup(self, context: GrowthContext | None) -> bool:
        memory = self.networks.replay if self.grows(context) else self.configurations.search.memory
        n_trials, enough = len(memory), _STARTUP_VALUES * self._n_startup_trials
        return n_trials == 0 or (n_trials < self._n_startup_trials and memory.n_values < enough)

    # Running trials -----------------------------------------------------------------------------------

    def propose(
        self, reading: Reading, name: str, distribution: BaseDistribution, context: GrowthContext | None
    ) -> Proposal:
        """Propose a value for the parameter that a running trial asks for.

        Args:
            reading: State of the study.
            name: Name of the parameter.
            distribution: Distribution of the parameter.
            context: Space of the trial if it grows layers.

        Returns:
            A proposal. Where it is not decided, the parameter is sampled independently, and the value is
            passed to `claim`.
        """
        trial = reading.trial
        course = self.follow(reading)
        self._enter(course, context)
        self.configurations.meet(course.configuration, name, distribution)
        if self._is_random(course, trial.number, context):
            if context is None:
                return Proposal(None, is_decided=False)
            workers = self._workers(reading)
            return self.networks.random(trial, course, name, distribution, context, workers)
        found = None
        if self.grows(context):
            marks, workers = reading.running.marks, self._workers(reading)
            found = self.networks.propose(trial, marks, course, name, distribution, context, workers)
        else:
            found = self._propose_value(reading, name, distribution)
        if found is not None:
            return found
        is_known = not self.grows(context) and self.configurations.search.knows(name, distribution)
        return Proposal(None, is_decided=False, is_new=not is_known)

    def claim(
        self,
        reading: Reading,
        name: str,
        distribution: BaseDistribution,
        value: Any,
        context: GrowthContext | None,
    ) -> Any:
        """``value``, which was sampled independently, or another value if it would repeat a configuration."""
        if self.grows(context):
            return value
        trial = reading.trial
        mine = self.courses[trial.number].configuration
        value = self.configurations.claim(
            mine,
            name,
            distribution,
            value,
            make_generator(self._seed, "open", trial.number, len(trial.params)),
            lambda: self._announced(reading),
            lambda values: reading.announce(digest_of(values)),
        )
        mine.answer = name, distribution, value
        return value

    def _propose_value(self, reading: Reading, name: str, distribution: BaseDistribution) -> Proposal | None:
        trial = reading.trial
        course = self.courses[trial.number]
        mine = course.configuration

        def announce(plan: ConfigurationPlan) -> None:
            reading.announce(digest_of(plan.path.values))

        before = mine.n_plans
        known, value = self.configurations.propose(
            mine,
            name,
            distribution,
            weights=self.networks.weights(trial.number),
            generator=lambda purpose, *place: make_generator(self._seed, purpose, *place),
            pending=[other.configuration for number, other in self.courses.items() if number != trial.number],
            others=lambda: self._announced(reading),
            announce=announce,
        )
        if mine.plan is not None and mine.n_plans > before:
            search = self.configurations.search
            record = course.record or AgentRecord(self._config.critic, losses=search.critics.losses)
            course.record = with_path_plan(record, mine.plan, mine.path, search)
        if not known:
            return None
        mine.answer = name, distribution, value
        return Proposal(value)

    def _announced(self, reading: Reading) -> list[Announced]:
        """Other trials that are running, or have ended since the last update, as in the storage now."""
        return [Announced(self._expected(other), planned_digest(other)) for other in reading.others()]

    def _expected(self, other: FrozenTrial) -> FrozenTrial:
        """Trial with its planned parameters, if it runs in this process: the storage lacks these."""
        course = self.courses.get(other.number)
        if course is None or other.state != TrialState.RUNNING:
            return other
        path = course.configuration.expected(other)
        return with_params(other, path.values, dict(zip(path.names, path.distributions, strict=True)))

    def _workers(self, reading: Reading) -> Workers:
        return Workers(reading, self.courses, self.networks.replay, self.networks.knowledge)

    # Questions of an objective that grows networks ----------------------------------------------------

    def worth_training(self, reading: Reading) -> bool:
        """Return whether the network that a running trial has grown to is worth a training."""
        course = self.follow(reading)
        self._note_asked(course, GROWTH)
        return self.networks.worth_training(reading.trial, reading.running.marks, course)

    def worth_growing(self, reading: Reading, context: GrowthContext | None) -> bool:
        """Return whether a deeper network is worth another training in the same trial."""
        trial, marks, course = reading.trial, reading.running.marks, self.follow(reading)
        self._note_asked(course, GROWTH)
        self._enter(course, context)
        return self.networks.worth_growing(trial, marks, course, context, self._workers(reading))

    def record(self, reading: Reading) -> AgentRecord | None:
        """Record to be stored with a trial that ends; None if there is nothing to store."""
        course = self.follow(reading)
        record, mine = course.record, course.configuration
        if self.networks.ddpg is None and course.asked:
            record = replace(
                record or AgentRecord(self._config.critic),
                asked=tuple(sorted(course.asked)),
                corrected=tuple(mine.corrected),
                given=tuple(mine.given),
                excluded=tuple(course.excluded),
            )
        if record is None:
            return None
        return self.networks.record(reading.trial, reading.running.marks, record)
