"""What the agent remembers of finished trials, and how it is turned into its tensors.

Episodes are kept as they were (actions, reports, worths). Ranks are taken when they are read, against all
that is known by then, so that what is acted upon and what is learned from always stand on the same scale.

Notation: B trials, S steps, A action slots, P performance values, K objectives, M members of the critic.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from optuna.study import StudyDirection
from torch import Tensor

from optuna_trlhpo._agent.config import AgentConfig
from optuna_trlhpo._agent.ddpg import Batch
from optuna_trlhpo._agent.proposals import Memory
from optuna_trlhpo._agent.replay import Replay
from optuna_trlhpo._agent.transformer import NAME_CODE, Steps
from optuna_trlhpo.episode import PERFORMANCE_VALUES, Episode, Slot
from optuna_trlhpo.layers import ACTION_SLOTS
from optuna_trlhpo.reward import Scale, normal_scores, returns_of, rewards_of, scalarise, signs_of

_MEMBER_SHARE = 0.7
"""The share of the trials that each member of the critic learns from, so that they differ (bootstrap)."""
_BATCH_STEPS = 256
"""Steps in a batch at most: where trials are long a batch has fewer, so that learning takes no longer."""
_RECALLED, _ELITES = 256, 32
"""Trials looked through for proposals: so many at random, and so many of the best."""

_RANK_BINS = (4, 8, 20)
assert sum(_RANK_BINS) == PERFORMANCE_VALUES
_RANK_CENTRES = np.concatenate([(np.arange(n) + 0.5) / n for n in _RANK_BINS])
_RANK_WIDTHS = np.concatenate([np.full(n, 1.0 / n) for n in _RANK_BINS])


class Experience:
    """Remembers episodes; gives states, batches and memories of steps.

    Args:
        config: The agent's settings.
        directions: Of the study's K objectives.
        seed: Of what is drawn per trial.
    """

    def __init__(self, config: AgentConfig, directions: Sequence[StudyDirection], seed: int) -> None:
        self._config = config
        self._seed = seed
        self._signs = signs_of(directions)
        self.n_weights = len(directions) if len(directions) > 1 else 0
        self._outcomes = [Scale() for _ in directions]
        self._reports: list[Scale] = []  # by step
        self._numbers: dict[tuple[str, bool], int] = {}  # stem, and whether it is categorical -> its number
        self._known: Counter[tuple[int, int]] = Counter()  # place of a step, name -> in how many steps
        self._codes = torch.zeros(1, NAME_CODE)  # by number; the last row is that of no name
        self._categorical = np.zeros(1, dtype=bool)
        filling = dict(
            actions=np.nan,
            names=-1,
            n_values=0,
            reports=np.nan,
            performance=np.nan,
            worths=np.nan,
            mask=0.0,
            outcome=np.nan,
        )
        self._n_added = 0
        self._finished: set[bytes] = set()  # what was tried, as `_key` writes it
        self._elites_of: tuple[tuple[float, ...], np.ndarray] = ((), np.empty(0, dtype=np.int64))
        self._replay = Replay(capacity=config.replay_capacity, filling=filling)

    def __len__(self) -> int:
        return len(self._replay)

    def add(self, number: int, episode: Episode, worths: np.ndarray) -> None:
        """Remember the finished trial ``number``; ``worths`` ``[S, K]`` as `reward.worths_of` gives them."""
        names = np.full((len(episode), ACTION_SLOTS), -1, dtype=np.int64)
        n_values = np.zeros_like(names)
        for k, slots in enumerate(episode.slots):
            names[k, : len(slots)] = [self._learn_name(slot) for slot in slots]
            n_values[k, : len(slots)] = [slot.n_values for slot in slots]
        best = np.fmax.reduce(worths, axis=0)
        for scale, worth in zip(self._outcomes, best, strict=True):
            scale.add(worth)
        reports = self._signs[0] * episode.reports
        for k, report in enumerate(reports):
            if k == len(self._reports):
                self._reports.append(Scale())
            if not np.isnan(report):
                self._reports[k].add(report)
        rng = np.random.default_rng((self._seed, number))
        mask = rng.random(self._config.n_critics) < _MEMBER_SHARE
        mask[rng.integers(len(mask))] = True  # every trial teaches somebody
        self._known.update(_places(names))
        if self._n_added >= self._config.replay_capacity:  # this one's row is the oldest one's
            row = np.array([self._n_added % self._config.replay_capacity])
            self._known.subtract(_places(self._replay.rows(row, "names")["names"][0]))
        self._n_added += 1
        self._finished.add(_key(names, episode.actions))
        self._replay.add(
            dict(
                actions=episode.actions.astype(np.float32),
                names=names,
                n_values=n_values,
                reports=reports,
                performance=episode.performance.astype(np.float32),
                worths=worths,
                mask=np.tile(mask.astype(np.float32), (len(episode), 1)),
                outcome=np.tile(best, (len(episode), 1)),
            )
        )

    # Names --------------------------------------------------------------------------------------------

    def knows(self, slots: Sequence[Slot]) -> bool:
        """Whether the last of ``slots`` is in a remembered trial, at that place of a step."""
        place, number = len(slots) - 1, self._numbers.get(_name_of(slots[-1]), -1)
        return self._known[place, number] > 0

    def numbers_of(self, slots: Sequence[Slot]) -> np.ndarray:
        """``[A]`` the numbers of the slots' names, -1 where there is none."""
        numbers = [self._numbers.get(_name_of(slot), -1) for slot in slots]
        return np.array(numbers + [-1] * (ACTION_SLOTS - len(numbers)), dtype=np.int64)

    @property
    def categorical(self) -> np.ndarray:
        """Whether a name's values have no order, by its number."""
        return self._categorical

    def _learn_name(self, slot: Slot) -> int:
        name = _name_of(slot)
        if name not in self._numbers:
            # A name's code depends on nothing but itself: the same in every study and process.
            code = np.random.default_rng(zlib.crc32(slot.stem.encode())).standard_normal(NAME_CODE)
            self._numbers[name] = len(self._numbers)
            self._codes = torch.cat([self._codes[:-1], torch.tensor(code).float()[None], self._codes[-1:]])
            self._categorical = np.append(self._categorical[:-1], [slot.categorical, False])
        return self._numbers[name]

    # Tensors ------------------------------------------------------------------------------------------

    def state(self, episode: Episode, weights: np.ndarray) -> Steps:
        """The steps of a running trial, ``[1, S]``; ``weights`` ``[K]`` is what it weighs its objectives
        by."""
        names = self._state_names(episode)
        reports = self._signs[0] * episode.reports
        return self._steps(
            episode.actions[None], names[None], reports[None], episode.performance[None], weights[None]
        )

    def candidates(self, actions: np.ndarray, names: np.ndarray, weights: np.ndarray) -> Steps:
        """Actions ``[C, A]`` as queries ``[1, C]``."""
        reports = np.full((1, len(actions)), np.nan)
        performance = np.full((1, len(actions), PERFORMANCE_VALUES), np.nan)
        return self._steps(actions[None], names[None], reports, performance, weights[None])

    def batch(self, rng: np.random.Generator) -> Batch:
        """What one update of the agent learns from."""
        n = self._config.batch_size
        if not self._config.progressive_reward:
            n = min(n, max(_BATCH_STEPS // len(self._reports), 1))
        rows = self._replay.rows(self._replay.sample(rng, n))
        B, S = rows["reports"].shape
        step = np.arange(S)[None, :]
        weights = self.draw_weights(rng, B)
        learned = step < rows["length"][:, None]
        if self._config.progressive_reward:  # single transitions, as published
            learned = step == np.floor(rng.random(B) * rows["length"]).astype(np.int64)[:, None]
            rewards, returns = rewards_of(self._unit_worths(rows["worths"], weights)), np.zeros((B, S))
        else:
            rewards, returns = np.zeros((B, S)), self._scores(rows["worths"], weights)
        return Batch(
            steps=self._steps(rows["actions"], rows["names"], rows["reports"], rows["performance"], weights),
            learned=_tensor(learned),
            mask=_tensor(rows["mask"][:, 0]),
            returns=_tensor(np.nan_to_num(returns)),
            rewards=_tensor(rewards),
            done=_tensor(step == rows["length"][:, None] - 1),
        )

    def memory(self, rng: np.random.Generator, slot: int, name: Slot, weights: np.ndarray) -> Memory:
        """Remembered steps whose slot number ``slot`` is called ``name``, with what became of them."""
        some = np.union1d(self._replay.sample(rng, _RECALLED), self._elites(weights))
        for chosen in (some, np.arange(len(self._replay))):  # all of them only for a name that is rare
            rows = self._replay.rows(chosen, "actions", "names", "n_values", "worths")
            found = rows["names"][:, :, slot] == self._numbers[_name_of(name)]
            if found.any():
                break
        values = self._scores(rows["worths"], weights[None])
        return Memory(
            rows["actions"][found].astype(np.float64),
            rows["names"][found],
            rows["n_values"][found],
            values[found],
        )

    def _state_names(self, episode: Episode) -> np.ndarray:
        names = [self.numbers_of(slots) for slots in episode.slots]
        return np.array(names, dtype=np.int64).reshape(-1, ACTION_SLOTS)

    def _elites(self, weights: np.ndarray) -> np.ndarray:
        """Row numbers of the best trials. Ranking all of them is done once a trial, not at every step."""
        key = (self._n_added, *weights)
        if self._elites_of[0] != key:
            outcomes = self._replay.rows(np.arange(len(self._replay)), "outcome")["outcome"][:, :1]
            scores = self._scores(outcomes, weights[None])[:, 0]
            self._elites_of = key, np.argpartition(-scores, min(_ELITES, len(scores)) - 1)[:_ELITES]
        return self._elites_of[1]

    def repeats(self, episode: Episode, actions: np.ndarray, names: np.ndarray) -> np.ndarray:
        """``[C]`` whether ``episode``, with each of the steps ``[C, A]`` behind it, is a finished trial."""
        before = _key(self._state_names(episode), episode.actions)
        keys = (before + _key(n, a) for n, a in zip(names, actions, strict=True))
        return np.array([key in self._finished for key in keys])

    def draw_weights(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """``[n, K]`` weights of the objectives, or ``[n, 0]`` where there is one alone."""
        if self.n_weights == 0:
            return np.zeros((n, 0))
        return rng.dirichlet(np.ones(self.n_weights), size=n) + 1e-3

    def _steps(
        self,
        actions: np.ndarray,
        names: np.ndarray,
        reports: np.ndarray,
        performance: np.ndarray,
        weights: np.ndarray,
    ) -> Steps:
        described, measured = self._describe(reports, performance)
        B, S = reports.shape
        filled = ~np.isnan(actions)
        return Steps(
            actions=_tensor(np.nan_to_num(actions)),
            filled=_tensor(filled),
            names=self._codes[torch.from_numpy(names)],
            performance=_tensor(described),
            measured=_tensor(measured),
            weights=_tensor(np.broadcast_to(weights[:, None, :], (B, S, weights.shape[-1]))),
        )

    def _describe(self, reports: np.ndarray, performance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Performances ``[B, S, P]`` as the agent sees them, and where there are any, ``[B, S]``."""
        measured = ~np.isnan(reports)
        if self._config.progressive_reward:
            # The paper's: accuracies on 32 batches, or where these were not given, what was reported, 32
            # times.
            alone = self._outcomes[0].unit(reports)[..., None]
            values = np.where(np.isnan(performance), alone, performance)
        else:
            # A report's rank among those at the same step, told apart by overlapping bins, coarse and fine.
            ranks = np.full(reports.shape, np.nan)
            for k, scale in enumerate(self._reports[: reports.shape[1]]):
                ranks[:, k] = scale.rank(reports[:, k])
            values = np.maximum(1 - np.abs(ranks[..., None] - _RANK_CENTRES) / _RANK_WIDTHS, 0)
        return np.where(measured[..., None], np.nan_to_num(values), 0), measured

    def _ranks(self, worths: np.ndarray) -> np.ndarray:
        return np.stack([scale.rank(worths[..., i]) for i, scale in enumerate(self._outcomes)], axis=-1)

    def _scores(self, worths: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Returns ``[B, S]`` of worths ``[B, S, K]`` in [-1, 1]."""
        return normal_scores(scalarise(self._ranks(returns_of(worths)), weights[:, None, :]))

    def _unit_worths(self, worths: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Worths ``[B, S]`` of worths ``[B, S, K]`` in [0, 1]: accuracies as they are, all else by rank."""
        if self.n_weights:
            return scalarise(self._ranks(worths), weights[:, None, :])
        return self._outcomes[0].unit(worths[..., 0])


def _places(names: np.ndarray) -> list[tuple[int, int]]:
    """Where the names ``[S, A]`` stand: place in its step, and number, of each."""
    return [(place, number) for step in names.tolist() for place, number in enumerate(step) if number >= 0]


def _name_of(slot: Slot) -> tuple[str, bool]:
    return slot.stem, slot.categorical


def _key(names: np.ndarray, actions: np.ndarray) -> bytes:
    """Steps ``[S, A]`` as a short text, one after the other; the same for the same steps."""
    return np.concatenate([names, actions], axis=-1, dtype=np.float32).tobytes()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
