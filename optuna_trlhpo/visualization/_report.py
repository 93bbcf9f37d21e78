"""`write_report`: a self-contained HTML page of a study, for readers without Python or internet access."""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import json
import platform
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import Study

from optuna_trlhpo._texts import in_html, of_plotly
from optuna_trlhpo.layers import Network, describe
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.space.growth import SPACE_ATTRIBUTE
from optuna_trlhpo.trials.attributes import SAMPLER_ATTRIBUTE, read_from_study
from optuna_trlhpo.trials.training_record import read_trainings
from optuna_trlhpo.visualization._agent import plot_agent
from optuna_trlhpo.visualization._architecture import get_architecture_info, plot_architecture
from optuna_trlhpo.visualization._attention import plot_attention
from optuna_trlhpo.visualization._attention_affinity import plot_attention_affinity
from optuna_trlhpo.visualization._layer_affinity import plot_layer_affinity
from optuna_trlhpo.visualization._layer_rewards import plot_layer_rewards
from optuna_trlhpo.visualization._pareto_layers import plot_pareto_layers
from optuna_trlhpo.visualization._plotly import import_plotly
from optuna_trlhpo.visualization._search_tree import plot_search_tree
from optuna_trlhpo.visualization._study import NONE_FEASIBLE, Layered, count, decimal, feasible, read_layers

if TYPE_CHECKING:
    import plotly.graph_objects as go

_BEST = 10
"""Number of networks in the table of the best."""
_TRAINING = "training"
"""User attribute of a study with the training settings of `CNNObjective`."""
_LONGEST = 300
"""Maximum number of characters of a user attribute that are shown."""


