"""The networks: who sees whom, what is masked, what is frozen, and in which range they answer."""

from __future__ import annotations

import math
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from optuna_trlhpo.agent.actor import Actor, Noise
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.critic import Critic
from optuna_trlhpo.agent.tokens import MOST_KINDS, NAME_CODE, FrozenIMR, Steps
from optuna_trlhpo.agent.transformer import Block, Transformer, sinusoids

A, P = 4, 32
CONFIGS = {"default": AgentConfig(), "paper": AgentConfig.paper()}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def random_steps(B: int, S: int, *, seed: int = 0, K: int = 0) -> Steps:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(B, S, *shape, generator=generator)

    filled = torch.ones(B, S, A)
    filled[..., -1] = (torch.rand(B, S, generator=generator) < 0.5).float()
    measured = torch.ones(B, S)
    names = torch.randn(B, S, A, NAME_CODE, generator=generator) * filled.unsqueeze(-1)
    kinds = torch.zeros(2, B, S, MOST_KINDS)
    return Steps(uniform(A) * filled, filled, names, uniform(P), measured, uniform(K), *kinds)


def replaced(steps: Steps, position: slice, other: Steps) -> Steps:
    """``steps`` with those of ``other`` at ``position``."""
    mixed = Steps(*(tensor.clone() for tensor in steps))
    for tensor, foreign in zip(mixed, other, strict=True):
        tensor[:, position] = foreign[:, position]
    return mixed


def answer_of(net: Actor | Critic, state: Steps, query: Steps, position: Tensor) -> Tensor:
    """The critic's values; the actor's actions in [0, 1] and kinds."""
    answer = net(state, query, position)
    return answer if isinstance(answer, Tensor) else torch.cat(answer, dim=-1)


Net = TypeVar("Net", bound=Actor | Critic)


def make(cls: type[Net], config: AgentConfig, K: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls(config, n_slots=A, n_performance=P, n_weights=K)


BODIES = [(cls, config) for cls in (Actor, Critic) for config in CONFIGS.values()]
every_body = pytest.mark.parametrize(
    ("cls", "config"), BODIES, ids=[f"{c.__name__}-{name}" for c in (Actor, Critic) for name in CONFIGS]
)

# Attention --------------------------------------------------------------------------------------------


@every_config
@torch.no_grad()
def test_attention_weights_sum_to_one_and_what_is_masked_gets_none(config: AgentConfig) -> None:
    B, S, position = 3, 5, torch.tensor([0, 2, 2, 5])
    torch.manual_seed(0)
    body = Transformer(config)
    state, query = torch.randn(B, S, config.width), torch.randn(B, len(position), config.width)
    tokens, weights = body(state, query, position)
    T = S + len(position)
    assert tokens.shape == (B, len(position), config.width)
    assert len(weights) == config.blocks
    # By hand: step i sees steps up to itself, a query at k the steps before k and itself, never a query.
    sees = [[True] * (i + 1) + [False] * (T - i - 1) for i in range(S)]
    for q, k in enumerate(position.tolist()):
        sees.append([j < k or j == S + q for j in range(T)])
    visible = torch.tensor(sees)
    for w in weights:
        assert w.shape == (B, config.heads, T, T)
        torch.testing.assert_close(w.sum(dim=-1), torch.ones(B, config.heads, T))
        assert (w[:, :, ~visible] == 0).all()
        assert (w[:, :, visible] > 0).all()


@torch.no_grad()
def test_attention_by_hand() -> None:
    """One head, one block, against the formula softmax(q k / sqrt(d)) v written out."""
    torch.manual_seed(0)
    config = AgentConfig(n_candidates=0, width=4, heads=1, blocks=1)
    block = Transformer(config).blocks[0]
    assert isinstance(block, Block)
    attention = block.attention
    x = torch.randn(1, 3, 4)
    visible = torch.ones(3, 3).tril().bool().unsqueeze(0)
    output, weights = attention(x, visible)
    rows = attention.inputs.weight @ x[0].T + attention.inputs.bias.unsqueeze(-1)  # [3 W, T]
    q, k, v = rows[:4], rows[4:8], rows[8:]
    for i in range(3):
        scores = torch.stack([(q[:, i] * k[:, j]).sum() / 2 for j in range(i + 1)]).softmax(0)
        torch.testing.assert_close(weights[0, 0, i, : i + 1], scores)
        mixed = (v[:, : i + 1] * scores).sum(dim=1)
        torch.testing.assert_close(output[0, i], attention.output(mixed))


def test_positions_by_hand() -> None:
    codes = sinusoids(torch.tensor([0, 3]), 4)
    expected = [[0, 1, 0, 1], [math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)]]
    torch.testing.assert_close(codes, torch.tensor(expected))


