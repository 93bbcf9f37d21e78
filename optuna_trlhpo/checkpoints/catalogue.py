"""What a checkpoint may contain: the classes of an agent's state, and what is never stored.

A class that is not listed here cannot be in a checkpoint, whatever the file says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection

from optuna_trlhpo.agent.agent import Agent
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.configurations.agent import ConfigurationAgent
from optuna_trlhpo.agent.configurations.columns import Columns
from optuna_trlhpo.agent.configurations.costs import ConfigurationCosts
from optuna_trlhpo.agent.configurations.critic import ConfigurationCritic
from optuna_trlhpo.agent.configurations.entries import Entries
from optuna_trlhpo.agent.configurations.given import GivenValues
from optuna_trlhpo.agent.configurations.layout import Layout
from optuna_trlhpo.agent.configurations.memory import ConfigurationMemory
from optuna_trlhpo.agent.configurations.planner import ConfigurationPlanner
from optuna_trlhpo.agent.configurations.sorts import SortHistory
from optuna_trlhpo.agent.configurations.state_critics import StateCritics
from optuna_trlhpo.agent.configurations.transfer import ConfigurationSource
from optuna_trlhpo.agent.ddpg import DDPG
from optuna_trlhpo.agent.ensemble import Ensemble
from optuna_trlhpo.agent.features import FeatureMap
from optuna_trlhpo.agent.gaussian_process import Features, GaussianProcess
from optuna_trlhpo.agent.layer_prior import LayerPrior
from optuna_trlhpo.agent.learning import Occasions, StepBudget
from optuna_trlhpo.agent.name_table import NameTable
from optuna_trlhpo.agent.network_agent import NetworkAgent
from optuna_trlhpo.agent.network_costs import NetworkCosts
from optuna_trlhpo.agent.network_critic import NetworkCritic
from optuna_trlhpo.agent.planner import Planner
from optuna_trlhpo.agent.prior_knowledge import PriorKnowledge
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.ring_buffer import RingBuffer
from optuna_trlhpo.agent.sequences import Networks
from optuna_trlhpo.agent.steering import Steering
from optuna_trlhpo.agent.time_budget import LogSeconds, TimeBudget
from optuna_trlhpo.agent.transfer import NetworkSource
from optuna_trlhpo.agent.transitions import Transitions
from optuna_trlhpo.search_space.decision_tree import ABSENT, TreeNode
from optuna_trlhpo.search_space.explored import Explored
from optuna_trlhpo.search_space.model import END, SpaceModel
from optuna_trlhpo.search_space.question import Choices, PathPosition, Question
from optuna_trlhpo.trials.axes import LabelAxis, NumberAxis
from optuna_trlhpo.trials.episode import Episode
from optuna_trlhpo.trials.outcome_transforms import EmpiricalCDF, OutcomeTransform
from optuna_trlhpo.trials.parameters import ParameterSpec
from optuna_trlhpo.trials.path import Path


def _by_name(*classes: type) -> dict[str, type]:
    return {cls.__name__: cls for cls in classes}


OBJECTS = _by_name(
    *(
        Agent,
        NetworkAgent,
        Planner,
        NetworkCritic,
        NetworkCosts,
        PriorKnowledge,
        Replay,
        RingBuffer,
        NameTable,
    ),
    *(Transitions, FeatureMap, GaussianProcess, Occasions, StepBudget, Steering, TimeBudget, LogSeconds),
    *(ConfigurationAgent, ConfigurationPlanner, ConfigurationMemory, ConfigurationCritic, ConfigurationCosts),
    *(
        ConfigurationSource,
        StateCritics,
        Columns,
        Entries,
        SortHistory,
        Layout,
        GivenValues,
        SpaceModel,
        Question,
        TreeNode,
    ),
    *(NetworkSource, LabelAxis, NumberAxis, Path, ParameterSpec, Episode, EmpiricalCDF, OutcomeTransform),
    *(FloatDistribution, IntDistribution, CategoricalDistribution),
)
"""Classes whose objects are built without a call, from their attributes alone."""
CONSTANTS = {ParameterSpec, FloatDistribution, IntDistribution, CategoricalDistribution}
"""Those of them whose objects never change."""
TUPLES = _by_name(PathPosition, Choices, Features, Networks)
"""Subclasses of tuple."""
STATES = _by_name(Explored)
"""Classes whose objects take their state by ``__setstate__``."""
RESTORED = _by_name(DDPG, Ensemble)
"""Classes of networks, whose objects are built by ``restored`` from settings and weights."""
DICTS: dict[str, type] = {"dict": dict, "Counter": Counter}
"""Classes of dictionaries; a ``defaultdict`` is one of lists."""
FACTORIES = _by_name(ConfigurationCritic, NetworkCritic)
"""Classes of which a ``functools.partial`` may be stored."""


def replaced(value: Any) -> dict[str, Any]:
    """Return the attributes that are stored in place of those of an object."""
    if isinstance(value, Agent):  # trials that are running begin anew
        return {"courses": dict.fromkeys(value.courses)}
    if isinstance(value, ConfigurationMemory):  # collected again from the actions
        return {"_without": (), "_n_without": 0, "_tried_without": set()}
    if isinstance(value, SortHistory):
        return vars(SortHistory())
    if isinstance(value, PriorKnowledge):  # a space is learned again when a trial enters it
        nothing = {"context": None, "_is_set": False, "space_samples": None}
        return nothing | {"_known": {}, "_descriptors": {}}
    return {}


class Externals:
    """Objects that the sampler has itself, and that a checkpoint refers to by name.

    Args:
        config: Settings of its agent.
        priors: Its priors for layers.
    """

    def __init__(self, config: AgentConfig, priors: Sequence[LayerPrior]) -> None:
        self.by_name: dict[str, Any] = {"END": END, "ABSENT": ABSENT}
        self.by_name |= {direction.name: direction for direction in StudyDirection}
        self.by_name |= {f"prior {k}": prior for k, prior in enumerate(priors)}
        self.by_name |= {f"vocabulary {k}": prior.vocabulary for k, prior in enumerate(priors)}
        self._names = {id(value): name for name, value in self.by_name.items()}
        self._configs = {"config": config, "default": AgentConfig()}
        self.by_name |= self._configs

    def name_of(self, value: Any) -> str | None:
        """Return the name of an object; None if it is none of them."""
        if isinstance(value, AgentConfig):  # several objects are equal
            return next((name for name, config in self._configs.items() if config == value), None)
        return self._names.get(id(value))

    def check(self, value: Any) -> None:
        """Check an object that was read.

        Raises:
            ValueError: If it would learn for another time than the settings say.
        """
        allowed = {config.fit_steps for config in self._configs.values()}
        if isinstance(value, StepBudget) and value.per_trial not in allowed:
            raise ValueError(f"the steps per trial are {value.per_trial!r}; they must be in {allowed}")
