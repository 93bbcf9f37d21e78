"""`write_report`: a self-contained HTML page of a study, for readers without Python or internet access."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import string
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import optuna
from optuna.study import Study
from optuna.trial import TrialState

from optuna_trlhpo._texts import in_html, of_plotly
from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.space.growth import SPACE_ATTRIBUTE
from optuna_trlhpo.trials.attributes import SAMPLER_ATTRIBUTE, finite, read_from_study
from optuna_trlhpo.trials.training_record import own_trainings
from optuna_trlhpo.visualization._agent import plot_agent
from optuna_trlhpo.visualization._architecture import get_architecture_info, plot_architecture
from optuna_trlhpo.visualization._attention import plot_attention
from optuna_trlhpo.visualization._attention_affinity import plot_attention_affinity
from optuna_trlhpo.visualization._importances import plot_importances
from optuna_trlhpo.visualization._layer_affinity import plot_layer_affinity
from optuna_trlhpo.visualization._layer_rewards import plot_layer_rewards
from optuna_trlhpo.visualization._pareto_layers import plot_pareto_layers
from optuna_trlhpo.visualization._plotly import import_plotly
from optuna_trlhpo.visualization._report_page import PAGE, packed, pairs, table
from optuna_trlhpo.visualization._search_tree import plot_search_tree
from optuna_trlhpo.visualization._study import NONE_FEASIBLE, Layered, count, decimal, feasible, read_layers

if TYPE_CHECKING:
    import plotly.graph_objects as go

_BEST = 10
"""Number of networks in the table of the best."""
_TRAINING = "training"
"""User attribute of a study with the training settings of `CNNObjective`."""
_CONFIRMED = "confirmed_accuracies"
"""User attribute of a study with the accuracies that `CNNObjective.confirm` has measured."""
_LONGEST = 300
"""Maximum number of characters of a user attribute that are shown."""
_LARGE = 1e15
"""Numbers from which on digits are not grouped."""


class TrainedAgain(Protocol):
    """A network that was trained again, such as the result of `CNNObjective.refit`."""

    @property
    def architecture(self) -> str:
        """Architecture as text."""

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test images."""

    @property
    def seconds(self) -> float:
        """Duration of the training."""


