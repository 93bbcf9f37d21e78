"""Every setting of the agent, with its range."""

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
    """The agent's settings; the defaults suit studies of 30 to 500 trials, `AgentConfig.paper` is the
    paper's.

    Most of them belong to one of two agents. Where the actor decides alone (``n_candidates=0``, the
    paper's), those from ``n_candidates`` to ``mutations`` have nothing to act on. Where a critic ranks plans
    (the default), the actor, DDPG and the noise have not: of the others ``width``, ``heads``, ``blocks``,
    ``expansion``, ``n_critics``, ``prior_scale`` and ``critic_learning_rate`` shape an ensemble, if
    ``critic`` names one.

    Attributes:
        width: Numbers per token; a multiple of ``heads``.
        heads: Attention heads.
        blocks: Transformer blocks of the actor, and of the critic.
        expansion: Hidden width of a block's feed-forward part, as a multiple of ``width``.
        n_critics: M, members of the critic ensemble.
        prior_scale: Weight of the frozen random network that is added to each member, so that members
            disagree where there are no data (Osband et al., "Randomized prior functions", 2018). 0: none.
        learned_imr: Whether the intermediate model representation is learned, and tells names apart; False is
            the paper's frozen one of four actions and 32 performance values alone.
        progressive_reward: True: a step's reward is what it adds to the accuracy, values are bootstrapped
            through the target networks, and the state holds the performance values themselves (the paper).
            False: a step's value is the best outcome seen at or behind it, in normal scores of its rank, and
            the state holds the rank of the report.
        actor_learning_rate: Of Adam, in (0, 1].
        critic_learning_rate: Of Adam, in (0, 1].
        gamma: Discount in [0, 1] of the bootstrapped value.
        tau: Share in (0, 1] by which the target networks follow.
        batch_size: Transitions per update (``progressive_reward``), else trials per update.
        updates: Critic updates for each finished trial.
        actor_interval: One actor update for so many critic updates.
        replay_capacity: The most trials that are remembered.
        n_candidates: Variations that the critic ranks, per generation; 0: the actor decides alone.
        n_generations: How often the best variations are varied again before one is taken.
        random_interval: Of so many trials one is sampled at random in a `LayerSpace`, and half as many
            wherever else trials differ in which parameters they have, for a critic that has seen little but
            one sort of network is too sure of all others. Elsewhere plans look at other sorts than the best,
            too. 0: neither.
        acquisition: What a plan is ranked by: "incumbent_gain", what the network that looked best is expected
            to gain in truth, noise allowed for; "expected_improvement" over the best; or "thompson", one
            function drawn from what the critic holds possible.
        fit_steps: Steps in which the critic learns its kernel, for each finished trial.
        critic: What ranks plans: "posterior", a Gaussian process; or an ensemble of ``n_critics`` networks,
            each a "transformer" over the parameters or a "perceptron".
        targets: What the critic learns: "log_error", accuracies and error rates by the logarithm of the error
            and all else as it is; or the "rank" among all that is known, in normal scores.
        mutations: Whether plans are variations of the best that is known; False: pieces of it, put together
            at random.
        read_reports: Whether it is read what a trial reports; False: only its final value.
        noise_theta: Of the Ornstein-Uhlenbeck noise: how fast it returns to 0.
        noise_sigma: Of the Ornstein-Uhlenbeck noise: its size at the start; it is annealed.

    Raises:
        ValueError: For a setting out of range.
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
    noise_theta: float = 0.15
    noise_sigma: float = 0.2

    @classmethod
    def paper(cls, **overrides: Any) -> AgentConfig:
        """The paper's agent; what it leaves open is as its authors ran it."""
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
