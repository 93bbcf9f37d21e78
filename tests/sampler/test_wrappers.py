"""Samplers within other samplers: a `LayerSpace` finds the one that serves its trial."""

import gc
import pickle
import weakref
from collections.abc import Generator

import optuna
import pytest
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler, worth_growing, worth_training
from optuna_trlhpo.space import sampler_hooks

AGENT = AgentConfig(n_candidates=40, n_generations=2, fit_steps=2, random_interval=0)
SPACE = LayerSpace(input_shape=(1, 12, 12), max_layers=4, min_accuracy=None, min_improvement=None)


def sampler_of(seed=0):
    return TRLHPOSampler(seed=seed, agent=AGENT, n_startup_trials=3)


def accuracy_of(layers):
    return 0.9 - 0.1 * float(SPACE.encode(layers)[:, 1:].mean())


def grow(trial):
    for layers in SPACE.grow(trial):
        trial.report(accuracy_of(layers), step=len(layers) - 1)
    return accuracy_of(layers)


def suggest(trial):
    return accuracy_of(SPACE.suggest(trial))


class Delegating(BaseSampler):
    """Hands on what a sampler must have, and nothing else."""

    def __init__(self, inner):
        self.inner = inner

    def infer_relative_search_space(self, study, trial):
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space):
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, name, distribution):
        return self.inner.sample_independent(study, trial, name, distribution)


class DelegatingAll(Delegating):
    def before_trial(self, study, trial):
        self.inner.before_trial(study, trial)

    def after_trial(self, study, trial, state, values):
        self.inner.after_trial(study, trial, state, values)


class Ensemble(Delegating):
    """Hands beginnings and ends to all its samplers, and what is between to one in turn."""

    def __init__(self, *members):
        self.members = members

    def before_trial(self, study, trial):
        for member in self.members:
            member.before_trial(study, trial)
        self.inner = self.members[trial.number % len(self.members)]

    def after_trial(self, study, trial, state, values):
        for member in self.members:
            member.after_trial(study, trial, state, values)


WRAPPERS = {
    "the least": Delegating,
    "all methods": DelegatingAll,
    "nested": lambda inner: Delegating(DelegatingAll(Delegating(inner))),
    "nothing fixed": lambda inner: PartialFixedSampler({}, inner),
    "nothing fixed, nested": lambda inner: PartialFixedSampler({}, PartialFixedSampler({}, inner)),
    "one of one": Ensemble,
}


def run(sampler, objective=grow, n=5, **create):
    pruner = create.pop("pruner", optuna.pruners.NopPruner())
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner, **create)
    study.optimize(objective, n_trials=n)
    return [(trial.params, trial.intermediate_values) for trial in study.trials]


@pytest.fixture(scope="module")
def alone():
    return {objective: run(sampler_of(), objective) for objective in (grow, suggest)}


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("objective", [grow, suggest])
def test_a_wrapper_that_only_hands_on_changes_nothing(wrapper, objective, alone):
    assert run(WRAPPERS[wrapper](sampler_of()), objective) == alone[objective]


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["the least", "nothing fixed"])
@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_stored_study_changes_nothing(wrapper, storage, alone, tmp_path):
    where: str | JournalStorage = f"sqlite:///{tmp_path}/study.db"
    if storage == "journal":
        where = JournalStorage(JournalFileBackend(f"{tmp_path}/journal.log"))
    assert run(WRAPPERS[wrapper](sampler_of()), storage=where) == alone[grow]


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["the least", "nothing fixed"])
def test_brackets_of_hyperband_change_nothing(wrapper):
    def study_of(sampler):
        pruner = optuna.pruners.HyperbandPruner(max_resource=4)  # never asked: its brackets alone matter
        return run(sampler, pruner=pruner, study_name="brackets")

    assert study_of(WRAPPERS[wrapper](sampler_of())) == study_of(sampler_of())


