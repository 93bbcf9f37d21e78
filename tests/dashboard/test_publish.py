"""What the dashboard gets: notes, figures and files, each written once, and never too much of them."""

from __future__ import annotations

import json
import logging
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._serializer import serialize_frozen_trial

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler
from optuna_trlhpo.cnn import CNNObjective
from optuna_trlhpo.dashboard import PublishCallback, _figures, _publish, publish
from optuna_trlhpo.dashboard._figures import FIGURES, MOST_CHARACTERS, figure_of
from optuna_trlhpo.dashboard._markdown import END, leaders
from optuna_trlhpo.dashboard._publish import PUBLISHED_ATTRIBUTE
from tests.helpers import value_of

KEPT = "[//]: # (optuna-trlhpo begins)"


def layered(space: LayerSpace | None = None) -> Any:
    """An objective without a training: the more filters and neurons, the better."""
    space = LayerSpace(max_layers=3, min_improvement=None, min_accuracy=None) if space is None else space

    def objective(trial: optuna.Trial) -> float:
        value = 0.0
        for layers in space.grow(trial):
            value = 1 - 1 / (1 + sum(getattr(it, "filters", getattr(it, "neurons", 1)) for it in layers))
            trial.report(value, step=len(layers) - 1)
        return value

    return objective


def study_of(n_trials: int, objective: Any, **how: Any) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(**{"direction": "maximize", "sampler": sampler, **how})
    study.optimize(objective, n_trials=n_trials, catch=(RuntimeError,))
    return study


def written(study: optuna.Study) -> dict[str, Any]:
    return study._storage.get_study_system_attrs(study._study_id)


def seen(study: optuna.Study, number: int) -> dict[str, Any]:
    """What the dashboard tells its page of a trial."""
    return serialize_frozen_trial(study._study_id, study.get_trials()[number], written(study))