def write_report(study: Study, path: str | Path, *, space: LayerSpace | None = None) -> Path:
    """Write an HTML page about a study: the best network, figures, tables, settings and versions.

    The page is self-contained and needs no internet access. It includes plotly.js in compressed form, which
    browsers of 2023 or later can unpack, and has a size of about 2 MB. A figure without data is replaced by a
    sentence with the reason.

    Args:
        study: A study of any sampler, finished or running.
        path: Path of the file. An existing file is replaced, and missing folders are created.
        space: Search space of the networks, for a study that does not record it.

    Returns:
        The path of the file.

    Raises:
        ImportError: If Plotly is not installed.
        OSError: If the file cannot be written.

    Example:
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
    page = string.Template(_PAGE).substitute(
        title=in_html(study.study_name),
        summary=_pairs(_summary(study, layered)),
        best=_best_network(study, space),
        leaders=_leaders(study, layered, space),
        figures=sections,
        settings=_settings(study),
        versions=_pairs(_versions()),
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
        plotly=_packed(get_plotlyjs()),
        data=_packed(f"[{','.join(figures)}]"),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _figures(study: Study, space: LayerSpace | None) -> tuple[str, list[str]]:
    """Return the sections as HTML and the figures as JSON."""
    makers: list[tuple[str, Callable[[], go.Figure]]] = [
        ("The best network, layer by layer.", lambda: plot_architecture(study, space=space)),
        ("Value and cost of the networks.", lambda: plot_pareto_layers(study, space=space)),
        (
            "Reward of each layer: the improvement over the network before it.",
            lambda: plot_layer_rewards(study),
        ),
        (
            "Pairs of neighbouring layers that worsen or improve a network.",
            lambda: plot_layer_affinity(study),
        ),
        ("Tree of the networks tried, and the path to the best one.", lambda: plot_search_tree(study)),
        ("Diagnostics of the agent, such as expected and realised values.", lambda: plot_agent(study)),
        ("Attention to the earlier layers at each choice.", lambda: plot_attention(study)),
        ("Relation of attention to the importance of layers.", lambda: plot_attention_affinity(study)),
    ]
    sections, figures = [], []
    for number, (caption, make) in enumerate(makers):
        figure = make()
        title = of_plotly(str(figure.layout.title.text))
        sections.append(f"<h2>{in_html(title)}</h2><p>{caption}</p>")
        if not figure.data:
            text = of_plotly(figure.layout.annotations[0].text)
            sections.append(f'<p class="note">{in_html(text)}</p>')
            continue
        figure.update_layout(title=None, margin={"t": 80})
        height = figure.layout.height or 450
        sections.append(f'<div class="figure" id="figure{number}" style="height:{height}px"></div>')
        figures.append(f'{{"id":"figure{number}","figure":{figure.to_json()}}}')
    return "\n".join(sections), figures


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
    trainings = [training for trial in trials for training in read_trainings(trial)[1]]
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
    header = ("layer", "output", "parameters", "MACs", info.value_name, "reward")
    layers = " > ".join(part.name for part in info.parts[1:-1])
    by = f", the best by {info.value_name}" if len(study.directions) > 1 else ""
    head = f"<p>Trial {info.number}{in_html(by)}: <code>{in_html(layers)}</code></p>"
    return head + _table(header, rows)


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
    table = _table(("trial", layered.value_name, "parameters", "MACs", "network"), rows)
    return table + _trade_offs(study)


def _trade_offs(study: Study) -> str:
    """Return a table of the Pareto-optimal trials of a study with several objectives, otherwise nothing."""
    if len(study.directions) == 1:
        return ""
    names = study.metric_names or [f"objective {i}" for i in range(len(study.directions))]
    best = sorted(study.best_trials, key=lambda trial: trial.number)
    rows = [(str(trial.number), *(f"{value:.6g}" for value in trial.values)) for trial in best]
    return f"<h3>Pareto-optimal trials</h3>{_table(('trial', *names), rows)}"


def _settings(study: Study) -> str:
    parts = []
    for title, settings in (
        ("Space", study.user_attrs.get(SPACE_ATTRIBUTE)),
        ("Sampler (the latest)", read_from_study(study, SAMPLER_ATTRIBUTE)),  # shown without validation
        ("Training", study.user_attrs.get(_TRAINING)),
        ("User attributes of the study", _others(study.user_attrs)),
    ):
        if isinstance(settings, dict) and settings:
            parts.append(f"<h3>{title}</h3>{_pairs(_rows(settings))}")
    return "".join(parts) or '<p class="note">The study records no settings.</p>'


def _rows(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from ((f"{key}: {inner}", _text(it)) for inner, it in value.items())
        elif key == "vocabulary" and value == "":
            yield key, "Table I"
        else:
            yield key, _text(value)


def _others(attributes: dict[str, Any]) -> dict[str, Any]:
    # Attributes with a colon belong to tools, such as the notes of a dashboard.
    shown = (SPACE_ATTRIBUTE, _TRAINING)
    return {key: value for key, value in attributes.items() if key not in shown and ":" not in key}


def _text(value: Any) -> str:
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


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{in_html(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{in_html(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    cells = (f"<tr><th>{in_html(key)}</th><td>{in_html(text)}</td></tr>\n" for key, text in rows)
    return f'<div class="wide"><table class="pairs">{"".join(cells)}</table></div>'


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
.pairs th, .pairs td { text-align: left; }
.note { color: #666; font-style: italic; }
code { overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>Study $title</h1>
$summary
<h2>The best network</h2>
$best
<h2>The best networks</h2>
$leaders
$figures
<h2>Settings</h2>
$settings
<h2>Versions</h2>
<p>This page was written on $written with these versions.</p>
$versions
<noscript><p class="note">The figures need JavaScript.</p></noscript>
<script type="text/plain" id="plotly">$plotly</script>
<script type="text/plain" id="data">$data</script>
<script>
async function unpacked(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
async function draw() {
  const library = document.createElement("script");
  library.textContent = await unpacked("plotly");
  document.head.append(library);
  for (const { id, figure } of JSON.parse(await unpacked("data"))) {
    await Plotly.newPlot(id, figure.data, figure.layout, { responsive: true });
  }
  document.body.dataset.drawn = "true";
}
if (typeof DecompressionStream === "undefined") {
  for (const place of document.querySelectorAll(".figure")) {
    place.textContent = "This browser is too old to unpack the figures; one of 2023 or later can.";
  }
} else {
  draw();
}
</script>
</body>
</html>
"""
