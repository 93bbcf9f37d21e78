"""All settings of the agent, with their ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

_CHOICES = {
    "acquisition": ("expected_improvement", "incumbent_gain", "thompson"),
    "critic": ("posterior", "transformer", "perceptron"),
    "targets": ("log_error", "rank"),
}


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Settings of the agent.

    The defaults suit studies of 30 to 500 trials; `AgentConfig.paper` gives the paper's settings.

    Each setting belongs to one of two agents. In one, a critic ranks plans (the default); in the other the
    actor decides alone (``n_candidates=0``, as in the paper). What has no effect must keep its default.

    Attributes:
        width: Width of a token; a multiple of ``heads``.
        heads: Number of attention heads.
        blocks: Number of transformer blocks of the actor, and of the critic.
        expansion: Hidden width of a block's feed-forward part, as a multiple of ``width``.
        n_critics: M, number of members of the critic ensemble.
        prior_scale: Weight of the frozen random network that is added to each member, so that members
            disagree where there are no data (Osband et al., "Randomized prior functions", 2018). 0: none.
        learned_imr: Whether the intermediate model representation is learned, and distinguishes names. False:
            the paper's frozen one of four actions and 32 performance values only.
        progressive_reward: True: the reward of a step is its gain in accuracy, values are bootstrapped
            through the target networks, and the state holds the performance values themselves (the paper).
            False: the value of a step is the best outcome observed at or after it, as the normal score of its
            rank, and the state holds the rank of the report.
        actor_learning_rate: Learning rate of Adam for the actor, in (0, 1].
        critic_learning_rate: Learning rate of Adam for the critic, in (0, 1].
        gamma: Discount factor in [0, 1] of the bootstrapped value.
        tau: Share in (0, 1] by which the target networks follow the trained ones at each update.
        batch_size: Transitions per update with ``progressive_reward``, else trials per update.
        updates: Critic updates per finished trial.
        actor_interval: Number of critic updates per actor update.
        replay_capacity: Largest number of trials that are remembered.
        n_candidates: Number of variations that the critic ranks per generation; 0: the actor decides alone.
        n_generations: Number of times that the best variations are varied again before one is chosen.
        random_interval: In a `LayerSpace`, one trial in so many explores: its network comes in turn from the
            pretrained actor, if there is one, and from chance. In any other space whose trials differ in
            their parameters, half as many are random, and plans also explore other sorts than the best. A
            critic that has seen mostly one sort of network is overconfident about all others. 0: neither.
        acquisition: Acquisition function that ranks plans: "incumbent_gain", the expected gain in the true
            value of the network with the best observed value, given the noise; "expected_improvement" over
            the best; or "thompson", one function drawn from the critic's posterior.
        fit_steps: Steps in which the critic learns its kernel, per finished trial.
        critic: Model that ranks plans: "posterior", a Gaussian process; or an ensemble of ``n_critics``
            networks, each a "transformer" over the parameters or a "perceptron".
        targets: Target that the critic learns: "log_error", the logarithm of the error for accuracies and
            error rates, and the value itself for other objectives; or "rank", the normal score of the rank
            among all known values.
        mutations: Whether plans are variations of the best known ones; False: random combinations of their
            parts.
        read_reports: Whether the agent reads the reports of a trial; False: only its final value.
        stochastic_policy: Whether the actor draws its actions, in every trial: the kind of a layer by its
            probability, numbers with a deviation that the actor learns, too, in place of the Ornstein-
            Uhlenbeck noise (section VI-B of the paper).
        noise_theta: Rate at which the Ornstein-Uhlenbeck noise returns to 0.
        noise_sigma: Initial scale of the Ornstein-Uhlenbeck noise, which is annealed.

    Raises:
        ValueError: If a setting is out of range, or has no effect in this agent and is not its default.
    """

    width: int = 32
    heads: int = 4
    blocks: int = 2
    expansion: int = 2
    n_critics: int = 5
    prior_scale: float = 0.5
    learned_imr: bool = True
    progressive_reward: bool = False
    actor_learning_rate: float = 1e-3
    critic_learning_rate: float = 2e-3
    gamma: float = 1.0
    tau: float = 0.01
    batch_size: int = 32
    updates: int = 16
    actor_interval: int = 4
    replay_capacity: int = 5_000
    n_candidates: int = 100
    n_generations: int = 3
    random_interval: int = 5
    acquisition: str = "incumbent_gain"
    fit_steps: int = 5
    critic: str = "posterior"
    targets: str = "log_error"
    mutations: bool = True
    read_reports: bool = True
    stochastic_policy: bool = False
    noise_theta: float = 0.15
    noise_sigma: float = 0.2

    @classmethod
    def paper(cls, **overrides: Any) -> AgentConfig:
        """Settings of the paper; where it leaves one open, as in the authors' runs."""
        published: dict[str, Any] = dict(
            width=64,
            heads=4,
            blocks=2,
            expansion=4,
            n_critics=1,
            prior_scale=0.0,
            learned_imr=False,
            progressive_reward=True,
            actor_learning_rate=1e-5,
            critic_learning_rate=1e-4,
            gamma=1.0,
            tau=0.01,
            batch_size=16,
            updates=5,
            actor_interval=1,
            replay_capacity=20_000,
            n_candidates=0,
            noise_theta=0.15,
            noise_sigma=0.2,
        )
        return cls(**(published | overrides))

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise ValueError(f"{field.name} is {value!r}; it must be True or False")
            elif field.type == "str":
                if value not in _CHOICES[field.name]:
                    allowed = ", ".join(_CHOICES[field.name])
                    raise ValueError(f"{field.name} is {value!r}; it must be one of {allowed}")
            elif field.type == "int":
                least = 0 if field.name in ("n_candidates", "random_interval", "fit_steps") else 1
                if not isinstance(value, int) or isinstance(value, bool) or value < least:
                    raise ValueError(f"{field.name} is {value!r}; it must be an integer of at least {least}")
            else:
                low, high, allowed = _RANGES[field.name]
                if not isinstance(value, int | float) or not low <= value <= high:
                    raise ValueError(f"{field.name} is {value!r}; it must be {allowed}")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width is {self.width}; it must be even and a multiple of heads, {self.heads}")
        for field in fields(self):
            value, why = getattr(self, field.name), self._idle(field.name)
            if why and value != field.default:
                raise ValueError(f"{field.name} is {value!r}; it has no effect {why}")

    def _idle(self, name: str) -> str:
        """Why a setting has no effect; empty if it has one."""
        is_alone = self.n_candidates == 0
        if is_alone and name in _OF_PLANS:
            return "where the actor decides alone (n_candidates=0)"
        if not is_alone and name in _OF_THE_ACTOR:
            return "unless the actor decides alone (n_candidates=0)"
        if not is_alone and name in _OF_AN_ENSEMBLE and self.critic == "posterior":
            return "unless critic is an ensemble, or the actor decides alone (n_candidates=0)"
        if not is_alone and name in _OF_A_TRANSFORMER and self.critic != "transformer":
            return "unless critic is 'transformer', or the actor decides alone (n_candidates=0)"
        if name in ("gamma", "tau") and not self.progressive_reward:
            return "without progressive_reward, which bootstraps values"
        if name in ("noise_theta", "noise_sigma") and self.stochastic_policy:
            return "with stochastic_policy, which has noise of its own"
        return ""


_OF_PLANS = frozenset("n_generations random_interval acquisition fit_steps critic targets mutations".split())
_OF_THE_ACTOR = frozenset(
    "learned_imr progressive_reward actor_learning_rate gamma tau batch_size updates actor_interval "
    "stochastic_policy noise_theta noise_sigma".split()
)
_OF_AN_ENSEMBLE = frozenset(("n_critics", "prior_scale", "critic_learning_rate"))
_OF_A_TRANSFORMER = frozenset(("width", "heads", "blocks", "expansion"))
_TINY = math.ulp(0.0)
_RANGES = {
    "actor_learning_rate": (_TINY, 1.0, "above 0 and at most 1"),
    "critic_learning_rate": (_TINY, 1.0, "above 0 and at most 1"),
    "gamma": (0.0, 1.0, "between 0 and 1"),
    "tau": (_TINY, 1.0, "above 0 and at most 1"),
    "prior_scale": (0.0, 100.0, "between 0 and 100"),
    "noise_theta": (0.0, 1.0, "between 0 and 1"),
    "noise_sigma": (0.0, 1.0, "between 0 and 1"),
}
