"""Decisions for networks that grow: the layers come from a planner, or from the paper's actor."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.course import Course, Proposal
from optuna_trlhpo.agent.ddpg import DDPG
from optuna_trlhpo.agent.explain import with_episode, with_plan
from optuna_trlhpo.agent.generators import make_generator
from optuna_trlhpo.agent.layer_prior import LayerPrior
from optuna_trlhpo.agent.noise import ornstein_uhlenbeck
from optuna_trlhpo.agent.planner import Planner
from optuna_trlhpo.agent.prior_knowledge import GrowthContext, PriorKnowledge
from optuna_trlhpo.agent.random_networks import draw_untried
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.sequences import DecisionPoint, Plan
from optuna_trlhpo.agent.step_encoding import make_noise
from optuna_trlhpo.agent.time_budget import TimeBudget
from optuna_trlhpo.agent.transfer import NetworkSource
from optuna_trlhpo.agent.transitions import Transitions
from optuna_trlhpo.agent.workers import Workers
from optuna_trlhpo.layers import ACTION_SLOTS
from optuna_trlhpo.layers.bins import middle_of
from optuna_trlhpo.trials.agent_record import AgentRecord
from optuna_trlhpo.trials.durations import seconds_of
from optuna_trlhpo.trials.earlier_study import EarlierStudy
from optuna_trlhpo.trials.episode import Episode, ReportMarks, Request, read_episode, read_request
from optuna_trlhpo.trials.parameters import decode, encode
from optuna_trlhpo.trials.performance import PERFORMANCE_VALUES
from optuna_trlhpo.trials.rewards import signed_outcomes
from optuna_trlhpo.trials.values import still_holds

_logger = optuna.logging.get_logger("optuna.trlhpo.sampler")

_DRAWN = 8
"""Number of networks drawn from the pretrained actor for a trial that explores; an untried one is taken."""
_ROUNDING = 1e-6
"""Largest rounding difference between a planned action and the same action as carried out."""
_MOST_PENDING = 32
"""Largest number of plans of other running trials whose outcome is predicted: the latest ones."""
_ATTEMPTS = 5
"""Largest number of plans made where other workers note the same one."""
_RISE, _FALL, _LEAST = 1.5, 0.9, 0.02
"""Factors of the noise after a trial that repeats a network, and after another; and its least value."""
_MINIMUM_TRIALS = 2
"""Number of finished trials before the first update."""


class NetworkAgent:
    """Agent that learns networks with their values, and proposes the layers of running trials.

    Args:
        config: Settings of the agent.
        directions: Directions of the study's K objectives.
        seed: Random seed.
        n_exploration_trials: Number of trials over which the noise of the actor fades; None: it never does.
        earlier: Earlier studies, for transfer learning.
        priors: Priors for layers, independent of the task, each for another vocabulary.
        budget: Budget in seconds.

    Attributes:
        replay: Finished trials as episodes.
        transitions: The same as tensors.
        knowledge: Knowledge about networks before they are tried.
        planner: Planner of networks.
        ddpg: The paper's actor and critic; None where a critic ranks plans.
    """

    def __init__(
        self,
        config: AgentConfig,
        directions: Sequence[StudyDirection],
        seed: int,
        *,
        n_exploration_trials: int | None = None,
        earlier: Sequence[EarlierStudy] = (),
        priors: Sequence[LayerPrior] = (),
        budget: TimeBudget,
    ) -> None:
        self._config, self._directions, self._seed = config, directions, seed
        self._n_exploration_trials = n_exploration_trials
        self.replay = Replay(config, directions, seed)
        self.transitions = Transitions(self.replay)
        names = self.replay.names
        sources = [NetworkSource(config, study, directions, seed, names) for study in earlier]
        self.knowledge = PriorKnowledge(names, self.replay.n_weights, seed, sources, priors)
        self.planner = Planner(config, self.replay, seed, self.knowledge, budget)
        self.ddpg: DDPG | None = None
        if config.n_candidates == 0:
            self.ddpg = DDPG(
                config,
                n_slots=ACTION_SLOTS,
                n_performance=PERFORMANCE_VALUES,
                n_weights=self.replay.n_weights,
                seed=seed % 2**63,
            )
            for k, source in enumerate(sources):
                self._learn_source(k, source)
        self._restlessness = 0.0  # scale of the noise that is left after the exploration trials
        # Arguments of `Replay.add` for the trials that the planner is yet to learn.
        self._waiting: list[tuple[int, Episode, np.ndarray, float]] = []
        self._losses: tuple[float, float | None] | None = None  # of critic and actor, in the last update

    def observe(self, trial: FrozenTrial, marks: ReportMarks) -> bool:
        """Remember a finished trial with its ``marks``; return whether something can be learned from it."""
        episode = read_episode(trial, marks)
        outcomes = signed_outcomes(trial, episode, self._directions)
        if outcomes is None:
            return False
        if self.ddpg is None:
            seconds = seconds_of(trial) if trial.state == TrialState.COMPLETE else math.nan
            self._waiting.append((trial.number, episode, outcomes, seconds))
            return True
        repeats = self.replay.has_tried(episode)
        self._restlessness = (
            min(max(_RISE * self._restlessness, _LEAST), 1.0) if repeats else _FALL * self._restlessness
        )
        self.replay.add(trial.number, episode, outcomes)
        return True

    def catch_up(self, context: GrowthContext | None) -> None:
        """Let the planner learn from the trials observed since the last time, one after the other.

        It is done only when a plan may be needed: the planner reads networks as those of a space, which is
        known only then.

        Args:
            context: Space from which the running trial grows layers, if it does.
        """
        self.knowledge.enter(context)
        waiting, self._waiting = self._waiting, []
        self._learn_planner()  # even without any trial, something may be known
        for one in waiting:
            self.replay.add(*one)
            self._learn_planner()

    def _learn_planner(self) -> None:
        n = self.replay.n_added
        self.planner.learn(n, self.weights(n), make_generator(self._seed, "kernel", n))

    def learn(self, n_before: int, n_new: int) -> None:
        """Update the paper's actor and critic. A planner learns in `catch_up`.

        Args:
            n_before: Number of trials of the study that had finished before.
            n_new: Number of trials since then from which something can be learned.
        """
        self._losses = None
        if self.ddpg is None or len(self.replay) < _MINIMUM_TRIALS:
            return
        rng = make_generator(self._seed, "learn", n_before)
        losses = [self.ddpg.update(self.transitions.batch(rng)) for _ in range(n_new * self._config.updates)]
        if losses:
            of_actor = [loss.actor for loss in losses if loss.actor is not None]
            of_critic = [loss.critic for loss in losses]
            self._losses = statistics.fmean(of_critic), statistics.fmean(of_actor) if of_actor else None
            _logger.debug(f"Learned from {n_new} trials; critic loss {self._losses[0]:.4f}.")

    def _learn_source(self, k: int, source: NetworkSource) -> None:
        """Update the paper's actor and critic from the k-th earlier study, as often as in a study of it."""
        assert self.ddpg is not None
        rng, batches = make_generator(self._seed, "learn", 0, k), Transitions(source.replay)
        for _ in range(len(source.replay) * self._config.updates):
            self.ddpg.update(batches.batch(rng))

    def propose(
        self,
        trial: FrozenTrial,
        marks: ReportMarks,
        course: Course,
        name: str,
        distribution: BaseDistribution,
        context: GrowthContext | None,
        workers: Workers,
    ) -> Proposal | None:
        """Propose a value for the parameter that a running trial asks for; None if nothing is known of it.

        Args:
            trial: The trial, with its parameters in order.
            marks: Number of parameters and step of each report.
            course: State of the trial; its plan is updated.
            name: Name of the parameter.
            distribution: Distribution of the parameter.
            context: Space from which the trial grows layers, if it does.
            workers: Other running trials.
        """
        request = read_request(trial, marks, name, distribution)
        if not self.knowledge.has_prior(context) and not self.replay.knows(request.slots):
            return None
        if self.ddpg is not None:
            self.knowledge.enter(context)
        point = self.replay.decision_point(request)
        if self.ddpg is not None:
            exploration = self._exploration(trial.number)
            course.record = course.record or AgentRecord(
                "actor", losses=self._losses, exploration=exploration
            )
            return Proposal(decode(name, distribution, self._act(trial, request, point)[point.slot]))
        if point.names[point.step, point.slot] < 0:
            return None
        plan = course.plan
        if plan is not None and not plan.answers(point):
            self._exclude(plan, course)
            plan = None
        if course.explores and course.drawn is None:
            course.drawn = self._explore(trial.number, point, workers)
            if course.drawn is not None:
                plan = course.plan = course.drawn
                record = AgentRecord("actor", losses=self.planner.losses)
                course.record = with_plan(record, plan, point.step, self.planner)
        if plan is None or (course.n_marks != len(marks) and plan is not course.drawn):
            plan, course.deeper = course.deeper, None
            if plan is None or not plan.answers(point):
                plan = self._plan(trial, point, request.before.reports, workers)
            course.plan = plan
            course.n_marks = len(marks)
            if plan is not None:
                record = course.record or AgentRecord(self._config.critic, losses=self.planner.losses)
                course.record = with_plan(record, plan, point.step, self.planner)
        if plan is None:
            if not self.replay.knows(request.slots):
                return None
            rng = make_generator(self._seed, "chance", trial.number, len(trial.params))
            return Proposal(decode(name, distribution, rng.random()))
        action = plan.actions[point.step, point.slot]
        value = decode(name, distribution, action)
        carried_out = encode(name, distribution, value)
        if abs(carried_out - action) > _ROUNDING:
            self._exclude(plan, course)
        plan.actions[point.step, point.slot] = carried_out
        return Proposal(value)

    def _exclude(self, plan: Plan, course: Course) -> None:
        digest = plan.digest
        if digest not in course.excluded:
            course.excluded.append(digest)
            self.planner.exclude([digest])

    def worth_training(self, trial: FrozenTrial, marks: ReportMarks, course: Course) -> bool:
        """Return whether the network that a running trial has grown to is worth a training.

        It is if it has at least the planned depth. In a trial without a plan every network is.
        """
        return course.plan is None or len(course.plan.names) <= len(read_episode(trial, marks))

    def worth_growing(
        self,
        trial: FrozenTrial,
        marks: ReportMarks,
        course: Course,
        context: GrowthContext | None,
        workers: Workers,
    ) -> bool:
        """Return whether a deeper network promises at least as much as the best plan of a new trial."""
        if course.plan is None:
            return True
        if not self.replay.reports_are_values:
            return False
        episode = read_episode(trial, marks)
        reports = episode.reports.copy()
        if trial.intermediate_values:
            reports[-1] = trial.intermediate_values[max(trial.intermediate_values)]
        grown = self.replay.decision_point(Request(episode, (), np.empty(0)))
        anything = self.replay.decision_point(Request(episode.first(0), (), np.empty(0)))
        another = self._plan(trial, anything, reports, workers, running=grown)
        deeper = course.deeper = self._plan(trial, grown, reports, workers)
        return deeper is not None and another is not None and deeper.score >= another.score

    def record(self, trial: FrozenTrial, marks: ReportMarks, record: AgentRecord) -> AgentRecord:
        """``record`` with the evaluation of a finished trial by actor and critic."""
        if self.ddpg is None:
            return record
        return with_episode(record, trial, marks, self.ddpg, self.transitions, self.weights(trial.number))

    def weights(self, number: int) -> np.ndarray:
        """``[K]`` weights of the objectives in a trial."""
        return self.replay.draw_weights(make_generator(self._seed, "weights", number), 1)[0]

    def can_explore(self, context: GrowthContext | None) -> bool:
        """Return whether networks can be drawn from the pretrained actor."""
        return self.knowledge.has_policy(context)

    def _explore(self, number: int, point: DecisionPoint, workers: Workers) -> Plan | None:
        """Network drawn from the pretrained actor, untried if possible; None behind its first step.

        What the trial has before stays as it is: other parameters, and a first kind that is the only one.
        """
        if not self.knowledge.begins_network(point):
            return None
        rng = make_generator(self._seed, "explore", number)
        plans = [plan.behind(point) for plan in self.knowledge.proposals(_DRAWN, rng)]
        plans = [plan for plan in plans if plan.answers(point)]
        taken = {plan.key for plan in workers.plans()}
        untried = [plan for plan in plans if not self.replay.has_value(plan.key) and plan.key not in taken]
        plan = next(
            (plan for plan in untried if self._is_mine(plan, workers)), next(iter(untried or plans), None)
        )
        return None if plan is None else self.planner.judged(plan, self.weights(number), rng)

    def _plan(
        self,
        trial: FrozenTrial,
        point: DecisionPoint,
        reports: np.ndarray,
        workers: Workers,
        *,
        running: DecisionPoint | None = None,
    ) -> Plan | None:
        """Plan the network that the trial should become, and that no other worker is about to try.

        ``reports`` ``[steps]`` belong to the trial's steps, or to those of ``running`` if the plan need not
        continue them.
        """
        plan = None
        for attempt in range(_ATTEMPTS):
            place = (trial.number, len(trial.params), *([attempt] if attempt else []))
            plan = self.planner.plan(
                point,
                reports,
                self.weights(trial.number),
                make_generator(self._seed, "propose", *place),
                workers.plans()[-_MOST_PENDING:],
                running,
                workers.values(),
            )
            if plan is None or running is not None or self._is_mine(plan, workers):
                break
        return plan

    def _is_mine(self, plan: Plan, workers: Workers) -> bool:
        """Note a plan for other workers; return whether none of them has planned or tried the same."""
        return workers.claim(self.knowledge.layers_of(plan))

    def random(
        self,
        trial: FrozenTrial,
        course: Course,
        name: str,
        distribution: BaseDistribution,
        context: GrowthContext,
        workers: Workers,
    ) -> Proposal:
        """Value of a random trial. It is decided where the trial draws a whole network.

        Args:
            trial: The trial, with its parameters in order.
            course: State of the trial; its random network is updated.
            name: Name of the parameter.
            distribution: Distribution of the parameter.
            context: Space from which the trial grows layers.
            workers: Other running trials.
        """
        if context.draws_whole and course.random is None:
            rng = make_generator(self._seed, "draw", trial.number)
            memory = self.replay, self.knowledge, workers
            course.random = draw_untried(context, trial.params, name, rng, *memory)
        if name in (drawn := course.random or {}) and still_holds(distribution, drawn[name]):
            return Proposal(drawn[name])
        return Proposal(None, is_decided=False)

    def _act(self, trial: FrozenTrial, request: Request, point: DecisionPoint) -> np.ndarray:
        """Action ``[A]`` of the actor, with noise."""
        assert self.ddpg is not None
        weights, scale = self.weights(trial.number), self._exploration(trial.number)
        rng = make_generator(self._seed, "noise", trial.number)
        noise = ornstein_uhlenbeck(
            rng,
            point.step + 1,
            size=ACTION_SLOTS,
            theta=self._config.noise_theta,
            sigma=scale * self._config.noise_sigma,
        )[-1]
        if self._config.stochastic_policy:  # it has noise of its own
            noise, scale = np.zeros(ACTION_SLOTS), 1.0
        query = self.transitions.query(request.slots, request.actions, weights)
        state = self.transitions.state(request.before, weights)
        action, kind = self.ddpg.act(state, query, make_noise(rng, 1, 1, scale=scale))
        actions = np.clip(action.numpy() + noise, 0, 1)
        if query.allowed.any():
            actions[0] = middle_of(kind, request.slots[0].n_values)
        return actions

    def _exploration(self, number: int) -> float:
        """Factor of the noise on the actor's actions.

        It falls with the number of the trial, but not to 0 while the policy repeats networks: these teach
        nothing new.
        """
        n_explore = self._n_exploration_trials
        return 1.0 if n_explore is None else max(self._restlessness, 1 - number / max(n_explore, 1))
