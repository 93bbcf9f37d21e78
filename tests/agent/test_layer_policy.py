"""The pretrained actor: what it reads, what is drawn from it, and what it learns from tables."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import Trial
from safetensors.torch import save_file

from optuna_trlhpo import TRLHPOSampler
from optuna_trlhpo.agent.layer_policy import (
    LayerPolicy,
    PolicyTransformer,
    n_layer_features,
    n_space_features,
)
from optuna_trlhpo.agent.layer_prior import POLICY, load_priors
from optuna_trlhpo.benchmarks.harness.samplers import PRIOR
from optuna_trlhpo.benchmarks.layer_prior.policy_training import cloning_loss, train_policy
from optuna_trlhpo.benchmarks.problems.mnist_layers import TabulatedTraining
from optuna_trlhpo.benchmarks.problems.tasks import TASKS
from optuna_trlhpo.layers import TABLE_I, Conv, Vocabulary, describe
from optuna_trlhpo.layers.kinds import CNN
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.trials.agent_record import ACTOR, ORIGINS, read_agent

N_SPACE_FEATURES, LAYER_FEATURES = n_space_features(TABLE_I), n_layer_features(TABLE_I)
N_KINDS, N_VALUES = len(TABLE_I.kinds), sum(TABLE_I.value_counts)
SMALL = LayerSpace(input_shape=(1, 12, 12), max_macs=3e5, max_parameters=5000, min_accuracy=None)


@pytest.fixture(scope="module")
def policy() -> LayerPolicy:
    """That of the package."""
    found = load_priors()[0].policy
    assert found is not None
    return found


def untrained() -> LayerPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LayerPolicy(PolicyTransformer().state_dict())


def test_it_has_a_logit_for_every_kind_and_value() -> None:
    assert N_KINDS == 3
    assert N_VALUES == sum(len(hp.values) for cls in TABLE_I.kinds for hp in cls.hyperparameters)
    policy, space = untrained(), np.zeros(N_SPACE_FEATURES)
    for S in (0, 1, 4):
        kinds, values = policy(space, [np.zeros((S, LAYER_FEATURES))] * 5)
        assert kinds.shape == (5, N_KINDS + 1) and values.shape == (5, N_VALUES)


def test_it_reads_the_space_and_all_layers_but_not_the_future() -> None:
    rng = np.random.default_rng(0)
    layers, space = rng.random((1, 4, LAYER_FEATURES)), rng.random((1, N_SPACE_FEATURES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = PolicyTransformer()

    def answers(space: np.ndarray, layers: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            answer = transformer(torch.from_numpy(space).float(), torch.from_numpy(layers).float())
        return answer[0][0]

    before = answers(space, layers)
    other = layers.copy()
    other[0, 1] += 1
    after = answers(space, other)
    torch.testing.assert_close(after[:2], before[:2])
    assert ((after[2:] - before[2:]).abs().max(dim=1).values > 1e-4).all()
    assert ((answers(space + 1, layers) - before).abs().max(dim=1).values > 1e-4).all()


@pytest.mark.parametrize(
    "space", [LayerSpace(), LayerSpace(max_layers=2, narrowing=True), SMALL], ids=["all", "shallow", "small"]
)
def test_what_is_drawn_is_a_network_of_the_space(space: LayerSpace, policy: LayerPolicy) -> None:
    for source in (policy, untrained()):
        drawn = space.draw_from(source, 40, np.random.default_rng(0))
        assert 20 <= len(drawn) <= 40
        networks = [space.decode(actions) for actions in drawn]
        for actions, layers in zip(drawn, networks, strict=True):
            space.check(layers)
            assert np.array_equal(space.encode(layers), actions)
        assert len({describe(layers) for layers in networks}) > 10
    one, same, other = (
        [actions.tolist() for actions in space.draw_from(policy, 40, np.random.default_rng(seed))]
        for seed in (0, 0, 1)
    )
    assert one == same != other


def test_networks_are_drawn_with_the_probabilities_of_the_policy() -> None:
    """One kind is certain, then the end; one value of the first hyper-parameter is certain, too."""

    def certain(space: np.ndarray, layers: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        kinds, values = np.zeros((len(layers), N_KINDS + 1)), np.zeros((len(layers), N_VALUES))
        kinds[:, 0 if not len(layers[0]) else N_KINDS] = 1e6
        values[:, 5] = 1e6
        return kinds, values

    space = LayerSpace()
    drawn = [space.decode(actions) for actions in space.draw_from(certain, 30, np.random.default_rng(0))]
    assert {len(layers) for layers in drawn} == {1}
    firsts = [layers[0] for layers in drawn]
    assert {layer.values[0] for layer in firsts} == {Conv.hyperparameters[0].values[5]}
    assert len({layer.values[1] for layer in firsts}) > 1  # the others are equally probable


@pytest.mark.slow
def test_it_learns_what_good_networks_have() -> None:
    """Networks with large kernels are better. Exchanged accuracies teach nothing of it."""
    space, rng = TASKS["digits-28"].space, np.random.default_rng(0)
    table = []
    for _ in range(300):
        layers = space.draw(rng)
        first = layers[0]
        assert isinstance(first, Conv)
        accuracy = 0.5 + 0.15 * (first.kernel == 7) + 0.01 * float(rng.random())
        table.append(TabulatedTraining(describe(layers), 0, accuracy, (), 1, 1, 1.0))
    shares = []
    for shuffled in (False, True):
        tensors = train_policy({"digits-28": table}, epochs=40, shuffled=shuffled)
        drawn = space.draw_from(LayerPolicy(tensors), 200, rng)
        kernels = [getattr(space.decode(actions)[0], "kernel", 0) for actions in drawn]
        shares.append(kernels.count(7) / len(kernels))
    assert shares[0] > 0.7 and shares[1] < 0.6


# In the agent -----------------------------------------------------------------------------------------


def grown(trial: Trial) -> float:
    value = 0.3
    for layers in SMALL.grow(trial):
        value += 0.05
        trial.report(value, step=len(layers) - 1)
    return value


def test_the_actor_and_chance_take_turns_in_trials_that_explore() -> None:
    class Asked(optuna.samplers.RandomSampler):
        trials: set[int] = set()

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            self.trials.add(trial.number)
            return super().sample_independent(study, trial, name, distribution)

    independent = Asked(seed=0)
    study = optuna.create_study(
        direction="maximize",
        sampler=TRLHPOSampler(seed=0, layer_prior=PRIOR, independent_sampler=independent),
    )
    study.optimize(grown, n_trials=20)
    assert independent.trials == {9, 19}
    records = [read_agent(study.trials[number]) for number in (4, 14)]
    assert [record is not None and record.origin for record in records] == [ACTOR, ACTOR]
    assert study.trials[4].params != study.trials[14].params


def test_a_file_without_an_actor_is_a_prior_all_the_same(tmp_path) -> None:
    from safetensors.torch import load_file

    tensors = {name: it for name, it in load_file(str(PRIOR)).items() if not name.startswith(POLICY)}
    save_file(tensors, tmp_path / "prior.safetensors")
    prior, of_cnn = load_priors(tmp_path / "prior.safetensors")
    assert prior.policy is None and of_cnn.policy is not None
    study = optuna.create_study(
        direction="maximize", sampler=TRLHPOSampler(seed=0, layer_prior=tmp_path / "prior.safetensors")
    )
    study.optimize(grown, n_trials=6)
    assert len(study.trials) == 6


@pytest.mark.parametrize(
    ("name", "tensor", "fault"),
    [
        ("policy.kind.bias", None, "the tensor 'policy.kind.bias' is missing"),
        ("policy.other", torch.zeros(1), "the tensor 'policy.other' is unknown"),
        ("policy.kind.bias", torch.zeros(2), r"has shape \[2\]; it must be \[4\]"),
        ("policy.kind.bias", torch.full((4,), torch.inf), "its values must be finite"),
    ],
)
def test_a_damaged_actor_is_named(tmp_path, name: str, tensor: torch.Tensor | None, fault: str) -> None:
    from safetensors.torch import load_file

    tensors = load_file(str(PRIOR))
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, tmp_path / "prior.safetensors")
    with pytest.raises(ValueError, match=fault):
        load_priors(tmp_path / "prior.safetensors")


def test_the_actors_attention_is_recorded_with_every_plan(policy: LayerPolicy) -> None:
    features = np.random.default_rng(0).random((4, LAYER_FEATURES))
    rows = policy.attention(np.zeros(N_SPACE_FEATURES), features)
    assert [row.shape for row in rows] == [(8, k + 1) for k in range(1, 5)]
    assert all(np.allclose(row.sum(axis=1), 1) for row in rows)
    other = features.copy()
    other[3] += 1
    assert np.allclose(policy.attention(np.zeros(N_SPACE_FEATURES), other)[2], rows[2])
    study = optuna.create_study(direction="maximize", sampler=TRLHPOSampler(seed=0, layer_prior=PRIOR))
    study.optimize(grown, n_trials=5)
    for trial in study.trials:
        record = read_agent(trial)
        assert record is not None and record.origin in ORIGINS
        assert [row.shape[1] for row in record.attention["actor"]] == list(
            range(2, 2 + len(record.attention["actor"]))
        )
    explored = read_agent(study.trials[4])
    assert explored is not None and explored.origin == ACTOR
    (expected,) = explored.plans[:1]  # of what is explored, too
    assert 0 < expected.value < 1 and expected.low < expected.value < expected.high


def explored_network(
    space: LayerSpace, objective: Any, sampler_type: type[TRLHPOSampler] = TRLHPOSampler
) -> tuple[optuna.Study, list[str]]:
    """A study of five trials, of which the last explores, and what its plan was at its first layer."""
    sampler = sampler_type(seed=0, layer_prior=PRIOR)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=4)
    drawn: list[str] = []

    def noting(trial: Trial) -> float:
        value: float = objective(trial)
        plan = sampler.agent.courses[trial.number].drawn
        assert plan is not None
        layers = plan.actions[plan.names[:, 0] == sampler.agent.networks.knowledge.layer_kind]
        drawn.append(describe(space.decode(layers)))
        return value

    study.optimize(noting, n_trials=1)
    return study, drawn


def test_parameters_before_the_layers_do_not_keep_the_actor_away() -> None:
    def objective(trial: Trial) -> float:
        rate = trial.suggest_float("rate", 0, 1)
        return grown(trial) - 0.01 * rate

    study, (drawn,) = explored_network(SMALL, objective)
    trial = study.trials[4]
    assert describe(SMALL.from_params(trial.params)).startswith(drawn)
    record = read_agent(trial)
    assert record is not None and record.by == "actor"


@pytest.mark.slow
def test_reports_do_not_change_the_network_that_was_drawn() -> None:
    space = LayerSpace(max_macs=1e6, min_accuracy=None, min_improvement=None, train_prefixes="all")

    def objective(trial: Trial) -> float:
        value = 0.3
        for layers in space.grow(trial):
            value += 0.05
            trial.report(value, step=len(layers) - 1)
        return value

    study, (drawn,) = explored_network(space, objective)
    assert describe(space.from_params(study.trials[4].params)).startswith(drawn)


def test_what_grows_behind_a_network_that_was_drawn_is_planned() -> None:
    """Where a trial grows on, the critic plans the layers behind those that were drawn."""

    class Growing(TRLHPOSampler):
        def worth_growing(self, *arguments: Any, **named: Any) -> bool:
            super().worth_growing(*arguments, **named)
            return True

    space = LayerSpace(max_macs=1e6, min_accuracy=None, min_improvement=None)

    def objective(trial: Trial) -> float:
        value = 0.0
        for layers in space.grow(trial):
            value = 0.1 + 0.1 * len(layers)
            trial.report(value, step=len(layers) - 1)
        return value

    study, (drawn,) = explored_network(space, objective, Growing)
    record, trial = read_agent(study.trials[4]), study.trials[4]
    grown_to = describe(space.from_params(trial.params))
    assert grown_to.startswith(drawn) and record is not None
    assert grown_to.count(">") > drawn.count(">")
    assert record.plans[0].n_fixed == 0  # the drawn network itself
    assert min(plan.n_fixed for plan in record.plans[1:]) == drawn.count(">") + 1


def test_parameters_between_the_layers_are_no_layers() -> None:
    """The prior reads the layers alone, whatever an objective asks for between them."""
    space = LayerSpace(max_macs=1e6, max_layers=3, min_accuracy=None, min_improvement=None)

    def objective(trial: Trial) -> float:
        value = 0.3
        for layers in space.grow(trial):
            value += 0.05 + 0.01 * trial.suggest_float(f"augmentation{len(layers)}", 0, 1)
            trial.report(value, step=len(layers) - 1)
        return value

    sampler = TRLHPOSampler(seed=0, layer_prior=PRIOR)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=12)
    networks = sampler.agent.networks
    known, _ = networks.replay.networks(np.random.default_rng(0), np.zeros(0))
    described = networks.knowledge.with_prior_features(known).network_descriptor
    depths = (known.names[:, :, 0] == networks.knowledge.layer_kind).sum(axis=1)
    assert np.allclose(described[:, 0], depths / space.max_layers) and len(set(depths)) > 1


@pytest.mark.parametrize("vocabulary", [TABLE_I, CNN], ids=["Table I", "CNN"])
def test_an_actor_survives_a_pickle_which_holds_safetensors(vocabulary: Vocabulary) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = LayerPolicy(PolicyTransformer(vocabulary).state_dict(), vocabulary)
    state = pickle.dumps(policy)
    assert b"torch" not in state
    again = pickle.loads(state)
    assert again.vocabulary == vocabulary
    for name, it in policy.transformer.state_dict().items():
        assert torch.equal(it, again.transformer.state_dict()[name])


def test_choices_are_numbered_in_the_order_of_the_vocabulary() -> None:
    for vocabulary in (TABLE_I, CNN):
        counts = [len(hp.values) for cls in vocabulary.kinds for hp in cls.hyperparameters]
        assert list(vocabulary.value_counts) == counts
        for cls, first in zip(vocabulary.kinds, vocabulary.first_values, strict=True):
            before = vocabulary.kinds[: vocabulary.kinds.index(cls)]
            assert first == sum(len(hp.values) for other in before for hp in other.hyperparameters)


def test_the_loss_is_the_negative_log_probability_of_a_network() -> None:
    """Equal logits: a kind of four, and each hyper-parameter one of its values."""
    counts = TABLE_I.value_counts
    kinds = torch.tensor([[0, 3, -1], [0, 1, 3]])
    chosen = torch.full((2, 3, 3), -1)
    chosen[0, 0] = torch.tensor([1, counts[0], counts[0] + counts[1]])
    chosen[1, 0] = chosen[0, 0]
    chosen[1, 1] = sum(counts[:3]) + torch.tensor([0, counts[3], counts[3] + counts[4]])
    zeros = torch.zeros(2, 3, 4), torch.zeros(2, 3, sum(counts))
    loss = cloning_loss(*zeros, kinds, chosen, vocabulary=TABLE_I)
    of_conv, of_pool = np.log(counts[:3]).sum(), np.log(counts[3:6]).sum()
    expected = [of_conv + 2 * np.log(4), of_conv + of_pool + 3 * np.log(4)]
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)
