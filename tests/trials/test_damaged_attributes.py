"""Attributes may be anybody's, or damaged: whatever they hold, a study is played, drawn and published."""

from __future__ import annotations

import copy
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.artifacts import FileSystemArtifactStore
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler, baselines, visualization
from optuna_trlhpo._texts import brief
from optuna_trlhpo.baselines._planned import note_of
from optuna_trlhpo.cnn.confirmation import CONFIRMED_ATTRIBUTE, keep_accuracies, kept_accuracies
from optuna_trlhpo.cnn.training.cache import Trained as Outcome
from optuna_trlhpo.cnn.training.cache import note_training
from optuna_trlhpo.dashboard import publish
from optuna_trlhpo.dashboard._publish import PUBLISHED_ATTRIBUTE
from optuna_trlhpo.space.growth import SPACE_ATTRIBUTE
from optuna_trlhpo.trials.agent_record import AGENT_ATTRIBUTE, read_agent
from optuna_trlhpo.trials.attributes import (
    MARKS_ATTRIBUTE,
    SAMPLER_ATTRIBUTE,
    read_architecture,
    read_count,
    report_marks,
    write_to_study,
)
from optuna_trlhpo.trials.training_record import Training, accuracies, read_trainings, savings
from optuna_trlhpo.visualization._study import read_space

SPACE = LayerSpace(input_shape=(1, 8, 8), max_layers=3, min_accuracy=None, min_improvement=None)
TWINS = [name for name in visualization.matplotlib.__all__ if name.startswith("plot_")]
ARTIFACT = "dashboard:artifacts:0:some"
ALL_CASES = bool(os.environ.get("TRLHPO_ALL_CASES"))


def grow(trial: optuna.Trial) -> float:
    value = 0.0
    for layers in SPACE.grow(trial):
        value = 0.5 + 0.1 * len(layers) - 0.1 * float(SPACE.encode(layers).mean())
        trial.report(value, step=len(layers) - 1)
    return value


def small(**more: Any) -> TRLHPOSampler:
    agent = AgentConfig(n_candidates=8, n_generations=1, fit_steps=1, random_interval=0)
    return TRLHPOSampler(
        seed=0, agent=agent, n_startup_trials=1, layer_prior=False, warn_independent_sampling=False, **more
    )


