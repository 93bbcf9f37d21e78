"""Priors for layers beyond Table I in a study: which spaces have one, and that limits hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import Trial
from safetensors.torch import save_file

from optuna_trlhpo import LayerSpace, TRLHPOSampler
from optuna_trlhpo.agent.layer_policy import PolicyTransformer
from optuna_trlhpo.agent.layer_prior import EMBEDDING, POLICY, LayerTransformer, prefix_of
from optuna_trlhpo.kinds import CNN, MLP
from optuna_trlhpo.layers import Vocabulary
from optuna_trlhpo.layers.kinds import FCL, SameConv
from optuna_trlhpo.trials.agent_record import ACTOR, read_agent

SMALL = LayerSpace(
    input_shape=(1, 12, 12),
    max_parameters=3000,
    max_activation_bytes=8000,
    min_accuracy=None,
    min_improvement=None,
    vocabulary=CNN,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior for the layers of `CNN` alone, which has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        transformer, policy = LayerTransformer(CNN), PolicyTransformer(CNN)
    tensors = {
        **transformer.state_dict(),
        **{POLICY + name: it for name, it in policy.state_dict().items()},
        "mean": torch.ones(EMBEDDING),
        "deviation": torch.ones(EMBEDDING),
        "unit": torch.tensor(0.5),
    }
    path = tmp_path_factory.mktemp("prior") / "cnn.safetensors"
    save_file({prefix_of(CNN) + name: it for name, it in tensors.items()}, path)
    return path


class Independent(optuna.samplers.RandomSampler):
    """Notes the trials in which it is asked."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.trials: set[int] = set()

    def sample_independent(self, study, trial, name, distribution):
        self.trials.add(trial.number)
        return super().sample_independent(study, trial, name, distribution)


def played(space: LayerSpace, file: Path, n_trials: int) -> tuple[optuna.Study, set[int]]:
    def objective(trial: Trial) -> float:
        value = 0.0
        for layers in space.grow(trial):
            value = 0.4 + 0.05 * len(layers) + 0.1 * float(space.encode(layers)[:, 1].mean())
            trial.report(value, step=len(layers) - 1)
        return value

    independent = Independent()
    sampler = TRLHPOSampler(seed=0, layer_prior=file, n_startup_trials=3, independent_sampler=independent)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study, independent.trials


def test_a_space_of_its_layers_needs_no_startup_trials_and_keeps_its_limits(file: Path) -> None:
    study, independent = played(SMALL, file, 11)
    assert independent == {9}  # one in ten explores by chance
    origins = set()
    for trial in study.trials:
        SMALL.check(SMALL.from_params(trial.params))
        record = read_agent(trial)
        if record is not None:
            origins.add(record.origin)
    explored = read_agent(study.trials[4])
    assert explored is not None and explored.origin == ACTOR and ACTOR in origins


@pytest.mark.parametrize(
    "space",
    [
        LayerSpace(input_shape=(1, 12, 12), max_layers=3, min_accuracy=None, min_improvement=None),
        LayerSpace(input_shape=(20,), max_layers=3, min_accuracy=None, min_improvement=None, vocabulary=MLP),
        LayerSpace(
            input_shape=(1, 12, 12),
            max_layers=3,
            min_accuracy=None,
            min_improvement=None,
            vocabulary=Vocabulary("sameandfcl", (SameConv, FCL), first=(SameConv,)),
        ),
    ],
    ids=["Table I", "MLP", "custom"],
)
def test_other_layers_begin_at_random(space: LayerSpace, file: Path) -> None:
    _, independent = played(space, file, 6)
    assert 0 in independent and 1 in independent


def test_the_layers_of_other_vocabularies_have_features_where_inputs_are_images() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        layers = SMALL.draw(rng)
        features = SMALL.layer_features(SMALL.encode(layers))
        assert features is not None and features.shape == (len(layers), len(CNN.kinds) + 8)
        assert [CNN.kinds[int(row[:10].argmax())] for row in features] == [type(layer) for layer in layers]
        assert (features[:, :10].sum(axis=1) == 1).all()
        assert np.allclose(features[:, 10:13], SMALL.encode(layers)[:, 1:])
    features_of_space = SMALL.space_features
    expected = np.log([12, 1e9, 3000, 8000]) / np.log([28, 1e9, 1e7, 1e7])
    assert np.allclose(features_of_space, expected)
    assert np.allclose(LayerSpace(max_macs=1e6).space_features, [1, np.log(1e6) / np.log(1e9)])
    dense = LayerSpace(input_shape=(20,), vocabulary=MLP)
    assert dense.layer_features(dense.encode(dense.draw(rng))) is None