def write_report(
    study: Study, path: str | Path, *, space: LayerSpace | None = None, refit: TrainedAgain | None = None
) -> Path:
    """Write an HTML page about a study: the best network, figures, tables, settings and versions.

    The page is self-contained and needs no internet access. It includes plotly.js in compressed form, which
    browsers of 2023 or later can unpack, and has a size of about 2 MB. Figures without data are left out.

    Args:
        study: A study of any sampler, finished or running.
        path: Path of the file. An existing file is replaced, and missing folders are created.
        space: Search space of the networks, for a study that does not record it.
        refit: A network that was trained again, whose test accuracy the page shows; see
            `CNNObjective.refit`.

    Returns:
        The path of the file.

    Raises:
        ImportError: If Plotly is not installed.
        OSError: If the file cannot be written.

    Examples:
        >>> import tempfile
        >>> study = optuna.create_study(direction="maximize")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_report(study, Path(folder) / "report.html").read_text(encoding="utf-8")
        >>> "The study has no finished trial." in page
        True
    """
    import_plotly()
    from plotly.offline import get_plotlyjs

    layered = read_layers(study)
    sections, figures = _figures(study, space)
    page = string.Template(PAGE).substitute(
        title=in_html(study.study_name),
        summary=pairs(_summary(study, layered)),
        best=_best_network(study, space),
        leaders=_leaders(study, layered, space),
        confirmed=_trained_again(study, refit),
        figures=sections,
        settings=_settings(study),
        versions=pairs(_versions()),
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
        plotly=packed(get_plotlyjs()),
        data=packed(f"[{','.join(figures)}]"),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _figures(study: Study, space: LayerSpace | None) -> tuple[str, list[str]]:
    """Return the sections as HTML and the figures as JSON. What the study cannot show is left out."""
    makers: list[tuple[str, Callable[[], go.Figure]]] = [
        ("Value of each trial, and the best so far.", lambda: _history(study)),
        ("The best network, layer by layer.", lambda: plot_architecture(study, space=space)),
        ("Value and cost of the networks.", lambda: plot_pareto_layers(study, space=space)),
        (
            "Gain of each layer: the improvement over the network before it.",
            lambda: plot_layer_rewards(study),
        ),
        (
            "Pairs of neighbouring layers that worsen or improve a network.",
            lambda: plot_layer_affinity(study),
        ),
        ("Parameters that decide whether a trial is good.", lambda: plot_importances(study)),
        ("Tree of the networks tried, and the path to the best one.", lambda: plot_search_tree(study)),
        ("Diagnostics of the agent, such as expected and realised values.", lambda: plot_agent(study)),
        ("Attention to the earlier layers at each choice.", lambda: plot_attention(study)),
        ("Relation of attention to the importance of layers.", lambda: plot_attention_affinity(study)),
    ]
    sections, figures = [], []
    for number, (caption, make) in enumerate(makers):
        figure = make()
        if not figure.data:
            continue
        title = figure.layout.title
        sections.append(f"<h2>{in_html(of_plotly(str(title.text)))}</h2><p>{caption}</p>")
        if title.subtitle.text:
            sections.append(f'<p class="under">{in_html(of_plotly(title.subtitle.text))}</p>')
        figure.update_layout(title=None, margin={"t": max(80, figure.layout.margin.t or 0)})
        height = figure.layout.height or 450
        sections.append(f'<div class="figure" id="figure{number}" style="height:{height}px"></div>')
        figures.append(f'{{"id":"figure{number}","figure":{figure.to_json()}}}')
    return "\n".join(sections), figures


def _history(study: Study) -> go.Figure:
    """Return Optuna's optimisation history, without data if it has none or several objectives."""
    if len(study.directions) > 1 or not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return import_plotly().Figure()
    names = study.metric_names
    figure = optuna.visualization.plot_optimization_history(
        study, target_name=names[0] if names else "Objective Value"
    )
    return figure.update_layout(title_text="Optimisation History")


def _summary(study: Study, layered: Layered) -> list[tuple[str, str]]:
    trials = study.get_trials(deepcopy=False)
    states = Counter(trial.state.name.lower() for trial in trials)
    begun = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
    ended = [trial.datetime_complete for trial in trials if trial.datetime_complete is not None]
    rows = [
        ("Directions", ", ".join(direction.name.lower() for direction in study.directions)),
        ("Trials", ", ".join(f"{n:,} {state}" for state, n in states.items()) or "none"),
    ]
    if begun:
        rows.append(("From", f"{min(begun):%Y-%m-%d %H:%M:%S}"))
    if ended:
        rows.append(("Until", f"{max(ended):%Y-%m-%d %H:%M:%S}"))
    rows.append(("Different networks with a value", f"{len(layered.values):,}"))
    limits = dict.fromkeys(name for trial in trials for name in trial.constraints)
    if limits:
        finished = [trial for trial in trials if trial.state.is_finished()]
        within = sum(map(feasible, finished))
        rows.append(
            ("Constraints", f"{', '.join(limits)}: {within:,} of {len(finished):,} trials satisfy all")
        )
    trainings = [training for own in own_trainings(trials) for training in own]
    if trainings:
        looked_up = sum(training.looked_up for training in trainings)
        seconds = sum(training.seconds for training in trainings if not training.looked_up)
        trained = len(trainings) - looked_up
        rows.append(("Trainings", f"{trained:,} in {seconds:,.0f} s; {looked_up:,} looked up"))
    return rows


def _best_network(study: Study, space: LayerSpace | None) -> str:
    info = get_architecture_info(study, None, space)
    if info.note:
        return f'<p class="note">{in_html(info.note)}</p>'
    rows = [
        (
            part.name,
            part.shape,
            count(part.parameters),
            count(part.macs),
            "" if part.value is None else decimal(part.value),
            "" if part.reward is None else decimal(part.reward, signed=True),
        )
        for part in info.parts
    ]
    rows.append(("total", "", count(info.parameters), count(info.macs), "", ""))
    header = ("layer", "output", "parameters", "MACs", info.value_name, "gain")
    layers = " > ".join(part.name for part in info.parts[1:-1])
    by = f", the best by {info.value_name}" if len(study.directions) > 1 else ""
    head = f"<p>Trial {info.number}{in_html(by)}: <code>{in_html(layers)}</code></p>"
    return head + table(header, rows)


def _leaders(study: Study, layered: Layered, space: LayerSpace | None) -> str:
    space = layered.space if space is None else space
    first: dict[Network, int] = {}
    for trial in layered.trials:
        for k in trial.values if trial.feasible else ():
            first.setdefault(trial.layers[:k], trial.number)
    order = sorted(first, key=lambda network: -layered.sign * layered.values[network])[:_BEST]
    rows = []
    for network in order:
        costs = ("", "")
        if space is not None:
            try:
                costs = count(space.parameters(network)), count(space.macs(network))
            except ValueError:  # the study changed its space
                pass
        rows.append((str(first[network]), decimal(layered.values[network]), *costs, describe(network)))
    if not rows:
        return f'<p class="note">{in_html(layered.note or NONE_FEASIBLE)}</p>'
    header = ("trial", layered.value_name, "parameters", "MACs", "network")
    return table(header, rows) + _trade_offs(study)


def _trained_again(study: Study, refit: TrainedAgain | None) -> str:
    """Return the accuracies of networks that `CNNObjective.confirm` and `refit` trained again, if any."""
    kept = study.user_attrs.get(_CONFIRMED)
    rows: list[tuple[str, ...]] = []
    for networks in kept.values() if isinstance(kept, dict) else ():
        for network, accuracies in networks.items() if isinstance(networks, dict) else ():
            numbers = [finite(it) for it in accuracies] if isinstance(accuracies, list) else []
            known = [it for it in numbers if it is not None]
            if known:
                span = f"{decimal(min(known))} to {decimal(max(known))}"
                rows.append((decimal(sum(known) / len(known)), span, str(len(known)), network))
    rows.sort(key=lambda row: row[0], reverse=True)
    parts = []
    if rows:
        header = ("mean validation accuracy", "from the least to the greatest", "trainings", "network")
        parts.append(table(header, rows))
    if refit is not None and refit.test_accuracy is not None:
        accuracy = f"test accuracy {refit.test_accuracy:.2%} after training again for {refit.seconds:,.0f} s"
        parts.append(f"<p><code>{in_html(refit.architecture)}</code>: {accuracy}.</p>")
    return f"<h2>Trained again</h2>{''.join(parts)}" if parts else ""


def _trade_offs(study: Study) -> str:
    """Return a table of the Pareto-optimal trials of a study with several objectives, otherwise nothing."""
    if len(study.directions) == 1:
        return ""
    names = study.metric_names or [f"objective {i}" for i in range(len(study.directions))]
    best = sorted(study.best_trials, key=lambda trial: trial.number)
    rows = [(str(trial.number), *(f"{value:.6g}" for value in trial.values)) for trial in best]
    return f"<h3>Pareto-optimal trials</h3>{table(('trial', *names), rows)}"


def _settings(study: Study) -> str:
    parts = []
    for title, settings in (
        ("Space", study.user_attrs.get(SPACE_ATTRIBUTE)),
        ("Sampler (the latest)", read_from_study(study, SAMPLER_ATTRIBUTE)),  # shown without validation
        ("Training", study.user_attrs.get(_TRAINING)),
        ("User attributes of the study", _others(study.user_attrs)),
    ):
        if isinstance(settings, dict) and settings:
            parts.append(f"<h3>{title}</h3>{pairs(_rows(settings))}")
    return "".join(parts) or '<p class="note">The study records no settings.</p>'


def _rows(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        key = name.replace("_", " ")
        if isinstance(value, dict) and value:
            yield from ((f"{key}: {inner}".replace("_", " "), _text(it)) for inner, it in value.items())
        elif key == "vocabulary":
            yield "layers", {"": "Table I"}.get(value, f"kinds.{str(value).upper()}")
        else:
            yield key, _text(value)


def _others(attributes: dict[str, Any]) -> dict[str, Any]:
    # Attributes with a colon belong to tools, such as the notes of a dashboard.
    shown = (SPACE_ATTRIBUTE, _TRAINING, _CONFIRMED)
    return {key: value for key, value in attributes.items() if key not in shown and ":" not in key}


def _text(value: Any) -> str:
    """Return a setting in words."""
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and abs(value) < _LARGE:
        return f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"
    if isinstance(value, list) and all(isinstance(it, str | int | float) for it in value):
        return ", ".join(map(_text, value))[: _LONGEST + 1]
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a circular reference
        return f"({type(value).__name__})"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _versions() -> list[tuple[str, str]]:
    packages = ("optuna-trlhpo", "optuna", "torch", "plotly")
    rows = [(name, version) for name in packages if (version := _version(name)) is not None]
    return [*rows, ("Python", platform.python_version()), ("machine", platform.machine())]


def _version(package: str) -> str | None:
    if package == "optuna":
        return optuna.__version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # imported from a checkout that is not installed
        return None
