"""What a finished trial surely has, for tests that made it so; another trial fails the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from optuna_trlhpo import AgentConfig, TRLHPOSampler
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.trials.agent_record import AgentRecord, read_agent


def value_of(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def agent_note_of(trial: FrozenTrial) -> AgentRecord:
    note = read_agent(trial)
    assert note is not None
    return note


def agent_with(
    critic: str, *, of_ensembles: Mapping[str, Any], of_transformers: Mapping[str, Any], **settings: Any
) -> AgentConfig:
    """Settings of an agent, with those alone that have an effect with its critic."""
    more: dict[str, Any] = {}
    if critic != "posterior":
        more |= of_ensembles
    if critic == "transformer":
        more |= of_transformers
    return AgentConfig(critic=critic, **(settings | more))


def replay_of(sampler: TRLHPOSampler) -> Replay:
    """The replay of a sampler's agent, with all trials that the agent has observed."""
    networks = sampler.agent.networks
    if networks.ddpg is None:
        networks.catch_up(None)
    return networks.replay
