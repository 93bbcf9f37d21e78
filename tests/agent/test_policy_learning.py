"""What the actor learns within a study, when, and that it proposes it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import Trial

from optuna_trlhpo import LayerSpace, TRLHPOSampler
from optuna_trlhpo.agent.layer_policy import LayerPolicy, PolicyTransformer
from optuna_trlhpo.agent.layer_prior import load_priors
from optuna_trlhpo.agent.policy_learning import PolicyLearner, choices_of, cloning_loss, weights_of
from optuna_trlhpo.benchmarks.harness.samplers import PRIOR
from optuna_trlhpo.benchmarks.layer_prior.policy_training import features_of
from optuna_trlhpo.layers import TABLE_I, Network, parse
from optuna_trlhpo.layers.kinds import CNN
from optuna_trlhpo.trials.agent_record import ACTOR, read_agent

SPACE = LayerSpace(input_shape=(1, 14, 14), max_macs=1e6, min_accuracy=None, min_improvement=None)


def pretrained() -> LayerPolicy:
    policy = load_priors(Path(str(PRIOR)))[0].policy
    assert policy is not None
    return policy


def learned(learner: PolicyLearner, value: Callable[[Network], float], n: int = 60, times: int = 8) -> None:
    rng = np.random.default_rng(0)
    for _ in range(times):
        networks = [SPACE.draw(rng) for _ in range(n)]
        features = [features_of(SPACE, layers) for layers in networks]
        values = np.array([value(layers) for layers in networks])
        learner.learn(SPACE.space_features, features, networks, values, rng)


def drawn(policy: LayerPolicy, n: int = 200) -> list[Network]:
    rng = np.random.default_rng(1)
    return [SPACE.decode(actions) for actions in SPACE.draw_from(policy, n, rng)]


def test_the_best_count_most() -> None:
    weights = weights_of(np.array([0.1, 0.9, 0.5, 0.7]))
    assert weights.argsort().tolist() == [0, 2, 3, 1]
    assert np.allclose(weights[1] / weights[0], np.exp(0.75 / 0.15))  # three of four ranks apart
    assert weights_of(np.array([1e3, 1.0])).tolist() == weights_of(np.array([1.1, 1.0])).tolist()


def test_choices_are_numbered_in_the_order_of_the_vocabulary() -> None:
    networks = [parse("Conv(16,5,1)"), parse("Conv(8,3,2) > MaxPool(3,2,0) > FCL(16,relu,bias)")]
    kinds, chosen = choices_of(TABLE_I, networks)
    assert kinds.tolist() == [[0, 3, -1, -1], [0, 1, 2, 3]]
    counts = TABLE_I.value_counts
    first_of_fcl = sum(counts[:6])
    assert chosen.shape == (2, 4, 3)
    assert chosen[0].tolist() == [[1, counts[0] + 1, counts[0] + counts[1]]] + [[-1] * 3] * 3
    assert chosen[1, 2, 0] == first_of_fcl and (chosen[1, 2] >= first_of_fcl).all()
    assert (chosen[1, 3] == -1).all()
    kinds, chosen = choices_of(CNN, [parse("SameConv(8,3,1) > GlobalPool()")])
    assert kinds.tolist() == [[1, CNN.kinds.index(type(parse("Conv(8,3,1) > GlobalPool()")[1])), 10]]
    assert (chosen[0, 1] == -1).all()


def test_the_loss_is_the_negative_log_probability_of_a_network() -> None:
    """Equal logits: a kind of four, and each hyper-parameter one of its values."""
    networks = [parse("Conv(16,5,1)"), parse("Conv(8,3,1) > MaxPool(3,2,0)")]
    kinds, chosen = choices_of(TABLE_I, networks)
    counts = TABLE_I.value_counts
    loss = cloning_loss(
        torch.zeros(2, 3, 4), torch.zeros(2, 3, sum(counts)), kinds, chosen, vocabulary=TABLE_I
    )
    of_conv, of_pool = np.log(counts[:3]).sum(), np.log(counts[3:6]).sum()
    expected = [of_conv + 2 * np.log(4), of_conv + of_pool + 3 * np.log(4)]
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_actor_learns_what_is_good_here_and_leaves_the_pretrained_one_alone() -> None:
    """Here the first layer's kernels of 7 are good, and depth is bad."""

    def value(layers: Network) -> float:
        return float(layers[0].values[1] == 7) - 0.2 * len(layers)

    policy = pretrained()
    before = {name: it.clone() for name, it in policy.transformer.state_dict().items()}
    learner = PolicyLearner(policy)
    learned(learner, value)
    means = [np.mean([value(layers) for layers in drawn(actor)]) for actor in (policy, learner.policy)]
    assert means[1] > means[0] + 0.25
    assert all(torch.equal(it, before[name]) for name, it in policy.transformer.state_dict().items())


