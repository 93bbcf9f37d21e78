"""Settings: the paper's, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from optuna_trlhpo.agent.config import AgentConfig


def test_the_papers_settings() -> None:
    """PAPER.md: two blocks, four heads, expansion 4, width 64, and so on."""
    config = AgentConfig.paper()
    assert (config.blocks, config.heads, config.expansion, config.width) == (2, 4, 4, 64)
    assert (config.actor_learning_rate, config.critic_learning_rate) == (1e-5, 1e-4)
    assert (config.gamma, config.tau) == (1.0, 0.01)
    assert (config.noise_theta, config.noise_sigma) == (0.15, 0.2)
    assert (config.batch_size, config.updates, config.replay_capacity) == (16, 5, 20_000)
    assert (config.n_critics, config.prior_scale, config.n_candidates) == (1, 0.0, 0)
    assert not config.learned_imr and config.progressive_reward


def test_the_papers_settings_can_be_changed_one_by_one() -> None:
    config = AgentConfig.paper(tau=0.5, width=32)
    assert config == dataclasses.replace(AgentConfig.paper(), tau=0.5, width=32)
    with pytest.raises(TypeError):
        AgentConfig.paper(learning_rate=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.tau = 0.1  # type: ignore[misc]


INTEGERS = ["width", "heads", "blocks", "expansion", "n_critics", "batch_size", "updates", "actor_interval"]
REFUSED: list[tuple[str, Any, str]] = [
    *[
        (name, value, "an integer of at least 1")
        for name in INTEGERS
        for value in (0, -4, 4.0, "4", None, True)
    ],
    *[("replay_capacity", value, "an integer of at least 1") for value in (0, -1, 1e3)],
    *[("n_generations", value, "an integer of at least 1") for value in (0, -1, 3.0)],
    *[("critic", value, "one of posterior, transformer, perceptron") for value in ("mlp", None, 1)],
    *[("targets", value, "one of log_error, rank") for value in ("error", True)],
    *[(name, value, "True or False") for name in ("mutations", "read_reports") for value in (0, "yes", None)],
    *[
        (name, value, "an integer of at least 0")
        for name in ("n_candidates", "random_interval", "fit_steps")
        for value in (-1, 0.0, False)
    ],
    *[
        ("acquisition", value, "one of expected_improvement, incumbent_gain, thompson")
        for value in ("ucb", "", None, 0, "Thompson")
    ],
    *[
        (name, value, "True or False")
        for name in ("learned_imr", "progressive_reward", "stochastic_policy")
        for value in (0, 1, None)
    ],
    *[
        (name, value, "above 0 and at most 1")
        for name in ("actor_learning_rate", "critic_learning_rate", "tau")
        for value in (0, 0.0, -1e-3, 1.5, math.nan, math.inf, "0.1", None)
    ],
    *[
        (name, value, "between 0 and 1")
        for name in ("gamma", "noise_theta", "noise_sigma")
        for value in (-0.1, 1.1, math.nan, None)
    ],
    *[("prior_scale", value, "between 0 and 100") for value in (-0.5, math.nan, "1")],
]


@pytest.mark.parametrize(("name", "value", "allowed"), REFUSED)
@pytest.mark.parametrize("make", [AgentConfig, AgentConfig.paper])
def test_what_is_out_of_range_is_named(make: Any, name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError) as caught:
        make(**{name: value})
    assert str(caught.value) == f"{name} is {value!r}; it must be {allowed}"


def test_every_setting_is_checked() -> None:
    assert {field.name for field in dataclasses.fields(AgentConfig)} == {name for name, _, _ in REFUSED}


@pytest.mark.parametrize(("width", "heads"), [(30, 4), (33, 3), (2, 4)])
def test_width_and_heads_must_agree(width: int, heads: int) -> None:
    sentence = f"^width is {width}; it must be even and a multiple of heads, {heads}$"
    with pytest.raises(ValueError, match=sentence):
        AgentConfig(width=width, heads=heads)


@pytest.mark.parametrize(
    "settings",
    [
        dict(
            n_candidates=0,
            progressive_reward=True,
            tau=1.0,
            gamma=0.0,
            noise_sigma=0.0,
            noise_theta=1.0,
            actor_learning_rate=1,
            batch_size=1,
            updates=1,
            replay_capacity=1,
        ),
        dict(critic="transformer", width=2, heads=1, blocks=1, expansion=1, n_critics=1, prior_scale=0),
        dict(n_candidates=0, prior_scale=100.0),
        dict(n_candidates=1, n_generations=1, random_interval=0, fit_steps=0, acquisition="thompson"),
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_are_allowed(settings: dict[str, Any]) -> None:
    config = AgentConfig(**settings)
    assert {name: getattr(config, name) for name in settings} == settings


PLANS: dict[str, Any] = {}
ALONE: dict[str, Any] = dict(n_candidates=0)
STOCHASTIC = ALONE | dict(stochastic_policy=True)
UNLESS_ALONE = "the actor decides alone (n_candidates=0)"


@pytest.mark.parametrize(
    ("name", "value", "agent", "why"),
    [
        *[
            (name, value, ALONE, f"where {UNLESS_ALONE}")
            for name, value in dict(
                n_generations=1,
                random_interval=0,
                acquisition="thompson",
                fit_steps=1,
                critic="perceptron",
                targets="rank",
                mutations=False,
            ).items()
        ],
        *[
            (name, value, PLANS, f"unless {UNLESS_ALONE}")
            for name, value in dict(
                learned_imr=False,
                progressive_reward=True,
                actor_learning_rate=0.1,
                batch_size=8,
                updates=1,
                actor_interval=1,
                stochastic_policy=True,
            ).items()
        ],
        *[
            (name, value, PLANS, f"unless critic is an ensemble, or {UNLESS_ALONE}")
            for name, value in dict(n_critics=2, prior_scale=0.1, critic_learning_rate=0.1).items()
        ],
        *[
            (
                name,
                value,
                agent,
                "unless critic is 'transformer', or the actor decides alone (n_candidates=0)",
            )
            for name, value in dict(width=8, heads=2, blocks=1, expansion=1).items()
            for agent in (PLANS, dict(critic="perceptron"))
        ],
        *[
            (name, 0.5, ALONE, "without progressive_reward, which bootstraps values")
            for name in ("gamma", "tau")
        ],
        *[
            (
                name,
                0.5,
                ALONE | dict(stochastic_policy=True),
                "with stochastic_policy, which has noise of its own",
            )
            for name in ("noise_theta", "noise_sigma")
        ],
    ],
)
def test_a_setting_without_effect_is_named(name: str, value: Any, agent: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError) as caught:
        AgentConfig(**agent, **{name: value})
    assert str(caught.value) == f"{name} is {value!r}; it has no effect {why}"
    assert AgentConfig(**agent, **{name: getattr(AgentConfig(), name)}) == AgentConfig(**agent)