@pytest.fixture(params=["memory", "sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "journal":
        backend = JournalFileBackend(str(tmp_path / "journal"))
        return optuna.storages.JournalStorage(backend)
    return None if request.param == "memory" else f"sqlite:///{tmp_path / 'study.db'}"


@pytest.mark.slow
def test_publish(storage: Any, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    store = FileSystemArtifactStore(str(tmp_path / "files"))
    study = study_of(12, layered(), storage=storage)
    publish(study, top=2, artifact_store=store)
    best = study.best_trial
    note = get_note(study)
    assert f"## The best trial: {best.number}, value {best.value:.4f}" in note
    assert f"{best.params['layer1_conv_filters']}x" in note  # a shape, so the space was found in the study
    figures = get_plotly_graph_objects(written(study))
    assert {"trlhpo-layer-rewards", "trlhpo-architecture", "trlhpo-search-tree"} <= set(figures)
    assert "trlhpo-attention" not in figures  # there was none
    assert all(json.loads(text)["data"] for text in figures.values())
    told = seen(study, best.number)
    assert told["note"]["body"].count("\n| ") >= 4
    (artifact,) = told["artifacts"]
    assert (artifact["filename"], artifact["mimetype"]) == (f"trial-{best.number}.svg", "image/svg+xml")
    with store.open_reader(artifact["artifact_id"]) as file:
        assert file.read().startswith(b"<svg ")
    noted = [number for number in range(12) if seen(study, number)["note"]["body"]]
    assert len(noted) == 2

    before = written(study)
    publish(study, top=2, artifact_store=store)
    assert written(study) == before  # to the last version number


def test_notes_follow_the_best_and_keep_what_people_wrote() -> None:
    study = study_of(6, layered())
    publish(study, top=1)
    first = study.best_trial.number
    save_note(study, f"Mine.\n\n{get_note(study)}\n\nMine too.")
    running = study.ask()
    save_note(running, "Not ours.")
    study.tell(running, state=optuna.trial.TrialState.FAIL)
    study.add_trial(optuna.trial.create_trial(value=2.0))
    publish(study, top=1)
    note = get_note(study)
    assert note.startswith("Mine.") and note.endswith("Mine too.") and note.count(KEPT) == 1
    assert "The best trial: 7, value 2" in note
    assert [number for number in range(8) if seen(study, number)["note"]["body"]] == [6, 7]
    assert seen(study, 6)["note"]["body"] == "Not ours." and first < 6


def test_a_note_whose_end_was_deleted_loses_nothing() -> None:
    study = study_of(3, layered())
    publish(study)
    save_note(study, f"Mine.\n\n{get_note(study).replace(END, '')}\n\nMine too.")
    publish(study)
    note = get_note(study)
    assert note.startswith("Mine.") and "Mine too." in note and note.count(KEPT) == 1
    publish(study)
    assert get_note(study) == note


@pytest.mark.slow
def test_onnx_of_the_best_few_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = CNNObjective("digits", epochs=1, max_layers=2, device="cpu")
    study = study_of(3, objective)
    store = FileSystemArtifactStore(str(tmp_path))
    publish(study, top=1, artifact_store=store, objective=objective)
    artifacts = {
        it["filename"]: it["artifact_id"] for it in seen(study, study.best_trial.number)["artifacts"]
    }
    name = f"trial-{study.best_trial.number}.onnx"
    assert set(artifacts) == {name, name.replace(".onnx", ".svg")}
    session = onnxruntime.InferenceSession(str(tmp_path / artifacts[name]))
    assert session.get_inputs()[0].shape[1:] == [1, 8, 8]
    monkeypatch.setattr(CNNObjective, "refit", lambda *_, **__: pytest.fail("it was trained again"))
    publish(study, top=1, artifact_store=store, objective=objective)
    assert len(list(tmp_path.iterdir())) == 2


class _Exporter:
    """As much of an objective as exports; not the trials in ``broken``."""

    def __init__(self, *broken: int) -> None:
        self.broken, self.made = broken, 0

    def export(self, trial: FrozenTrial, path: Path) -> None:
        if trial.number in self.broken:
            raise RuntimeError(f"trial {trial.number} is broken")
        self.made += 1
        path.write_bytes(b"x")


def files(study: optuna.Study) -> list[str]:
    return sorted(it["filename"] for n in range(len(study.trials)) for it in seen(study, n)["artifacts"])


def test_one_file_that_fails_keeps_nothing_else_back(tmp_path: Path) -> None:
    study, store = study_of(8, layered()), FileSystemArtifactStore(str(tmp_path))
    best = leaders(study)[:3]
    broken, *others = (trial.number for trial in best)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"trial {broken} is broken"):
            publish(study, artifact_store=store, objective=_Exporter(broken))  # type: ignore[arg-type]
        wanted = [f"trial-{trial.number}.svg" for trial in best] + [f"trial-{n}.onnx" for n in others]
        assert files(study) == sorted(wanted)
        assert len(list(tmp_path.iterdir())) == 5
        assert "## The best trial" in get_note(study)
        assert "trlhpo-architecture" in get_plotly_graph_objects(written(study))
    again = _Exporter()
    publish(study, artifact_store=store, objective=again)  # type: ignore[arg-type]
    assert again.made == 1 and len(files(study)) == 6


def test_what_a_store_has_lost_or_another_lacks_is_stored_again(tmp_path: Path) -> None:
    study, folders = study_of(4, layered()), (tmp_path / "a", tmp_path / "b")
    for folder in folders:
        folder.mkdir()
        publish(study, top=1, artifact_store=FileSystemArtifactStore(str(folder)))
        assert len(list(folder.iterdir())) == 1 and len(files(study)) == 1
    next(folders[0].iterdir()).unlink()
    publish(study, top=1, artifact_store=FileSystemArtifactStore(str(folders[0])))
    assert len(list(folders[0].iterdir())) == 1 and len(files(study)) == 1


@pytest.mark.slow
def test_an_attribute_of_our_name_that_is_none_of_ours_is_ignored() -> None:
    garbage: list[Any] = [[1], "x", {"figures": 3, "noted": "no"}, {"noted": ["a", 99]}]
    for foreign in garbage:
        study = study_of(2, layered())
        study._storage.set_study_system_attr(study._study_id, PUBLISHED_ATTRIBUTE, foreign)
        publish(study)
        assert KEPT in get_note(study)


def fails(trial: optuna.Trial) -> float:
    trial.suggest_float("x", 0, 1)
    raise RuntimeError("no")


def several(trial: optuna.Trial) -> tuple[float, float]:
    x = trial.suggest_float("x", 0, 1)
    return x, x  # more of both: none beats another


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_trials", "objective", "how", "expected"),
    [
        (0, fails, {}, "No trial yet."),
        (3, fails, {}, "No complete trial meets all constraints yet."),
        (1, layered(LayerSpace(max_layers=1)), {}, "The best trial: 0"),
        (5, lambda trial: trial.suggest_float("a|b", 0, 1), {"direction": "minimize"}, "| a\\|b |"),
        (
            9,
            several,
            {"direction": None, "directions": ["maximize", "minimize"]},
            "Pareto-optimal trials",
        ),
        (9, layered(), {"sampler": TRLHPOSampler(seed=0)}, "## The best trials"),
    ],
)
def test_any_study_can_be_published(n_trials: int, objective: Any, how: dict, expected: str) -> None:
    study = study_of(n_trials, objective, **how)
    publish(study)
    assert expected in get_note(study)


def test_names_are_text_and_no_markdown() -> None:
    study = study_of(3, layered())
    study.set_metric_names(["a|b <i> *c*"])
    publish(study)
    heads = [line for line in get_note(study).splitlines() if "a\\|b" in line]
    assert len(heads) >= 3 and all("a\\|b \\<i> \\*c\\*" in line for line in heads)


def test_constraints_are_told() -> None:
    inner = layered()

    def objective(trial: optuna.Trial) -> float:
        value = inner(trial)
        trial.set_constraint("budget", 1.0 if trial.number % 2 else -1.0)
        return value + trial.number % 2  # the best are not allowed

    study = study_of(10, objective)
    publish(study)
    note = get_note(study)
    best = max(study.trials[::2], key=value_of)
    assert f"The best trial: {best.number}," in note
    assert study._storage.get_best_trial(study._study_id).number != best.number  # what the dashboard shows
    assert "| budget | -1.0000 | 10 | 5 | 1.0000 |" in note
    assert "5 of 10 trials meet all constraints" in note and "may violate one" in note
    assert "| budget | -1.0000 | met |" in seen(study, best.number)["note"]["body"]


@pytest.fixture(scope="module")
def large() -> optuna.Study:
    """1,000 trials of up to ten layers: far more than 30 conditional parameters."""
    space = LayerSpace(max_layers=10, min_improvement=None, min_accuracy=None)
    return study_of(1000, layered(space))


@pytest.mark.slow
def test_a_large_study_stays_small(large: optuna.Study) -> None:
    assert len({name for trial in large.get_trials(deepcopy=False) for name in trial.params}) > 30
    publish(large)
    attributes = written(large)
    figures = get_plotly_graph_objects(attributes)
    assert len(figures) >= 5
    assert max(map(len, figures.values())) <= MOST_CHARACTERS
    assert sum(len(str(value)) for value in attributes.values()) < 500_000  # all that we add to what it sends
    thinned = [text for text in figures.values() if "points are drawn, all are counted" in text]
    assert thinned and len(thinned) < len(figures)
    best = large.best_trial
    assert f"Architecture of Trial {best.number}" in figures["trlhpo-architecture"]
    assert len(get_note(large)) < 6_000
    notes = {key.rpartition("note_")[0] for key in attributes if "note_" in key}
    assert len(notes) == 1 + 3  # of the study, and of three trials
    for trial in large.get_trials(deepcopy=False):
        assert not cut(trial)


@pytest.fixture(scope="module")
def of_agent() -> optuna.Study:
    """Every figure has data."""
    agent = AgentConfig.paper(width=16, heads=2, blocks=1)
    sampler = TRLHPOSampler.paper(seed=1, agent=agent, warn_independent_sampling=False)
    return study_of(60, layered(), sampler=sampler)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES.values())