@pytest.mark.slow
def test_what_is_fixed_does_not_switch_off_the_rest(alone):
    fixed = run(PartialFixedSampler({"layer1_conv_stride": 1}, sampler_of()), n=8)
    assert all(params["layer1_conv_stride"] == 1 for params, _ in fixed)
    assert sum(len(reports) for _, reports in fixed) <= 1.5 * sum(len(r) for _, r in run(sampler_of(), n=8))


def test_of_an_ensemble_the_one_that_serves_decides(alone):
    """Others that were told of the trial's beginning do not."""
    with_chance = run(Ensemble(sampler_of(), RandomSampler(seed=0)), n=6)
    of_ours = [reports for _, reports in with_chance[::2]]
    assert of_ours[0] == alone[grow][0][1] and all(len(reports) <= 2 for reports in of_ours)
    others = sampler_of(seed=1), sampler_of(seed=2)
    of_two = run(Ensemble(*others), n=4)
    assert of_two[0] == run(sampler_of(seed=1), n=1)[0]
    assert all(len(reports) <= 2 for _, reports in of_two)


def test_threads_are_served_each_by_itself():
    study = optuna.create_study(direction="maximize", sampler=Delegating(sampler_of()))
    study.optimize(grow, n_trials=8, n_jobs=2)
    assert sum(len(trial.intermediate_values) for trial in study.trials) <= 16
    assert not sampler_hooks.entered


def test_objectives_that_grow_by_themselves_ask_it_too():
    asked = []

    class Deciding(RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            sampler_hooks.serve(study, trial, self)
            return super().sample_independent(study, trial, name, distribution)

        def worth_training(self, study, trial, *, depth, max_depth):
            asked.append((trial.number, list(trial.params), depth, max_depth))
            return False

        def worth_growing(self, study, trial):
            return False

    deciding = Deciding(seed=0)
    trial = optuna.create_study(sampler=Delegating(deciding)).ask()
    assert worth_training(trial, depth=1, max_depth=4) and worth_growing(trial)  # nobody serves it yet
    trial.suggest_float("x", 0, 1)
    assert not worth_training(trial, depth=1, max_depth=4) and not worth_growing(trial)
    assert asked == [(0, ["x"], 1, 4)]


def test_the_samplers_own_answer_goes_first():
    class Opinionated(Delegating):
        def worth_training(self, study, trial, *, depth, max_depth):
            return True

    trial = optuna.create_study(sampler=Opinionated(sampler_of())).ask()
    assert all(worth_training(trial, depth=depth, max_depth=4) for depth in (1, 2, 3))


def test_two_studies_of_one_name_have_each_their_own():
    """In two storages: what is left of the first is not asked for the second."""
    first = optuna.create_study(study_name="one", sampler=DelegatingAll(sampler_of())).ask()
    second = optuna.create_study(study_name="one", sampler=DelegatingAll(RandomSampler(seed=0))).ask()
    assert (
        sampler_hooks.offered(first, "worth_training")
        and sampler_hooks.offered(second, "worth_training") is None
    )


def test_nothing_is_left_behind():
    sampler = sampler_of()
    kept = weakref.ref(sampler)
    study = optuna.create_study(sampler=DelegatingAll(sampler))
    trial = study.ask()
    assert sampler_hooks.offered(trial, "worth_training")
    study.tell(trial, 0.5)
    assert sampler_hooks.offered(trial, "worth_training") is None
    trial = study.ask()  # never told
    study.sampler = RandomSampler(seed=0)
    del sampler
    gc.collect()
    assert kept() is None and sampler_hooks.offered(trial, "worth_training") is None
    growing = SPACE.grow(trial)
    assert isinstance(growing, Generator)
    next(growing)
    assert sampler_hooks.entered
    growing.close()
    assert not sampler_hooks.entered


@pytest.mark.slow
def test_a_wrapped_sampler_is_pickled_between_trials(alone):
    study = optuna.create_study(direction="maximize", sampler=DelegatingAll(sampler_of()))
    study.optimize(grow, n_trials=2)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(grow, n_trials=3)
    assert [(trial.params, trial.intermediate_values) for trial in study.trials] == alone[grow]