# Who sees whom ----------------------------------------------------------------------------------------


@every_body
@torch.no_grad()
def test_an_answer_depends_on_the_steps_before_it_and_on_no_others(
    cls: type[Actor] | type[Critic], config: AgentConfig
) -> None:
    net, position = make(cls, config), torch.arange(5)
    state, query = random_steps(2, 5, seed=1), random_steps(2, 5, seed=2)
    before = answer_of(net, state, query, position)
    for k in range(5):
        after = answer_of(net, replaced(state, slice(k, k + 1), random_steps(2, 5, seed=3)), query, position)
        torch.testing.assert_close(after[:, : k + 1], before[:, : k + 1])  # at or before the changed step
        changed = (after - before).abs().amax(dim=(0, 2))
        assert (changed[k + 1 :] > 1e-6).all()  # every later answer has seen it


@every_body
@torch.no_grad()
def test_an_answer_does_not_depend_on_other_queries(
    cls: type[Actor] | type[Critic], config: AgentConfig
) -> None:
    net, position = make(cls, config), torch.tensor([1, 3, 3, 4])
    state, query = random_steps(2, 4, seed=1), random_steps(2, 4, seed=2)
    before = answer_of(net, state, query, position)
    alone = [answer_of(net, state, query.at(i, i + 1), position[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(torch.cat(alone, dim=1), before)
    after = answer_of(net, state, replaced(query, slice(1, 2), random_steps(2, 4, seed=3)), position)
    others = [0, 2, 3]
    torch.testing.assert_close(after[:, others], before[:, others])
    # It is asked about something else; the paper's actor alone is asked about nothing by name.
    asks = cls is Critic or config.learned_imr
    assert ((after[:, 1] - before[:, 1]).abs().max() > 1e-6) == asks


@every_body
@torch.no_grad()
def test_padding_changes_no_answer(cls: type[Actor] | type[Critic], config: AgentConfig) -> None:
    net = make(cls, config)
    short, query = random_steps(2, 3, seed=1), random_steps(2, 4, seed=2)
    padded = Steps(*(torch.cat([a, b[:, 3:]], dim=1) for a, b in zip(short, random_steps(2, 7), strict=True)))
    position = torch.arange(4)
    torch.testing.assert_close(
        answer_of(net, padded, query, position), answer_of(net, short, query, position)
    )


@every_body
@torch.no_grad()
def test_a_state_may_be_empty(cls: type[Actor] | type[Critic], config: AgentConfig) -> None:
    net = make(cls, config)
    query = random_steps(1, 2)
    empty = answer_of(net, random_steps(1, 0), query, torch.zeros(2, dtype=torch.long))
    some = answer_of(net, random_steps(1, 3), query, torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(empty, some)  # at position 0 nothing is seen


@every_body
@torch.no_grad()
def test_a_place_in_the_sequence_matters(cls: type[Actor] | type[Critic], config: AgentConfig) -> None:
    """The same two steps in another order are another state; and so is another depth."""
    net, query = make(cls, config), random_steps(1, 1)
    state = random_steps(1, 2, seed=1)
    turned = Steps(*(tensor.flip(1) for tensor in state))
    first, third = torch.tensor([0]), torch.tensor([2])
    assert (answer_of(net, state, query, third) - answer_of(net, turned, query, third)).abs().max() > 1e-6
    nothing = random_steps(1, 0)
    assert (answer_of(net, nothing, query, third) - answer_of(net, nothing, query, first)).abs().max() > 1e-6


@every_config
@torch.no_grad()
def test_what_a_critic_is_asked_about_is_not_measured_yet(config: AgentConfig) -> None:
    critic = make(Critic, config)
    state, query = random_steps(1, 3), random_steps(1, 3, seed=1)
    position = torch.arange(3)
    answer = critic(state, query, position)
    torch.testing.assert_close(critic(state, query.unmeasured(), position), answer)
    other = query._replace(actions=(query.actions + 0.3).clamp(max=1) * query.filled)
    assert (critic(state, other, position) - answer).abs().max() > 1e-6


@torch.no_grad()
def test_what_an_actor_sees_of_its_query_is_the_first_name() -> None:
    actor = make(Actor, AgentConfig())
    state, query = random_steps(1, 3), random_steps(1, 3, seed=1)
    position = torch.arange(3)
    answer = answer_of(actor, state, query, position)
    other = random_steps(1, 3, seed=2)
    names = torch.cat([query.names[:, :, :1], other.names[:, :, 1:]], dim=2)
    torch.testing.assert_close(answer_of(actor, state, other._replace(names=names), position), answer)
    names = torch.cat([other.names[:, :, :1], query.names[:, :, 1:]], dim=2)
    assert (answer_of(actor, state, query._replace(names=names), position) - answer).abs().max() > 1e-6


@every_config
@torch.no_grad()
def test_empty_slots_are_masked(config: AgentConfig) -> None:
    """What stands in a slot that is not filled changes nothing."""
    critic = make(Critic, config)
    state, query = random_steps(2, 4), random_steps(2, 4, seed=1)
    assert (state.filled == 0).any()
    position = torch.arange(4)
    noisy = state._replace(actions=state.actions + 0.7 * (1 - state.filled))
    torch.testing.assert_close(critic(noisy, query, position), critic(state, query, position))


@every_body
@torch.no_grad()
def test_weights_of_objectives_are_seen(cls: type[Actor] | type[Critic], config: AgentConfig) -> None:
    net = make(cls, config, K=2)
    state, query = random_steps(1, 2, K=2), random_steps(1, 1, K=2)
    position = torch.tensor([2])
    turned = query._replace(weights=1 - query.weights)
    assert (
        answer_of(net, state, query, position) - answer_of(net, state, turned, position)
    ).abs().max() > 1e-6


# Answers and parameters -------------------------------------------------------------------------------


def last_layer(critic: Critic) -> nn.Linear:
    assert isinstance(critic.head, nn.Sequential)
    last = critic.head[-1]
    assert isinstance(last, nn.Linear)
    return last


@every_config
@torch.no_grad()
def test_ranges(config: AgentConfig) -> None:
    state, query = random_steps(2, 3), random_steps(2, 6, seed=1)
    position = torch.tensor([0, 1, 2, 3, 3, 3])
    action = make(Actor, config)(state, query, position).actions
    value = make(Critic, config)(state, query, position)
    assert action.shape == (2, 6, A) and ((0 < action) & (action < 1)).all()
    assert value.shape == (2, 6, config.n_critics) and (value.abs() < 1).all()
    critic = make(Critic, config)
    last_layer(critic).bias.add_(5)
    assert ((0.9 < critic(state, query, position)) & (critic(state, query, position) <= 1)).all()


def test_what_is_frozen() -> None:
    frozen = {
        name.split(".")[0]
        for name, p in make(Critic, CONFIGS["paper"]).named_parameters()
        if not p.requires_grad
    }
    assert frozen == {"imr"}
    frozen = {
        name.split(".")[0]
        for name, p in make(Critic, CONFIGS["default"]).named_parameters()
        if not p.requires_grad
    }
    assert frozen == {"prior"}
    assert all(p.requires_grad for p in make(Actor, CONFIGS["default"]).parameters())


@torch.no_grad()
def test_the_papers_imr_by_hand() -> None:
    """tanh(W1 action + W2 performance), 64 numbers, without a bias and without names."""
    imr = make(Actor, CONFIGS["paper"]).imr
    assert isinstance(imr, FrozenIMR)
    steps = random_steps(1, 1)
    steps = steps._replace(kinds=torch.eye(MOST_KINDS)[2].view(1, 1, -1))
    action = torch.cat([(2 * steps.actions[0, 0] - 1) * steps.filled[0, 0], steps.kinds[0, 0]])
    performance = 2 * steps.performance[0, 0] - 1
    W = imr.linear.weight
    assert W.shape == (64, 44) and "bias" not in dict(imr.linear.named_parameters())
    torch.testing.assert_close(imr(steps)[0, 0], torch.tanh(W[:, :12] @ action + W[:, 12:] @ performance))
    unknown = steps.unmeasured()
    torch.testing.assert_close(imr(unknown)[0, 0], torch.tanh(W[:, :12] @ action))
    torch.testing.assert_close(imr(steps._replace(names=steps.names + 1)), imr(steps))


@torch.no_grad()
def test_the_learned_imr_tells_apart_what_the_papers_does_not() -> None:
    """Names; empty slots and zeros, or nothing measured and a measured 0, differ for both."""
    steps = random_steps(1, 1)
    zero = steps._replace(
        actions=torch.zeros(1, 1, A), performance=torch.zeros(1, 1, P), filled=torch.ones(1, 1, A)
    )
    alternatives = [
        zero._replace(names=zero.names + 1),
        zero._replace(filled=torch.zeros(1, 1, A)),
        zero.unmeasured(),
    ]
    for name, differs in [("default", [True, True, True]), ("paper", [False, True, True])]:
        imr = make(Actor, CONFIGS[name]).imr
        assert [bool((imr(other) - imr(zero)).abs().max() > 1e-4) for other in alternatives] == differs


# Kinds ------------------------------------------------------------------------------------------------


def with_kinds(steps: Steps, *allowed: int) -> Steps:
    mask = torch.zeros_like(steps.allowed)
    mask[..., list(allowed)] = 1
    return steps._replace(allowed=mask)


@every_config
@torch.no_grad()
def test_a_kind_is_one_of_those_that_are_allowed(config: AgentConfig) -> None:
    actor, state, position = make(Actor, config), random_steps(2, 3), torch.arange(4)
    query = with_kinds(random_steps(2, 4, seed=1), 1, 4)
    generator = torch.Generator().manual_seed(0)
    chosen = set()
    for _ in range(20):
        gumbel = -torch.log(-torch.log(torch.rand(2, 4, MOST_KINDS, generator=generator)))
        kinds = actor(state, query, position, Noise(gumbel, torch.zeros(2, 4, A))).kinds
        assert kinds.sum(dim=-1).allclose(torch.ones(2, 4)) and ((kinds - kinds.round()).abs() < 1e-6).all()
        chosen |= set(kinds.argmax(dim=-1).flatten().tolist())
    assert chosen == {1, 4}
    only = actor(state, with_kinds(query, 6), position).kinds
    assert (only.argmax(dim=-1) == 6).all()
    assert not actor(state, random_steps(2, 4, seed=1), position).kinds.any()  # the first slot is a number


@every_config
def test_the_gradient_of_a_kind_reaches_all_that_are_allowed(config: AgentConfig) -> None:
    """That of the softmax: a kind that was not chosen is learned about, too."""
    actor, state, position = make(Actor, config), random_steps(1, 1), torch.tensor([1])
    kinds = actor(state, with_kinds(random_steps(1, 1, seed=1), 0, 1, 2), position).kinds
    kinds[0, 0, 2].backward()
    gradient = actor.kind.bias.grad
    assert gradient is not None and gradient[2] > 0 > gradient[0] and not gradient[3:].any()


@torch.no_grad()
def test_every_kind_has_hyperparameters_of_its_own() -> None:
    actor, state, position = make(Actor, CONFIGS["paper"]), random_steps(1, 2), torch.tensor([2])
    actor.of_kind.bias.view(MOST_KINDS, A)[1, 2] = 5.0
    query = random_steps(1, 1, seed=1)
    filters, neurons = (actor(state, with_kinds(query, kind), position).actions[0, 0] for kind in (0, 1))
    assert filters[2] < 0.6 and neurons[2] > 0.9 and abs(filters[1] - neurons[1]) < 0.1


def test_ensemble_members_differ_by_their_priors() -> None:
    state, query = random_steps(1, 2), random_steps(1, 64, seed=1)
    position = torch.full((64,), 2)

    def spread(scale: float) -> float:
        critic = make(Critic, AgentConfig(n_candidates=0, prior_scale=scale))
        torch.nn.init.zeros_(last_layer(critic).weight)  # what is learned says nothing yet
        torch.nn.init.zeros_(last_layer(critic).bias)
        with torch.no_grad():
            return critic(state, query, position).std(dim=-1).mean().item()

    assert spread(0.0) == 0
    assert 0.01 < spread(0.5) < spread(1.0)


def test_the_size_of_the_papers_actor() -> None:
    """As docs/algorithm.md states it: weights that are learned and not, and operations after six layers."""
    actor = make(Actor, CONFIGS["paper"])
    learned, fixed = (
        sum(p.numel() for p in actor.parameters() if p.requires_grad == wanted) for wanted in (True, False)
    )
    assert (learned, fixed) == (103_020, 2_816)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        actor(random_steps(1, 6), random_steps(1, 1), torch.tensor([6]))
    assert round(counter.get_total_flops() / 1e6, 2) == 1.45