def _base() -> tuple[list[FrozenTrial], dict[str, Any]]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    agent = AgentConfig.paper(width=16, heads=2, blocks=1)
    sampler = TRLHPOSampler.paper(seed=0, agent=agent, warn_independent_sampling=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(grow, n_trials=3)
    trials = study.get_trials()
    for trial in trials:
        layers = SPACE.from_params(trial.params)
        trial.user_attrs |= {
            "architecture": " > ".join(map(str, layers)),
            "parameters": SPACE.parameters(layers),
            "macs": SPACE.macs(layers),
            "accuracy": 0.5,
            "trainings": "1f2e3d4c 0:0.5:2.51 1:0.75:=1.8 2:0.65:0.9:0.41/0.63!",
            "batch_accuracies": f"0:{'80' * 32} 1:{'ff' * 32}",
        }
        trial.system_attrs |= {
            "baselines:note": {
                "climb": 1,
                "of": 0,
                "change": 2,
                "seen": [[1, 0]],
                "grows": [0, 2],
                "cut": True,
            },
            "retry_history": [0],
        }
    note = read_agent(trials[-1])
    assert note is not None and note.attention and note.q  # what is damaged is something
    trials[-1].system_attrs[AGENT_ATTRIBUTE]["plans"] = [[0, 2, 0.5, 0.4, 0.6]]
    trials[-1].system_attrs[AGENT_ATTRIBUTE]["exploration"] = 0.5
    of_study = {
        SPACE_ATTRIBUTE: SPACE.settings,
        "training": {"epochs": 3, "data": "digits"},
        CONFIRMED_ATTRIBUTE: {"1f2e3d4c": {"Conv(8,3,1)": [0.5, 0.75]}},
        SAMPLER_ATTRIBUTE: study._storage.get_study_system_attrs(study._study_id)[SAMPLER_ATTRIBUTE],
        PUBLISHED_ATTRIBUTE: {"figures": {"trlhpo-agent": 1}, "noted": [0, 1]},
        ARTIFACT: json.dumps({"artifact_id": "some", "filename": "trial-0.svg"}),
    }
    return trials, json.loads(json.dumps(of_study))


TRIALS, OF_STUDY = _base()
OF_TRIAL = {"user": sorted(TRIALS[-1].user_attrs), "system": sorted(TRIALS[-1].system_attrs)}
PLACES = [
    *(("study", name) for name in OF_STUDY),
    *((whose, name) for whose, names in OF_TRIAL.items() for name in names),
]


def make(place: tuple[str, str], value: Any, sampler: optuna.samplers.BaseSampler | None = None) -> Study:
    """A study of three finished trials, whose attributes at that place are ``value``."""
    study = optuna.create_study(direction="maximize", sampler=small() if sampler is None else sampler)
    whose, name = place
    for key, right in (OF_STUDY | ({name: value} if whose == "study" else {})).items():
        if ":" in key:
            write_to_study(study, key, copy.deepcopy(right))
        else:
            study.set_user_attr(key, copy.deepcopy(right))
    for trial in copy.deepcopy(TRIALS):
        if whose != "study":
            (trial.user_attrs if whose == "user" else trial.system_attrs)[name] = copy.deepcopy(value)
        study.add_trial(trial)
    return study


def read_all(study: Study) -> None:
    for trial in study.trials:
        (
            report_marks(trial),
            read_agent(trial),
            read_trainings(trial),
            read_architecture(trial),
            note_of(trial),
        )
        accuracies(trial)
        for name in ("macs", "parameters"):
            read_count(trial, name)
    read_space(study), savings(study), kept_accuracies(study, "1f2e3d4c")


def draw_twins(study: Study) -> None:
    from matplotlib import pyplot

    for name in TWINS:
        axes = getattr(visualization.matplotlib, name)(study)
        (axes[0] if isinstance(axes, list) else axes).figure.canvas.draw()
        pyplot.close("all")
    for findings in (visualization.layer_affinity_findings, visualization.attention_affinity_findings):
        findings(study)


def use(study: Study, *, play: bool = True) -> None:
    """All that reads a study; nothing may raise, and no trial may fail."""
    read_all(study)
    if play:
        study.optimize(grow, n_trials=1)
        assert study.trials[-1].state == TrialState.COMPLETE
    draw_twins(study)
    with tempfile.TemporaryDirectory() as folder:
        visualization.write_report(study, Path(folder) / "report.html")
        publish(study, artifact_store=FileSystemArtifactStore(folder))


# What each is read as -------------------------------------------------------------------------------------


def trial_with(**attributes: Any) -> FrozenTrial:
    system = {name: value for name, value in attributes.items() if ":" in name}
    user = {name: value for name, value in attributes.items() if ":" not in name}
    trial = copy.deepcopy(TRIALS[-1])
    trial.user_attrs, trial.system_attrs = user, system
    return trial


N = len(TRIALS[-1].params)
INFINITE, NAN = math.inf, math.nan
GARBAGE_MARKS: list[Any] = [
    *(None, True, 3, 0.5, "text", "[[1, 0]]", {"1": 0}, {}, [[]], [1, 0], [[1]], [[1, 0, 2]], [None]),
    *([["1", 0]], [[1.0, 0]], [[1, 0.0]], [[True, 0]], [[1, False]], [[0, 0]], [[-1, 0]], [[1, -1]]),
    *([[N + 1, 0]], [[10**400, 0]], [[1, 0], [1, 1]], [[2, 0], [1, 1]], [[1, 1], [2, 1]], [[1, 1], [2, 0]]),
    *([[1, None]], [[[1], 0]], [{"n": 1, "step": 0}], [[1, 0], "x"], ["10"], [[INFINITE, 0]], [[NAN, 0]]),
]


@pytest.mark.parametrize("garbage", GARBAGE_MARKS, ids=lambda it: repr(it)[:30])
def test_what_is_no_list_of_reports_is_nothing(garbage: object) -> None:
    assert report_marks(trial_with(**{MARKS_ATTRIBUTE: garbage})) == []


def test_what_was_seen_is_pairs_of_integers() -> None:
    large = 10**400  # steps are the objective's
    assert report_marks(trial_with(**{MARKS_ATTRIBUTE: [[1, 0], (N, large)]})) == [(1, 0), (N, large)]
    assert report_marks(trial_with()) == []


@pytest.mark.parametrize(
    "damage",
    [
        {"plans": [[0, 2, INFINITE, 0.4, 0.6]]},
        {"plans": [[0, 2, 0.5, -INFINITE, INFINITE]]},
        {"plans": [[0, 2, 0.5, 0.4, NAN]]},
        {"plans": [[0, 2, 0.5, 0.6, 0.4]]},
        {"plans": [[0, 2, 10**400, 0.4, 0.6]]},
        {"plans": [[0, 2, True, 0, 1]]},
        {"plans": [[-1, 2, 0.5, 0.4, 0.6]]},
        {"plans": [[0, 0, 0.5, 0.4, 0.6]]},
        {"plans": [[0.0, 2, 0.5, 0.4, 0.6]]},
        {"plans": [[0, 2, 0.5, 0.4]]},
        {"plans": "text"},
        {"exploration": 10**400},
        {"exploration": 1.5},
        {"exploration": NAN},
        {"exploration": "all"},
        {"losses": [INFINITE, None]},
        {"losses": [1, 2, 3]},
        {"losses": [10**400, 1]},
        {"q": [0.1, NAN]},
        {"q": ["0.1"]},
        {"q": [0.1, 0.2], "spread": [0.1]},
        {"q": [0.1], "spread": [-0.1]},
        {"spread": [0.1], "q": []},
        {"bootstrapped": 1},
        {"by": 5},
        {"by": None},
        {"attention": "actor"},
        {"attention": ["actor"]},
        {"attention": {"actor": "1:fff"}},
        {"attention": {"actor": "1:000000"}},
        {"attention": {"actor": "1:ffffff"}},
        {"attention": {"actor": f"{'9' * 5000}:800800"}},
        {"attention": {"actor": "1:80080g"}},
        {"attention": {"actor": "1:800 800"}},
        {"attention": {"actor": "²:800800"}},
        {"attention": {"actor": 5}},
    ],
    ids=lambda it: repr(it)[:40],
)
def test_a_damaged_note_of_the_agent_is_nothing(damage: dict[str, Any]) -> None:
    whole = TRIALS[-1].system_attrs[AGENT_ATTRIBUTE]
    assert read_agent(trial_with(**{AGENT_ATTRIBUTE: whole})) is not None
    assert read_agent(trial_with(**{AGENT_ATTRIBUTE: whole | damage})) is None


@pytest.mark.parametrize(
    "entry",
    [
        *("0:e:1", "0:0.5:e", "0:.:1", "0:1.2.3:1", "0:--:1", "0:0.5", "0:0.5:1:", "0:1.5:1", "0:-0.5:1"),
        *(
            "0:0.5:-1",
            "0:0.5:1e999",
            "0:1e-9999:1",
            "0:nan:1",
            "0:inf:1",
            "0:0.5:1:0.5/2",
            "0:0.5:1:0.5//0.5",
        ),
        *(f"{'9' * 5000}:0.5:1", "٣:0.5:1", "0:0.5:1\n", "hello", "", "-1:0.5:1"),
    ],
    ids=lambda it: it[:20],
)
def test_trainings_of_which_one_is_damaged_are_nothing(entry: str) -> None:
    assert read_trainings(trial_with(trainings=f"key 0:0.5:1 {entry}")) == ("", [])


def test_trainings_that_are_right() -> None:
    text = "key 0:0.5:1 1:1e-05:=1e+03 2:1.0:0.9:0.41/1!"
    trained = [Training(0, 0.5, 1, False), Training(1, 1e-5, 1000, True)]
    assert read_trainings(trial_with(trainings=text)) == (
        "key",
        [*trained, Training(2, 1.0, 0.9, False, (0.41, 1.0), True)],
    )


@pytest.mark.parametrize("before", [None, 5, "hello world", "other 0:0.5:1", "mine 0:e:1", "mine 0:0.25:2"])
def test_a_training_is_added_to_those_of_its_setting_alone(before: object) -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    if before is not None:
        trial.set_user_attr("trainings", before)
    note_training(trial, "mine", 1, Outcome(0.5, [0.5] * 32, 1.0), looked_up=False)
    kept = "mine 0:0.25:2" if before == "mine 0:0.25:2" else "mine"
    assert trial.user_attrs["trainings"] == f"{kept} 1:0.5:1"


@pytest.mark.parametrize(
    "text", [None, 5, "", " > ", "hello", "Conv(8,3,1) > No(1)", "Conv(9999999,3,1)", ["Conv"]]
)
def test_what_is_no_architecture(text: object) -> None:
    assert read_architecture(trial_with(architecture=text)) is None


@pytest.mark.parametrize("count", [None, True, -1, "5", NAN, INFINITE, 10**400, [5], {}])
def test_what_is_no_cost(count: object) -> None:
    assert read_count(trial_with(macs=count), "macs") is None


@pytest.mark.parametrize(
    "kept",
    [
        *(None, 5, "text", [], [1], {"1f2e3d4c": 5}, {"1f2e3d4c": ["Conv(8,3,1)"]}),
        *(
            {"1f2e3d4c": {"Conv(8,3,1)": it}}
            for it in (5, "x", [None], [True], [1.5], [NAN], ["0.5"], {"a": 1})
        ),
    ],
    ids=repr,
)
def test_damaged_accuracies_of_confirm_are_nothing_and_are_replaced(kept: object) -> None:
    study = make(("study", CONFIRMED_ATTRIBUTE), kept)
    assert kept_accuracies(study, "1f2e3d4c").get("Conv(8,3,1)") is None
    keep_accuracies(study, "1f2e3d4c", "Conv(8,3,1)", [0.5])
    assert kept_accuracies(study, "1f2e3d4c") == {"Conv(8,3,1)": [0.5]}


def test_what_others_confirmed_is_kept() -> None:
    study = make(("study", CONFIRMED_ATTRIBUTE), {"theirs": 5, "1f2e3d4c": {"Conv(16,3,1)": [0.25]}})
    keep_accuracies(study, "1f2e3d4c", "Conv(8,3,1)", [0.5])
    assert study.user_attrs[CONFIRMED_ATTRIBUTE] == {
        "theirs": 5,
        "1f2e3d4c": {"Conv(16,3,1)": [0.25], "Conv(8,3,1)": [0.5]},
    }


@pytest.mark.parametrize(
    "change",
    [
        *({"max_layers": it} for it in (0, 10**400, 10**6, "3", None, True, [3])),
        *({"input_shape": it} for it in (None, "188", [1, 8], [1, 8, -8], [1, 8, 10**400], {"1": 8}, 5)),
        *({"vocabulary": it} for it in cast(tuple[Any, ...], (None, [], "nobody's", 3))),
        *({"max_macs": it} for it in cast(tuple[Any, ...], (NAN, -1, "5", []))),
        *({"max_parameters": it} for it in (10**400, 0)),
        *(
            {"num_classes": 10**400},
            {"narrowing": 1},
            {"train_prefixes": {}},
            {"min_accuracy": 10**400},
            {"x": 1},
        ),
    ],
    ids=lambda it: repr(it)[:40],
)
def test_a_damaged_space_is_none(change: dict[str, Any]) -> None:
    assert read_space(make(("study", SPACE_ATTRIBUTE), SPACE.settings | change)) is None


# All that reads a study -----------------------------------------------------------------------------------

SEVERE = [
    ("system", MARKS_ATTRIBUTE, [[1, 0], [2, "x"]]),
    ("user", "trainings", "k 0:e:1"),
    ("user", "trainings", f"k {'9' * 5000}:0.5:1"),
    ("system", AGENT_ATTRIBUTE, {"by": "posterior", "plans": [[0, 1, INFINITE, -INFINITE, INFINITE]]}),
    ("system", AGENT_ATTRIBUTE, {"by": "actor", "exploration": 10**400}),
    ("study", ARTIFACT, "not JSON"),
    ("study", ARTIFACT, {"filename": "trial-0.svg"}),
    ("study", ARTIFACT, "[" * 100_000),
    ("study", SAMPLER_ATTRIBUTE, {"agent": {"a": 10**5000}}),
    ("study", SAMPLER_ATTRIBUTE, [[["text"]]]),
    ("study", PUBLISHED_ATTRIBUTE, {"figures": [1], "noted": [True, -1, "x", 10**400]}),
    ("study", SPACE_ATTRIBUTE, SPACE.settings | {"num_classes": 10**400}),
    ("study", "training", {"x": {"y": {"z": [NAN]}}}),
    ("user", "architecture", "Conv(8,3,1) > nothing"),
    ("user", "macs", 10**5000),
    ("user", "parameters", "many"),
    ("study", "dashboard:note_ver", "latest"),
    ("study", "dashboard:0:note_ver", None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("whose", "name", "value"), SEVERE, ids=lambda it: brief(it)[:20])
def test_what_broke_something_once_breaks_nothing(whose: str, name: str, value: object) -> None:
    use(make((whose, name), value))


def _json() -> st.SearchStrategy[Any]:
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from([10**400, -(10**400), 2**63, 1e308, -1e308, math.inf, -math.inf, math.nan])
        | st.floats()
        | st.text(max_size=20)
    )
    texts = st.text(max_size=5) | st.sampled_from(["by", "q", "plans", "noted", "figures", "seen", "climb"])
    return st.recursive(leaves, lambda it: st.lists(it, max_size=4) | st.dictionaries(texts, it, max_size=4))


def _damaged(value: Any, draw: Callable[..., Any]) -> Any:
    """The right value, but for something in it."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return value | {key: _damaged(value[key], draw)}
    if isinstance(value, list) and value and draw(st.booleans()):
        k = draw(st.integers(0, len(value) - 1))
        return [*value[:k], _damaged(value[k], draw), *value[k + 1 :]]
    if isinstance(value, str) and value and draw(st.booleans()):
        k = draw(st.integers(0, len(value) - 1))
        return value[:k] + draw(st.text(max_size=3)) + value[k + draw(st.integers(0, 3)) :]
    return draw(_json())


def right_value(place: tuple[str, str]) -> Any:
    whose, name = place
    trial = TRIALS[-1]
    return (
        OF_STUDY[name]
        if whose == "study"
        else {"user": trial.user_attrs, "system": trial.system_attrs}[whose][name]
    )


@pytest.mark.slow
@given(st.data(), st.sampled_from(PLACES))
@settings(max_examples=250)
def test_reading_raises_for_nothing_that_json_can_hold(data: st.DataObject, place: tuple[str, str]) -> None:
    read_all(make(place, _damaged(copy.deepcopy(right_value(place)), data.draw)))


@pytest.mark.slow
@given(st.data(), st.sampled_from(PLACES))
@settings(max_examples=60 if ALL_CASES else 20)
def test_a_trial_is_played_whatever_the_others_hold(data: st.DataObject, place: tuple[str, str]) -> None:
    study = make(place, _damaged(copy.deepcopy(right_value(place)), data.draw))
    study.optimize(grow, n_trials=2)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.slow
@given(st.data(), st.sampled_from(PLACES))
@settings(max_examples=15 if ALL_CASES else 5)
def test_a_study_is_drawn_and_published_whatever_it_holds(
    data: st.DataObject, place: tuple[str, str]
) -> None:
    use(make(place, _damaged(copy.deepcopy(right_value(place)), data.draw)), play=False)


@given(st.data())
@settings(max_examples=30)
def test_rivals_play_whatever_the_others_noted(data: st.DataObject) -> None:
    place = "system", "baselines:note"
    note = _damaged(copy.deepcopy(right_value(place)), data.draw)
    for name in ("BeamGrowthSampler", "LocalSearchSampler", "MultiAgentSampler"):
        study = make(place, note, getattr(baselines, name)(seed=0))
        study.optimize(grow, n_trials=1)
        assert study.trials[-1].state != TrialState.FAIL