def test_it_is_the_same_after_a_pickle_and_learns_on_as_it_would_have() -> None:
    learner = PolicyLearner(pretrained())
    learned(learner, len, times=2)
    state = pickle.dumps(learner)
    assert b"torch" not in state  # weights are bytes of safetensors
    other = pickle.loads(state)
    for one in (learner, other):
        learned(one, len, times=2)
    for name, it in learner.policy.transformer.state_dict().items():
        assert torch.equal(it, other.policy.transformer.state_dict()[name]), name


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    learned(PolicyLearner(pretrained()), len, times=1)
    assert torch.equal(torch.get_rng_state(), before)


# In a study -------------------------------------------------------------------------------------------


def grown(trial: Trial) -> float:
    value = 0.0
    for layers in SPACE.grow(trial):
        value = 0.5 + 0.3 * float(layers[0].values[1] == 7) - 0.02 * len(layers)
        trial.report(value, step=len(layers) - 1)
    return value


def played(sampler: TRLHPOSampler, n_trials: int) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(grown, n_trials=n_trials)
    return study


def test_the_actor_learns_in_a_study_and_its_losses_are_recorded() -> None:
    sampler = TRLHPOSampler(seed=0, layer_prior=PRIOR)
    study = played(sampler, 25)
    actor = sampler.agent.networks.knowledge.actor
    assert actor is not None
    now = np.mean([layers[0].values[1] == 7 for layers in drawn(actor.policy)])
    then = np.mean([layers[0].values[1] == 7 for layers in drawn(pretrained())])
    assert now > then
    records = [read_agent(trial) for trial in study.trials]
    losses = {n: record.losses for n, record in enumerate(records) if record is not None and record.losses}
    of_actor = {n: pair[1] for n, pair in losses.items() if pair[1] is not None}
    assert min(losses) == 0 and min(of_actor) == 4  # it learns from the fourth trial on
    assert len(set(of_actor.values())) >= 8
    explored = records[14]
    assert explored is not None and explored.origin == ACTOR


def test_without_an_actor_only_the_critic_has_a_loss() -> None:
    study = played(TRLHPOSampler(seed=0, layer_prior=False, n_startup_trials=3), 8)
    records = [record for trial in study.trials if (record := read_agent(trial)) is not None]
    assert any(record.losses is not None for record in records)
    assert all(record.losses is None or record.losses[1] is None for record in records)


def test_the_critic_of_configurations_has_a_loss() -> None:
    study = optuna.create_study(sampler=TRLHPOSampler(seed=0))
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.3) ** 2, n_trials=14)
    records = [record for trial in study.trials if (record := read_agent(trial)) is not None]
    losses = [record.losses[0] for record in records if record.losses is not None]
    assert len(losses) >= 4 and np.isfinite(losses).all()


def test_an_actor_of_another_vocabulary_survives_a_pickle() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = LayerPolicy(PolicyTransformer(CNN).state_dict(), CNN)
    again = pickle.loads(pickle.dumps(policy))
    assert again.vocabulary == CNN
    for name, it in policy.transformer.state_dict().items():
        assert torch.equal(it, again.transformer.state_dict()[name])
