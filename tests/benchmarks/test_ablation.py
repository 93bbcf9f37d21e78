"""The variants of the ablation, and the table that it ends with."""

from __future__ import annotations

import pickle

import optuna
import pytest

from optuna_trlhpo.benchmarks.harness import samplers
from optuna_trlhpo.benchmarks.harness.workers import quiet
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.search import ablation
from optuna_trlhpo.benchmarks.search.results import Results
from optuna_trlhpo.sampler import TRLHPOSampler


def made(name):
    """The sampler of a variant, after its factory went to another process."""
    return pickle.loads(pickle.dumps(ablation.VARIANTS[name].factory))(seed=1)


@pytest.mark.parametrize(
    "name",
    [
        # It trains an actor, on shuffled values.
        pytest.param(name, marks=pytest.mark.rare) if name == "shuffled-actor" else name
        for name in ablation.VARIANTS
    ],
)
def test_each_variant_differs_from_the_whole_agent(name):
    def parts(sampler):
        return type(sampler), sampler.settings["agent"], sampler.settings["layer_prior"]

    equal = {ablation.WHOLE} if samplers.PRIOR else {ablation.WHOLE, "no-layer-prior"}
    assert (parts(made(name)) == parts(made(ablation.WHOLE))) == (name in equal)
    assert set(ablation.VARIANTS[name].problems or ()) <= set(tables.problems())


@pytest.mark.slow
@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_each_variant_plays(name, toy):
    with quiet():
        study = optuna.create_study(direction="maximize", sampler=made(name))
        objective = toy.objective("progressive", 0, 10)
        study.optimize(objective, n_trials=10)
    assert objective.evaluator.trainings > 1


def test_all_prefixes_are_trained_whatever_the_agent_holds_of_them(monkeypatch):
    for ask in ("worth_training", "worth_growing"):
        monkeypatch.setattr(TRLHPOSampler, ask, lambda *_, **__: False)
    sampler = made("all-prefixes")
    study = optuna.create_study(sampler=sampler)
    trial = study.get_trials()
    assert sampler.worth_training(study, trial, depth=1, max_depth=8)
    assert sampler.worth_growing(study, trial)


def row(sampler, regret, seed, *, problem="toy", budget=25):
    return {
        **{"problem": problem, "form": "terminal", "sampler": sampler, "seed": seed, "budget": budget},
        **{"curve": [[1, regret]], "unit": "points", "seconds": 2.0, "versions": {"python": "3"}},
    }


def test_the_table_by_hand():
    whole = [1.0 + seed for seed in range(8)]
    rows = [
        *(row("whole", regret, seed) for seed, regret in enumerate(whole)),
        *(row("thompson", 2 * regret, seed) for seed, regret in enumerate(whole)),
        *(row("rank-targets", regret, seed) for seed, regret in enumerate(whole)),
    ]
    text = ablation.markdown(Results(rows))
    # 1 to 8 have the standard deviation sqrt(6). Eight differences of one sign: 2 / 2**8, of two variants.
    assert "| whole | the whole agent | 8 | 4.500 ± 0.866 | 4.500 ± 0.866 | 2.0 |" in text
    assert f"| thompson | {ablation.VARIANTS['thompson'].what} | 8 | 2.00, worse, p 0.016 |" in text
    assert f"| rank-targets | {ablation.VARIANTS['rank-targets'].what} | 8 | 1.00, tie, p 1.000 |" in text
    assert "Versions: python 3." in text
    alone = ablation.markdown(Results(rows[:1]))
    assert "| whole | the whole agent | 1 | 1.000 | 1.000 | 2.0 |" in alone


def test_variants_are_run_where_they_make_a_difference(toy, tmp_path, monkeypatch):
    variants = {
        "whole": ablation.Variant("whole", optuna.samplers.RandomSampler),
        "here": ablation.Variant("here", optuna.samplers.RandomSampler, ("toy",)),
        "there": ablation.Variant("there", optuna.samplers.RandomSampler, ("macro",)),
    }
    monkeypatch.setattr(ablation, "VARIANTS", variants)
    rows = ablation.run(["toy"], ["here", "there"], seeds=1, budget=2, out=tmp_path)
    assert [(it["sampler"], it["form"]) for it in rows] == [("whole", "progressive"), ("here", "progressive")]
    assert ablation.run(["toy"], ["here", "there"], seeds=1, budget=2, out=tmp_path) == []
    with pytest.raises(ValueError, match="unknown variant nowhere; there are whole, here, there"):
        ablation.run(["toy"], ["nowhere"], seeds=1, budget=2, out=tmp_path)
