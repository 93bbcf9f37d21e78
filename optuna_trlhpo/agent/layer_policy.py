"""Actor for layers, pretrained on other tasks, which proposes networks from the first trial.

Notation: N networks, S layers, F features of a space (`LayerSpace.space_features`), O features of a layer
(`LayerSpace.layer_features`), K kinds of layer, V values of all hyper-parameters of all kinds.

A transformer reads the layers so far and gives the logits of the next layer's kind, or of the end, and of the
values of its hyper-parameters: one of n each. It was trained on tables of networks of several tasks to choose
what good networks chose. What a space does not allow is masked when a network is drawn from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from optuna_trlhpo._threads import cpu_threads, making_modules
from optuna_trlhpo.agent.config import AgentConfig
from optuna_trlhpo.agent.transformer import Block, sinusoids
from optuna_trlhpo.layers import TABLE_I, Vocabulary

_CONFIG = AgentConfig(width=32, heads=4, blocks=2, expansion=2)


def n_space_features(vocabulary: Vocabulary) -> int:
    """Return the number of features of a space, which are known before its first layer."""
    return 2 if vocabulary == TABLE_I else 4


def n_layer_features(vocabulary: Vocabulary) -> int:
    """Return the number of features of a layer: its kind, and eight others."""
    return len(vocabulary.kinds) + 8


class PolicyTransformer(nn.Module):
    """Transformer that gives the logits of the layer behind each prefix of a network.

    Args:
        vocabulary: Kinds of layer, which determine the sizes of inputs and outputs.
    """

    def __init__(self, vocabulary: Vocabulary = TABLE_I) -> None:
        super().__init__()
        self.start = nn.Linear(n_space_features(vocabulary), _CONFIG.width)
        self.inputs = nn.Linear(n_layer_features(vocabulary), _CONFIG.width)
        self.blocks = nn.ModuleList(Block(_CONFIG) for _ in range(_CONFIG.blocks))
        self.norm = nn.LayerNorm(_CONFIG.width)
        self.kind = nn.Linear(_CONFIG.width, len(vocabulary.kinds) + 1)  # the last is the network's end
        self.values = nn.Linear(_CONFIG.width, sum(vocabulary.value_counts))

    def forward(self, space: Tensor, layers: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits behind the first 0 to S layers: ``[N, S + 1, K + 1]`` of kinds, ``[N, S + 1, V]`` of values.

        Also the attention weights ``[N, H, S + 1, S + 1]`` of each block, over the space and the layers.

        Args:
            space: ``[N, F]`` features of the space.
            layers: ``[N, S, O]`` features of the layers.
        """
        S = layers.shape[1]
        x = torch.cat([self.start(space).unsqueeze(1), self.inputs(layers)], dim=1)
        x = x + sinusoids(torch.arange(S + 1), _CONFIG.width)
        visible = torch.tril(torch.ones(S + 1, S + 1, dtype=torch.bool)).unsqueeze(0)
        weights = []
        for block in self.blocks:
            x, w = block(x, visible)
            weights.append(w)
        x = self.norm(x)
        return self.kind(x), self.values(x), weights


class LayerPolicy:
    """Pretrained actor, which answers what layer comes next.

    Args:
        tensors: Weights of a `PolicyTransformer`.
        vocabulary: Kinds of layer.

    Attributes:
        vocabulary: Kinds of layer.
        transformer: The transformer.
    """

    def __init__(self, tensors: Mapping[str, Tensor], vocabulary: Vocabulary = TABLE_I) -> None:
        self.vocabulary = vocabulary
        # The initial weights are overwritten, but creating them draws random numbers.
        with making_modules(), torch.random.fork_rng(devices=[]):
            self.transformer = PolicyTransformer(vocabulary).eval()
        self.transformer.load_state_dict(tensors)

    def __reduce__(self) -> tuple[Any, ...]:  # weights as safetensors: reading them executes no code
        return _restore, (save(self.transformer.state_dict()), self.vocabulary)

    @cpu_threads(1)
    @torch.inference_mode()
    def __call__(self, space: np.ndarray, layers: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Logits ``[N, K + 1]`` of the next layer's kind, and ``[N, V]`` of the values of hyper-parameters.

        Args:
            space: ``[F]`` features of the space.
            layers: N networks with equal numbers of layers, each by its features ``[S, O]``.
        """
        start = torch.from_numpy(space).float().expand(len(layers), -1)
        kinds, values, _ = self.transformer(start, torch.from_numpy(np.array(layers)).float())
        return kinds[:, -1].numpy(), values[:, -1].numpy()

    @cpu_threads(1)
    @torch.inference_mode()
    def attention(self, space: np.ndarray, layers: np.ndarray) -> list[np.ndarray]:
        """Attention weights with which the actor decides what follows the first 1 to S layers of a network.

        Args:
            space: ``[F]`` features of the space.
            layers: ``[S, O]`` features of the layers.

        Returns:
            Rows k = 1 to S, each ``[H, k + 1]``: the weights of the first k layers, and last that of the
            space. H counts the heads of all blocks, one block after the other.
        """
        pair = torch.from_numpy(space).float()[None], torch.from_numpy(layers).float()[None]
        heads = torch.cat([block[0] for block in self.transformer(*pair)[2]]).double()  # [H, S + 1, S + 1]
        return [heads[:, k, : k + 1].roll(-1, dims=1).numpy() for k in range(1, len(layers) + 1)]


def _restore(weights: bytes, vocabulary: Vocabulary) -> LayerPolicy:
    return LayerPolicy(load(weights), vocabulary)


def padded(features: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Pad features of different lengths to ``[N, S, O]``, with a mask of the layers ``[N, S]``."""
    lengths = [len(layers) for layers in features]
    S = max(lengths)
    rows = np.zeros((len(features), S, features[0].shape[1]), dtype=np.float32)
    for row, layers in zip(rows, features, strict=True):
        row[: len(layers)] = layers
    return torch.from_numpy(rows), torch.arange(S) < torch.tensor(lengths)[:, None]
