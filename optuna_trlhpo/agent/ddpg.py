"""Deep deterministic policy gradient over sequences (Lillicrap et al., 2015; section IV of the paper).

Notation as in `transformer`. The steps of an update are, in this order: targets, critic, actor, target
networks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from optuna_trlhpo._threads import cpu_threads, making_modules
from optuna_trlhpo.agent.actor import Actor, Noise
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.critic import Critic
from optuna_trlhpo.agent.tokens import Steps

_MOST_SIZE = 10_000
"""Largest number of slots, performance values and objectives of networks that are restored."""


class Batch(NamedTuple):
    """Batch for one update.

    ``learned`` is 1 at the steps to be learned, ``mask`` ``[B, M]`` at a member's own episodes.
    """

    steps: Steps
    learned: Tensor  # [B, S]
    mask: Tensor  # [B, M]
    returns: Tensor  # [B, S] in [-1, 1], the value to learn; used without bootstrapping
    rewards: Tensor  # [B, S] in [-1, 1]; used with bootstrapping
    done: Tensor  # [B, S] 1 at the last step of an episode; used with bootstrapping
    noise: Noise  # of the actor


class Losses(NamedTuple):
    """Losses of one update."""

    critic: float
    actor: float | None
    """Loss of the actor; None where the update did not train it."""


class Insight(NamedTuple):
    """Values and attention weights of actor and critic for an episode of S steps.

    Row k of the attention, k = 1 to S, is ``[H, k + 1]``: the weights of the first k steps, then that of the
    query itself. H counts the heads of all blocks, one block after the other.
    """

    values: np.ndarray  # [S, M] prediction of each member for each step, given those before it
    actor: list[np.ndarray]
    critic: list[np.ndarray]


class DDPG:
    """Actor and critic with their training.

    Args:
        config: Settings of the agent.
        n_slots: A, number of slots of an action.
        n_performance: P, number of values that describe a performance.
        n_weights: K with several objectives, else 0.
        seed: Random seed of the initial weights.
    """

    def __init__(
        self, config: AgentConfig, *, n_slots: int, n_performance: int, n_weights: int, seed: int
    ) -> None:
        self.config = config
        self._arguments = dict(n_slots=n_slots, n_performance=n_performance, n_weights=n_weights, seed=seed)
        with making_modules(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed every GPU
            self.actor = Actor(config, n_slots=n_slots, n_performance=n_performance, n_weights=n_weights)
            self.critic = Critic(config, n_slots=n_slots, n_performance=n_performance, n_weights=n_weights)
        if not config.learned_imr:
            self.actor.imr.load_state_dict(self.critic.imr.state_dict())  # one fixed network, as in the paper
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self._actor_optimizer = _adam(self.actor, config.actor_learning_rate)
        self._critic_optimizer = _adam(self.critic, config.critic_learning_rate)
        self._n_updates = 0

    @cpu_threads(1)
    @torch.inference_mode()
    def act(self, state: Steps, query: Steps, noise: Noise | None = None) -> tuple[Tensor, int]:
        """Action ``[A]`` in [0, 1] of the actor after ``state`` ``[1, S]``, and the number of the kind.

        Args:
            state: Steps so far.
            query: ``[1, 1]`` names the parameter that is asked for, and the kinds that are allowed.
            noise: Noise on the action; None: the action that the actor prefers.
        """
        action = self.actor(state, query, self._behind(state, 1), noise)
        return action.actions[0, 0], int(action.kinds[0, 0].argmax())

    @cpu_threads(1)
    @torch.inference_mode()
    def explain(self, steps: Steps) -> Insight:
        """Values of the critic, and attention weights of actor and critic, at each of ``steps`` ``[1, S]``.

        The last row of the attention belongs to the step that would come next; there the critic is given the
        actor's action.
        """
        S = steps.actions.shape[1]
        position = torch.arange(S + 1)
        query = Steps(*(torch.cat([x, x.new_zeros(len(x), 1, *x.shape[2:])], dim=1) for x in steps))
        if steps.weights.shape[-1]:
            query.weights[:, -1] = query.weights[:, 0]
        if S:
            query.allowed[:, -1] = query.allowed[:, -2]
        action, of_actor = self.actor.explain(steps, query, position)
        query.actions[:, -1], query.kinds[:, -1] = action.actions[:, -1], action.kinds[:, -1]
        query.filled[:, -1], query.filled[:, -1, 0] = 1, 1 - query.allowed[:, -1].amax(dim=-1)
        values, of_critic = self.critic.explain(steps, query, position)
        return Insight(values[0, :S].double().numpy(), _rows(of_actor, S), _rows(of_critic, S))

    @cpu_threads(1)
    def update(self, batch: Batch) -> Losses:
        """Learn once from ``batch``; only the networks of this object are evaluated and trained."""
        position = torch.arange(batch.learned.shape[1])
        targets = self.bootstrapped(batch, position) if self.config.progressive_reward else batch.returns

        values = self.critic(batch.steps, batch.steps, position)  # [B, S, M]
        weight = batch.learned.unsqueeze(-1) * batch.mask.unsqueeze(1)
        errors = (values - targets.unsqueeze(-1)).square()
        critic_loss = (weight * errors).sum() / weight.sum().clamp(min=1)
        _descend(self._critic_optimizer, critic_loss)

        actor_loss = None
        if self._n_updates % self.config.actor_interval == 0:
            action = self.actor(batch.steps, batch.steps, position, batch.noise)
            query = batch.steps._replace(**action._asdict())
            values = self.critic(batch.steps, query, position).mean(dim=-1)  # [B, S]
            actor_loss = -(batch.learned * values).sum() / batch.learned.sum()
            _descend(self._actor_optimizer, actor_loss)

        if self.config.progressive_reward:
            _follow(self.target_critic, self.critic, self.config.tau)
            _follow(self.target_actor, self.actor, self.config.tau)
        self._n_updates += 1
        return Losses(critic_loss.item(), None if actor_loss is None else actor_loss.item())

    @torch.no_grad()
    def bootstrapped(self, batch: Batch, position: Tensor) -> Tensor:
        """Targets ``[B, S]``: y = r + gamma Q'(s', mu'(s')), and r alone at the end of an episode."""
        action = self.target_actor(batch.steps, batch.steps, position)
        query = batch.steps._replace(**action._asdict())
        values = self.target_critic(batch.steps, query, position).mean(dim=-1)  # [B, S] of each state
        of_next = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
        return (batch.rewards + self.config.gamma * (1 - batch.done) * of_next).clamp(-1, 1)

    def __reduce__(self) -> tuple[Any, ...]:  # weights as safetensors: reading them executes no code
        return DDPG.restored, (self.config, self._arguments, self._n_updates, save(self._tensors()))

    @classmethod
    def restored(
        cls, config: AgentConfig, arguments: Mapping[str, int], n_updates: int, weights: bytes
    ) -> DDPG:
        """Actor and critic as they were after ``n_updates``.

        Args:
            config: Settings of the agent.
            arguments: The other arguments of the class.
            n_updates: Number of updates.
            weights: Weights, and the state of the optimisers, in the format of safetensors.

        Raises:
            ValueError: If they are not those of such networks.
        """
        sizes = [arguments[name] for name in ("n_slots", "n_performance", "n_weights")]
        if not all(0 <= size <= _MOST_SIZE for size in sizes):
            raise ValueError(f"the sizes of the networks are {sizes}; they must be at most {_MOST_SIZE}")
        ddpg = cls(config, **arguments)
        ddpg.restore(n_updates, weights)
        return ddpg

    def restore(self, n_updates: int, weights: bytes) -> None:
        """Set the weights, and the state of the optimisers, as they were after ``n_updates``."""
        self._n_updates = n_updates
        stored = load(weights)
        for name in ("actor", "critic", "target_actor", "target_critic"):
            getattr(self, name).load_state_dict(_under(name, stored))
        for name, optimizer in (("actor", self._actor_optimizer), ("critic", self._critic_optimizer)):
            of_parameters: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _under(f"{name}_optimizer", stored).items():
                number, field = key.split(".")
                of_parameters.setdefault(int(number), {})[field] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": of_parameters})

    def _tensors(self) -> dict[str, Tensor]:
        """All that an update changes, by name."""
        tensors: dict[str, Tensor] = {}
        for name in ("actor", "critic", "target_actor", "target_critic"):
            of_network = getattr(self, name).state_dict()
            tensors |= {f"{name}.{key}": tensor for key, tensor in of_network.items()}
        for name, optimizer in (("actor", self._actor_optimizer), ("critic", self._critic_optimizer)):
            for k, of_parameter in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}_optimizer.{k}.{key}": value for key, value in of_parameter.items()}
        return tensors

    @staticmethod
    def _behind(state: Steps, n: int) -> Tensor:
        return torch.full((n,), state.actions.shape[1])


def _under(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names begin with ``name`` and a point, under the rest of their names."""
    start = name + "."
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}


def _rows(weights: list[Tensor], S: int) -> list[np.ndarray]:
    """Rows 1 to S as in `Insight`, from the attention weights ``[1, H, 2 S + 1, 2 S + 1]`` of each block.

    The query at position k is token S + k.
    """
    heads = torch.cat([block[0] for block in weights]).double()  # [blocks * H, T, T]
    return [
        torch.cat([heads[:, S + k, :k], heads[:, S + k, S + k, None]], dim=1).numpy() for k in range(1, S + 1)
    ]


def _adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=learning_rate, fused=True)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step on this optimizer's parameters; other parameters in the loss get no gradient."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
    ):
        parameter.grad = gradient
    optimizer.step()


def _follow(target: nn.Module, online: nn.Module, tau: float) -> None:
    with torch.no_grad():
        for t, o in zip(target.parameters(), online.parameters(), strict=True):
            t.lerp_(o, tau)
