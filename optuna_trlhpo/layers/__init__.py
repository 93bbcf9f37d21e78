"""What a layer is: its hyper-parameters, its shape, its costs, its spelling, and how a trial is asked for it.

`table1` has the layers of the paper, `kinds` further ones; `vocabulary` says which of them a space has. A
*network* is a tuple of layers, first to last, without the classifier (one linear layer) behind them.
"""

from optuna_trlhpo.layers.hyperparameter import Hyperparameter
from optuna_trlhpo.layers.layer import ACTION_SLOTS, Layer, Network, Shape
from optuna_trlhpo.layers.notation import describe, network_in, parse
from optuna_trlhpo.layers.table1 import ACTIVATIONS, FCL, TABLE_I, Conv, MaxPool, activation, flatten
from optuna_trlhpo.layers.vocabulary import Vocabulary, hyperparameter_of, unmasked, vocabulary_named

__all__ = [
    "ACTION_SLOTS",
    "ACTIVATIONS",
    "FCL",
    "TABLE_I",
    "Conv",
    "Hyperparameter",
    "Layer",
    "MaxPool",
    "Network",
    "Shape",
    "Vocabulary",
    "activation",
    "describe",
    "flatten",
    "hyperparameter_of",
    "network_in",
    "parse",
    "unmasked",
    "vocabulary_named",
]