def test_a_smaller_figure_says_what_the_whole_says(
    name: str, of_agent: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = leaders(of_agent)

    def drawn() -> dict[str, Any]:
        text = figure_of(of_agent, name, best)
        assert text is not None
        return json.loads(text)

    whole = drawn()
    for room in (40_000, 20_000):
        monkeypatch.setattr(_figures, "MOST_CHARACTERS", room)
        small = drawn()
        sentences = [
            [it["text"] for it in figure["layout"].get("annotations", [])] for figure in (whole, small)
        ]
        assert sentences[0] == sentences[1]
        for large, little in zip(whole["data"], small["data"], strict=True):
            if large["type"] == "box" and large["y"]:
                for x in set(large.get("x", [0])):
                    found = [
                        [y for i, y in enumerate(it["y"]) if "x" not in it or it["x"][i] == x]
                        for it in (large, little)
                    ]
                    span = max(found[0]) - min(found[0])
                    one, other = (np.quantile(ys, [0, 0.25, 0.5, 0.75, 1]) for ys in found)
                    np.testing.assert_allclose(one, other, atol=0.1 * span + 1e-4)
            lengths = {len(little[key]) for key in ("x", "y", "text") if isinstance(little.get(key), list)}
            assert large["type"] not in ("scatter", "box") or len(lengths) == 1


def cut(trial: FrozenTrial) -> list[str]:
    """The user attributes that the dashboard would not show whole."""
    return [
        name
        for name, value in trial.user_attrs.items()
        if not isinstance(value, str | int | float) and len(json.dumps(value)) > 1024
    ]


@pytest.mark.slow
def test_no_attribute_of_a_trained_network_is_cut() -> None:
    objective = CNNObjective("digits", epochs=1, max_layers=6, min_accuracy=None, device="cpu")
    study = study_of(4, objective, sampler=TRLHPOSampler(seed=0))
    assert all(not cut(trial) for trial in study.trials)
    assert all(len(json.dumps(value)) <= 1024 for value in study.user_attrs.values())


# The callback ----------------------------------------------------------------------------------------------


def test_callback_keeps_it_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_publish, "SHARE", 1.0)  # however slow this machine is
    behind: list[int] = []
    right = _publish.publish

    def noting(study: optuna.Study, **how: Any) -> None:
        behind.append(len(study.trials))
        right(study, **how)

    monkeypatch.setattr(_publish, "publish", noting)
    study = optuna.create_study(direction="maximize")
    study.optimize(layered(), n_trials=10, callbacks=[PublishCallback(every=4, top=1)])
    assert behind == [4, 8]
    assert "8 trials:" in get_note(study)


