"""What the agent keeps of a running trial, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from optuna_trlhpo.agent.configurations.running import PlannedTrial
from optuna_trlhpo.agent.sequences import Plan
from optuna_trlhpo.trials.agent_record import AgentRecord


class Proposal(NamedTuple):
    """Proposed value.

    Attributes:
        value: The value, which may be None as a category.
        is_decided: Whether the agent has decided; if not, the parameter is sampled independently.
        is_new: Whether nothing is known of the parameter.
    """

    value: Any
    is_decided: bool = True
    is_new: bool = False


@dataclass
class Course:
    """State of a running trial that the agent keeps.

    Attributes:
        configuration: The trial as a configuration, with the plan for it.
        plan: Planned network, where the trial grows one.
        n_marks: Number of reports that the plan was made with.
        deeper: Plan of a deeper network, made when the objective asked whether to grow.
        explores: Whether the network of the trial is drawn from the pretrained actor.
        drawn: The plan that was drawn, which reports do not change. What comes behind it is planned as usual.
        random: Parameters of the random network of the trial, where it has drawn a whole one.
        record: Record to be stored with the trial; None until the agent has made a decision.
        excluded: Digests of plans that the objective did not offer.
        asked: What the trial has asked for, see `AgentRecord`.
    """

    configuration: PlannedTrial
    plan: Plan | None = None
    n_marks: int = 0
    deeper: Plan | None = None
    explores: bool = False
    drawn: Plan | None = None
    random: dict[str, Any] | None = None
    record: AgentRecord | None = None
    excluded: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
