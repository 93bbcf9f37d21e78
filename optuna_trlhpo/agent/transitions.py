"""Steps of trials as the tensors that actor and critic read and learn from.

Notation: B trials, S steps, A action slots, K kinds of a step, P performance values, O objectives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from optuna_trlhpo.agent.ddpg import Batch
from optuna_trlhpo.agent.replay import Replay
from optuna_trlhpo.agent.step_encoding import allowed_kinds, as_tensor, in_bins, kinds_of, make_noise
from optuna_trlhpo.agent.tokens import MOST_KINDS, Steps
from optuna_trlhpo.layers import ACTION_SLOTS
from optuna_trlhpo.layers.bins import bin_of
from optuna_trlhpo.trials.episode import Episode
from optuna_trlhpo.trials.parameters import ParameterSpec
from optuna_trlhpo.trials.performance import PERFORMANCE_VALUES
from optuna_trlhpo.trials.rewards import rewards_of

_BATCH_STEPS = 256
"""Largest number of steps in a batch: with long trials a batch has fewer trials, for the same run time."""


class Transitions:
    """States, queries and batches, on the scales of a `Replay`: acting and learning always use the same.

    Args:
        replay: Memory of finished trials.
    """

    def __init__(self, replay: Replay) -> None:
        self._config, self._replay = replay.config, replay

    def state(self, episode: Episode, weights: np.ndarray) -> Steps:
        """Steps of a running trial, ``[1, S]``; ``weights`` ``[O]`` are its weights of the objectives."""
        names = self._state_names(episode)
        reports = self._replay.signed(episode.reports)
        n_values = np.array([[slot.n_values for slot in slots[:1]] for slots in episode.slots]).reshape(-1, 1)
        allowed = np.array([allowed_kinds(slots) for slots in episode.slots]).reshape(-1, MOST_KINDS)
        return self._steps(
            episode.actions[None],
            names[None],
            n_values[None],
            allowed[None],
            reports[None],
            episode.performance[None],
            weights[None],
        )

    def query(self, slots: Sequence[ParameterSpec], actions: np.ndarray, weights: np.ndarray) -> Steps:
        """Query ``[1, 1]`` to the actor for the step with these parameters.

        Args:
            slots: Parameters of the step that the trial has asked for.
            actions: Those of the first of them, which are settled.
            weights: ``[O]`` the trial's weights of the objectives.
        """
        names = np.full((1, 1, ACTION_SLOTS), -1, dtype=np.int64)
        names[0, 0, 0] = self._replay.names.number(slots[0])
        allowed = allowed_kinds(slots)
        if len(actions) and allowed.any():
            allowed = np.eye(MOST_KINDS)[bin_of(actions[0], slots[0].n_values)]
        nothing = np.full((1, 1), np.nan)
        performance = np.full((1, 1, PERFORMANCE_VALUES), np.nan)
        empty = np.full((1, 1, ACTION_SLOTS), np.nan)
        n_values = np.zeros((1, 1, 1), dtype=np.int64)
        return self._steps(empty, names, n_values, allowed[None, None], nothing, performance, weights[None])

    def batch(self, rng: np.random.Generator) -> Batch:
        """Batch for one update of the agent."""
        replay, n = self._replay, self._config.batch_size
        if not self._config.progressive_reward:
            n = min(n, max(_BATCH_STEPS // replay.longest, 1))
        rows = replay.sample(rng, n)
        B, S = rows["reports"].shape
        step = np.arange(S)[None, :]
        weights = replay.draw_weights(rng, B)
        learned = step < rows["length"][:, None]
        if self._config.progressive_reward:  # single transitions, as in the paper
            learned = step == np.floor(rng.random(B) * rows["length"]).astype(np.int64)[:, None]
            rewards = rewards_of(replay.unit_outcomes(rows["outcomes"], weights), replay.first_outcome)
            returns = np.zeros((B, S))
        else:
            rewards, returns = np.zeros((B, S)), replay.scores_of(rows["outcomes"], weights)
        return Batch(
            steps=self._steps(
                rows["actions"],
                rows["names"],
                rows["n_values"],
                rows["allowed"],
                rows["reports"],
                rows["performance"],
                weights,
            ),
            learned=as_tensor(learned),
            mask=as_tensor(rows["mask"][:, 0]),
            returns=as_tensor(np.nan_to_num(returns)),
            rewards=as_tensor(rewards),
            done=as_tensor(step == rows["length"][:, None] - 1),
            noise=make_noise(rng, B, S),
        )

    def _state_names(self, episode: Episode) -> np.ndarray:
        names = [self._replay.names.numbers(slots) for slots in episode.slots]
        return np.array(names, dtype=np.int64).reshape(-1, ACTION_SLOTS)

    def _steps(
        self,
        actions: np.ndarray,
        names: np.ndarray,
        n_values: np.ndarray,
        allowed: np.ndarray,
        reports: np.ndarray,
        performance: np.ndarray,
        weights: np.ndarray,
    ) -> Steps:
        described, measured = self._describe(reports, performance)
        B, S = reports.shape
        filled = ~np.isnan(actions)
        kinds, has_kinds = kinds_of(actions[..., 0], n_values[..., 0], allowed), allowed.any(axis=-1)
        filled[has_kinds, 0] = False
        return Steps(
            actions=as_tensor(np.nan_to_num(actions) * filled),
            filled=as_tensor(filled),
            names=self._replay.names.codes[torch.from_numpy(names)],
            performance=as_tensor(described),
            measured=as_tensor(measured),
            weights=as_tensor(np.broadcast_to(weights[:, None, :], (B, S, weights.shape[-1]))),
            kinds=as_tensor(kinds),
            allowed=as_tensor(allowed),
        )

    def _describe(self, reports: np.ndarray, performance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Performances ``[B, S, P]`` as the agent reads them, and whether each is known ``[B, S]``."""
        measured = ~np.isnan(reports)
        if self._config.progressive_reward:
            # The paper's performance: accuracies on 32 batches, or without these, the report 32 times.
            alone = self._replay.unit(reports)[..., None]
            values = np.where(np.isnan(performance), alone, performance)
        else:
            # The rank of a report among those at the same step.
            values = in_bins(self._replay.rank_reports(reports))
        return np.where(measured[..., None], np.nan_to_num(values), 0), measured