def test_callback_takes_its_share_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(_publish.time, "monotonic", lambda: clock[0])
    taken: list[float] = []

    def slow(study: optuna.Study, **how: Any) -> None:
        taken.append(clock[0])
        clock[0] += 2.0

    monkeypatch.setattr(_publish, "publish", slow)
    callback, study = PublishCallback(every=1), study_of(1, lambda trial: 0.0)
    for _ in range(50):
        callback(study, study.trials[0])
        clock[0] += 1.0
    assert taken == [0.0, 20.0, 40.0]  # two seconds of twenty


def test_callback_fails_no_study(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(study: optuna.Study, **how: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(_publish, "publish", broken)
    optuna.logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            study = optuna.create_study()
            study.optimize(lambda trial: 0.0, n_trials=3, callbacks=[PublishCallback(every=3)])
    finally:
        optuna.logging.disable_propagation()
    assert len(study.trials) == 3
    assert "was not published after trial 2: OSError('the disk is full')" in caplog.text


def test_callback_in_threads_and_pickled() -> None:
    callback = pickle.loads(pickle.dumps(PublishCallback(every=2, top=1)))
    study = optuna.create_study(direction="maximize")
    study.optimize(layered(), n_trials=12, n_jobs=3, callbacks=[callback])
    assert len(study.trials) == 12 and KEPT in get_note(study)
    pickle.loads(pickle.dumps(callback))(study, study.trials[-1])  # after its use, too


def test_bad_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    study = optuna.create_study()
    with pytest.raises(ValueError, match="study is a str"):
        publish("study")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="top is -1; it must be an integer of at least 0"):
        publish(study, top=-1)
    with pytest.raises(ValueError, match="every is True; it must be a positive integer"):
        PublishCallback(every=True)
    with pytest.raises(ValueError, match="every is 0; it must be a positive integer"):
        PublishCallback(every=0)
    with pytest.raises(ValueError, match="the exported networks are stored there"):
        publish(study, objective=CNNObjective("digits"))
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(ImportError, match=r'pip install "optuna-trlhpo\[dashboard\]"'):
        publish(study)
