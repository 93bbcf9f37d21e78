"""Layers of a network: hyper-parameters, output shape, costs, notation, and how a trial is asked for one.

`table1` has the layers of the paper and `kinds` further ones; a `Vocabulary` lists those of a space. A
*network* is a tuple of layers, first to last, without the classifier (one linear layer) that follows them.
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
