"""Learning: equal seeds, what never changes, targets by hand, and a task learned to a threshold."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_trlhpo.agent.actor import Noise
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.ddpg import DDPG, Batch
from optuna_trlhpo.agent.tokens import MOST_KINDS, NAME_CODE, Steps

A, P = 4, 32
CONFIGS = {"default": AgentConfig(), "paper": AgentConfig.paper()}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def make_agent(config: AgentConfig, seed: int = 0) -> DDPG:
    return DDPG(config, n_slots=A, n_performance=P, n_weights=0, seed=seed)


def steps_of(actions: Tensor) -> Steps:
    """Full, unmeasured steps of one name, ``[B, S, A]``."""
    B, S, _ = actions.shape
    names = torch.linspace(-1, 1, A * NAME_CODE).view(A, NAME_CODE).expand(B, S, A, NAME_CODE)
    nothing = torch.zeros(B, S, P), torch.zeros(B, S), torch.zeros(B, S, 0)
    return Steps(actions, torch.ones(B, S, A), names, *nothing, *torch.zeros(2, B, S, MOST_KINDS))


def no_noise(B: int, S: int) -> Noise:
    return Noise(torch.zeros(B, S, MOST_KINDS), torch.zeros(B, S, A))


def random_batch(config: AgentConfig, B: int = 8, S: int = 3, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    steps = steps_of(uniform(B, S, A))._replace(performance=uniform(B, S, P), measured=torch.ones(B, S))
    done = torch.zeros(B, S)
    done[:, -1] = 1
    return Batch(
        steps=steps,
        learned=torch.ones(B, S),
        mask=torch.ones(B, config.n_critics),
        returns=uniform(B, S) * 2 - 1,
        rewards=uniform(B, S) - 0.5,
        done=done,
        noise=no_noise(B, S),
    )


def state_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: torch.nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return not changed(state_of(one), other)


# Beginnings -------------------------------------------------------------------------------------------


def score(agent: DDPG, state: Steps, candidates: Steps) -> torch.Tensor:
    """``[Q, M]`` what each member of the critic expects of candidates ``[1, Q]`` behind ``state``."""
    position = torch.full((candidates.actions.shape[1],), state.actions.shape[1])
    with torch.inference_mode():
        return agent.critic(state, candidates, position)[0]


@every_config
def test_equal_seeds_equal_weights(config: AgentConfig) -> None:
    one, two, other = make_agent(config, 7), make_agent(config, 7), make_agent(config, 8)
    for name in ("actor", "critic", "target_actor", "target_critic"):
        assert equal(getattr(one, name), getattr(two, name))
        assert not equal(getattr(one, name), getattr(other, name))
    assert equal(one.actor, one.target_actor) and equal(one.critic, one.target_critic)


@every_config
def test_equal_seeds_learn_equally(config: AgentConfig) -> None:
    one, two = make_agent(config), make_agent(config)
    losses = [[agent.update(random_batch(config, seed=i)) for i in range(5)] for agent in (one, two)]
    assert losses[0] == losses[1]
    assert equal(one.actor, two.actor) and equal(one.critic, two.critic)


@every_config
def test_global_generators_and_threads_are_left_alone(config: AgentConfig) -> None:
    torch.manual_seed(123)
    np.random.seed(123)
    generator, numpys, threads = (
        torch.get_rng_state(),
        np.random.get_state(legacy=False)["state"]["key"].copy(),
        torch.get_num_threads(),
    )
    torch.set_num_threads(3)
    try:
        agent = make_agent(config, seed=5)
        agent.update(random_batch(config))
        steps = steps_of(torch.rand(1, 2, A, generator=torch.Generator()))
        agent.act(steps, steps.at(0, 1))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), generator)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpys)


def test_a_stochastic_policy_draws_its_actions() -> None:
    agent = make_agent(AgentConfig.paper(stochastic_policy=True))
    state, query = steps_of(torch.rand(1, 1, A)), steps_of(torch.zeros(1, 1, A))
    preferred, _ = agent.act(state, query)
    noise = Noise(torch.zeros(1, 1, MOST_KINDS), torch.tensor([[[0.0, 1.0, -1.0, 0.0]]]))
    drawn, _ = agent.act(state, query, noise)
    assert drawn[0] == preferred[0] and drawn[1] > preferred[1] + 0.1 and drawn[2] < preferred[2] - 0.1
    plain = make_agent(AgentConfig.paper())
    assert torch.equal(plain.act(state, query, noise)[0], plain.act(state, query)[0])


@every_config
def test_acting(config: AgentConfig) -> None:
    agent = make_agent(config)
    state = steps_of(torch.rand(1, 3, A))
    action, _ = agent.act(state, steps_of(torch.zeros(1, 1, A)))
    assert action.shape == (A,) and ((0 <= action) & (action <= 1)).all()
    assert agent.act(steps_of(torch.zeros(1, 0, A)), steps_of(torch.zeros(1, 1, A)))[0].shape == (A,)
    # All that goes before counts: what is asked stands behind the whole state.
    assert not torch.allclose(action, agent.act(state.at(0, 2), steps_of(torch.zeros(1, 1, A)))[0])


# What changes -----------------------------------------------------------------------------------------


def test_the_papers_imr_is_one_and_never_changes() -> None:
    config = AgentConfig.paper(actor_learning_rate=1e-2, critic_learning_rate=1e-2, tau=0.5)
    agent = make_agent(config)
    before = agent.critic.get_parameter("imr.linear.weight").clone()
    trained = {name: state_of(getattr(agent, name)) for name in ("actor", "critic")}
    for i in range(5):
        agent.update(random_batch(config, seed=i))
    for net in (agent.actor, agent.critic, agent.target_actor, agent.target_critic):
        assert torch.equal(net.get_parameter("imr.linear.weight"), before)
    for name, state in trained.items():
        assert changed(state, getattr(agent, name)) == {
            key
            for key in state
            if not key.startswith(("imr.", "kind.", "of_kind."))  # no step of the batch has kinds
        }


def test_priors_never_change() -> None:
    agent = make_agent(AgentConfig(n_candidates=0, actor_interval=1))
    actor, critic = state_of(agent.actor), state_of(agent.critic)
    for i in range(5):
        agent.update(random_batch(agent.config, seed=i))
    constant = {name for name in critic if name.startswith("prior.") or name == "imr.centres"}
    assert changed(critic, agent.critic) == set(critic) - constant
    without_kinds = {name for name in actor if name.startswith(("kind.", "of_kind."))}
    assert changed(actor, agent.actor) == set(actor) - {"imr.centres"} - without_kinds
    assert len(constant) == 5


def test_a_critic_update_leaves_the_actor_alone_and_the_other_way_round() -> None:
    agent = make_agent(AgentConfig(n_candidates=0, actor_interval=3))
    for i in range(7):
        actor = state_of(agent.actor)
        losses = agent.update(random_batch(agent.config, seed=i))
        assert (losses.actor is not None) == (i % 3 == 0) == bool(changed(actor, agent.actor))
    # With no step at all to learn the critic has no gradient, whatever the actor's loss sends through it.
    agent = make_agent(AgentConfig(n_candidates=0, actor_interval=1))
    batch = random_batch(agent.config)
    critic, actor = state_of(agent.critic), state_of(agent.actor)
    agent.update(batch._replace(mask=torch.zeros_like(batch.mask)))
    assert not changed(critic, agent.critic) and changed(actor, agent.actor)


def test_target_networks_follow_by_tau() -> None:
    config = AgentConfig.paper(tau=0.25, critic_learning_rate=1e-2, actor_learning_rate=1e-2)
    agent = make_agent(config)
    olds = {name: copy.deepcopy(getattr(agent, f"target_{name}")) for name in ("actor", "critic")}
    agent.update(random_batch(config))
    for name, old in olds.items():
        news = zip(
            old.parameters(),
            getattr(agent, name).parameters(),
            getattr(agent, f"target_{name}").parameters(),
            strict=True,
        )
        for before, online, target in news:
            torch.testing.assert_close(target, 0.75 * before + 0.25 * online)
    assert not equal(agent.target_critic, olds["critic"])


@every_config
def test_members_learn_from_their_own_episodes(config: AgentConfig) -> None:
    """A critic loss is the mean over what is learned and masked in, and nothing else."""
    batch = random_batch(config)
    learned = torch.zeros_like(batch.learned)
    learned[:, 1] = 1
    batch = batch._replace(learned=learned, done=torch.ones_like(batch.done))
    batch.mask[3:] = 0
    targets = batch.rewards if config.progressive_reward else batch.returns
    agent = make_agent(config)
    with torch.no_grad():
        values = agent.critic(batch.steps, batch.steps, torch.arange(3))
    expected = (values[:3, 1] - targets[:3, 1].unsqueeze(-1)).square().mean().item()
    assert agent.update(batch).critic == pytest.approx(expected, rel=1e-4)
    wild = batch._replace(returns=batch.returns.clone(), rewards=batch.rewards.clone())
    for tensor in (wild.returns, wild.rewards):
        tensor[3:], tensor[:, 0], tensor[:, 2] = 9, 9, 9
    assert make_agent(config).update(wild).critic == pytest.approx(expected, rel=1e-4)


# Targets by hand --------------------------------------------------------------------------------------


def bootstrapped(config: AgentConfig, batch: Batch) -> Tensor:
    return make_agent(config).bootstrapped(batch, torch.arange(batch.learned.shape[1]))


def test_without_gamma_a_target_is_the_reward() -> None:
    config = AgentConfig.paper(gamma=0.0)
    batch = random_batch(config, B=2, S=2)
    torch.testing.assert_close(bootstrapped(config, batch), batch.rewards)
    agent = make_agent(config)
    with torch.no_grad():
        values = agent.critic(batch.steps, batch.steps, torch.arange(2))[..., 0]
    expected = (values - batch.rewards).square().mean().item()
    assert agent.update(batch).critic == pytest.approx(expected, rel=1e-4)


def test_a_bootstrapped_target_by_hand() -> None:
    """y = r + gamma Q'(s', mu'(s')) step by step, each state and action passed alone."""
    config = AgentConfig.paper(gamma=0.9)
    batch = random_batch(config, B=2, S=3)
    batch.done[0, 1] = 1  # the first episode ends at its second step
    agent = make_agent(config)
    found = agent.bootstrapped(batch, torch.arange(3))
    for b in range(2):
        for k in range(3):
            expected = batch.rewards[b, k]
            if not batch.done[b, k]:
                state = Steps(*(tensor[b : b + 1, : k + 1] for tensor in batch.steps))
                query = steps_of(torch.zeros(1, 1, A))
                action, _ = agent.act(state, query)
                value = score(agent, state, steps_of(action.view(1, 1, A)))[0, 0]
                expected = expected + 0.9 * value
            torch.testing.assert_close(found[b, k], expected)


def test_a_bootstrapped_target_stays_within_the_critics_range() -> None:
    config = AgentConfig.paper()
    batch = random_batch(config)
    found = bootstrapped(config, batch._replace(rewards=torch.full_like(batch.rewards, 5.0)))
    assert (found == 1).all()


def test_without_bootstrapping_a_target_is_the_return() -> None:
    config = AgentConfig()
    batch = random_batch(config)
    with torch.no_grad():
        agent = make_agent(config)
        values = agent.critic(batch.steps, batch.steps, torch.arange(3))
    expected = (values - batch.returns.unsqueeze(-1)).square().mean().item()
    other = batch._replace(rewards=batch.rewards + 7, done=1 - batch.done)
    assert agent.update(other).critic == pytest.approx(expected, rel=1e-4)


# Learning ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [AgentConfig(), AgentConfig.paper(critic_learning_rate=1e-3, gamma=0.0)],
    ids=["default", "paper"],
)
def test_updates_lower_the_critics_loss(config: AgentConfig) -> None:
    agent, batch = make_agent(config), random_batch(config)
    losses = [agent.update(batch).critic for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("best", [0.2, 0.8])
@pytest.mark.parametrize("name", ["default", pytest.param("paper", marks=pytest.mark.slow)])
def test_a_one_step_task_is_learned(name: str, best: float) -> None:
    """One step of four numbers: the nearer the first is to ``best``, the better."""
    faster: dict[str, Any] = dict(actor_learning_rate=5e-4, critic_learning_rate=2e-3, actor_interval=1)
    config = AgentConfig.paper(**faster) if name == "paper" else AgentConfig(n_candidates=0, **faster)
    agent, rng = make_agent(config), np.random.default_rng(0)
    nothing, query = steps_of(torch.zeros(1, 0, A)), steps_of(torch.zeros(1, 1, A))
    before = agent.act(nothing, query)[0][0].item()
    assert abs(before - best) > 0.1
    for _ in range(400 if name == "paper" else 150):
        actions = torch.from_numpy(rng.random((24, 1, A))).float()
        value = 0.5 - 1.5 * (actions[..., 0] - best).abs()
        ones = torch.ones(24, 1)
        agent.update(
            Batch(
                steps_of(actions), ones, torch.ones(24, config.n_critics), value, value, ones, no_noise(24, 1)
            )
        )
    assert abs(agent.act(nothing, query)[0][0].item() - best) < 0.08
    actions = torch.full((1, 101, A), 0.5)
    actions[0, :, 0] = torch.linspace(0, 1, 101)
    scores = score(agent, nothing, steps_of(actions)).mean(dim=-1)
    assert abs(scores.argmax().item() / 100 - best) < 0.08  # the critic's own choice


@pytest.mark.slow
def test_what_was_reported_is_learned_to_matter() -> None:
    """The best second step depends on what the first one measured."""
    config = AgentConfig(n_candidates=0, actor_interval=1)
    agent, rng = make_agent(config), np.random.default_rng(0)

    def episodes(n: int) -> tuple[Steps, Tensor]:
        actions = torch.from_numpy(rng.random((n, 2, A))).float()
        good = torch.from_numpy(rng.integers(0, 2, n)).float()
        performance = torch.zeros(n, 2, P)
        performance[:, 0] = good.unsqueeze(-1)
        measured = torch.tensor([[1.0, 0.0]]).expand(n, 2)
        return steps_of(actions)._replace(performance=performance, measured=measured), good

    for _ in range(300):
        steps, good = episodes(32)
        value = 0.5 - (steps.actions[:, 1, 0] - (0.2 + 0.6 * good)).abs()
        learned = torch.tensor([[0.0, 1.0]]).expand(32, 2)
        returns = torch.stack([torch.zeros(32), value], dim=1)
        agent.update(
            Batch(
                steps, learned, torch.ones(32, config.n_critics), returns, returns, learned, no_noise(32, 2)
            )
        )
    steps, good = episodes(16)
    for i in range(16):
        state = Steps(*(tensor[i : i + 1, :1] for tensor in steps))
        action = agent.act(state, steps_of(torch.zeros(1, 1, A)))[0][0].item()
        assert abs(action - (0.2 + 0.6 * good[i].item())) < 0.12


# What is explained ------------------------------------------------------------------------------------


@every_config
def test_attention_sums_to_one_over_what_is_there(config: AgentConfig) -> None:
    S, agent = 5, make_agent(config)
    insight = agent.explain(random_batch(config, B=1, S=S).steps)
    assert insight.values.shape == (S, config.n_critics)
    for rows in (insight.actor, insight.critic):
        assert [row.shape for row in rows] == [
            (config.blocks * config.heads, k + 1) for k in range(1, S + 1)
        ]  # steps that are not there have no place
        for row in rows:
            assert (row > 0).all()
            np.testing.assert_allclose(row.sum(axis=1), 1, atol=1e-6)


@every_config
def test_what_is_explained_is_what_was_done(config: AgentConfig) -> None:
    """Values are those of the critic; and what comes later changes no row of what came before."""
    agent = make_agent(config)
    steps = random_batch(config, B=1, S=4).steps
    insight = agent.explain(steps)
    for k in range(4):
        value = score(agent, steps.at(0, k), steps.at(k, k + 1))[0]
        np.testing.assert_allclose(insight.values[k], value.numpy(), atol=1e-6)
    shorter = agent.explain(steps.at(0, 2))
    np.testing.assert_allclose(insight.actor[0], shorter.actor[0], atol=1e-6)
    np.testing.assert_allclose(insight.critic[0], shorter.critic[0], atol=1e-6)


def test_explaining_teaches_nothing() -> None:
    config = CONFIGS["paper"]
    agent, batch = make_agent(config), random_batch(config, B=1)
    before, steps = state_of(agent.critic), [tensor.clone() for tensor in batch.steps]
    agent.explain(batch.steps)
    assert changed(before, agent.critic) == set()
    assert all(torch.equal(a, b) for a, b in zip(steps, batch.steps, strict=True))


# Copies -----------------------------------------------------------------------------------------------


@every_config
def test_a_pickled_agent_goes_on_as_the_original(config: AgentConfig) -> None:
    agent = make_agent(config)
    for i in range(3):
        agent.update(random_batch(config, seed=i))
    copies = [pickle.loads(pickle.dumps(agent)), copy.deepcopy(agent)]
    expected = [agent.update(random_batch(config, seed=i)) for i in (7, 8)]
    for other in copies:
        assert [other.update(random_batch(config, seed=i)) for i in (7, 8)] == expected
        assert equal(other.actor, agent.actor) and equal(other.target_critic, agent.target_critic)
    fresh = pickle.loads(pickle.dumps(make_agent(config)))  # its optimisers have no state yet
    assert fresh.update(random_batch(config, seed=7)) == make_agent(config).update(
        random_batch(config, seed=7)
    )
