"""`plot_architecture`: the network of a trial, layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_trlhpo._texts import in_plotly
from optuna_trlhpo.layers import Layer, Network, Shape, describe, network_in
from optuna_trlhpo.space import LayerSpace
from optuna_trlhpo.visualization._plotly import GREY, colours_of, draw_figure, import_plotly
from optuna_trlhpo.visualization._study import (
    NONE_FEASIBLE,
    Layered,
    count,
    decimal,
    find_trial,
    read_layers,
    read_space,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Architecture"
_BOX = 0.36
"""Half the width of a box, in units of the horizontal axis."""


class Part(NamedTuple):
    """A row of the diagram: the input, a layer, or the classifier.

    Attributes:
        name: Name, such as ``"Conv(32,5,1)"``.
        kind: Kind of layer, such as ``"Conv"``.
        shape: Output shape as text. Empty if unknown.
        parameters: Number of weights and biases. None if unknown.
        macs: Multiply-accumulates for one image. None if unknown.
        value: Value of the network that ends here. None if it has none.
        reward: Reward of the layer. None if it has none.
    """

    name: str
    kind: str
    shape: str
    parameters: int | None
    macs: int | None
    value: float | None
    reward: float | None


class ArchitectureInfo(NamedTuple):
    """Data of `plot_architecture`."""

    number: int
    parts: list[Part]
    value: float | None
    value_name: str
    left_out: str
    """Layers that the trial tried after its best network."""
    note: str

    @property
    def parameters(self) -> int | None:
        """Number of weights and biases of the network. None if unknown."""
        return _total([part.parameters for part in self.parts])

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of the network for one image. None if unknown."""
        return _total([part.macs for part in self.parts])


def _total(counts: list[int | None]) -> int | None:
    return None if None in counts else sum(count for count in counts if count is not None)


def get_architecture_info(
    study: Study, trial: FrozenTrial | int | None, space: LayerSpace | None = None
) -> ArchitectureInfo:
    chosen = find_trial(study, trial)
    layered = read_layers(study)
    if chosen is None:
        best = layered.best()
        if best is None:
            return ArchitectureInfo(-1, [], None, "", "", layered.note or NONE_FEASIBLE)
        number, layers = best[0].number, best[0].layers
    else:
        number, layers = chosen.number, network_in(chosen.params)
    if not layers:
        return ArchitectureInfo(
            number, [], None, "", "", f"Trial {number} does not have the layers of a LayerSpace."
        )
    values = next((one.values for one in layered.trials if one.number == number), {})
    depth = max(values, key=lambda k: (layered.sign * values[k], -k), default=len(layers))
    network, left_out = layers[:depth], describe(layers[depth:])
    space = read_space(study) if space is None else space
    try:
        parts = _parts(network, values, layered, space)
    except ValueError as error:
        note = f"The network of trial {number} does not fit the space: {error}."
        return ArchitectureInfo(number, [], None, "", "", note)
    return ArchitectureInfo(number, parts, values.get(depth), layered.value_name, left_out, "")


def _parts(
    layers: Network, values: dict[int, float], layered: Layered, space: LayerSpace | None
) -> list[Part]:
    shapes: list[Shape | None] = [None] * (len(layers) + 1)
    if space is not None:
        shapes = [space.input_shape, *space.shapes(layers)]
    parts = [Part("input", "input", _text(shapes[0]), 0, 0, None, None)]
    for k, layer in enumerate(layers, start=1):
        parts.append(_part(layer, shapes[k - 1], shapes[k], *_outcome(k, layers, values, layered)))
    size = None if shapes[-1] is None else math.prod(shapes[-1])
    classes = None if space is None else space.num_classes
    macs = None if size is None or classes is None else size * classes
    parameters = None if size is None or classes is None else (size + 1) * classes
    parts.append(Part("classifier", "classifier", str(classes or ""), parameters, macs, None, None))
    return parts


def _part(
    layer: Layer, before: Shape | None, behind: Shape | None, value: float | None, reward: float | None
) -> Part:
    parameters = None if before is None else layer.parameters(before)
    macs = None if before is None else layer.macs(before)
    return Part(str(layer), layer.kind, _text(behind), parameters, macs, value, reward)


def _outcome(
    k: int, layers: Network, values: dict[int, float], layered: Layered
) -> tuple[float | None, float | None]:
    """Return the value of the first k layers and the reward of layer k, where known."""
    value = values.get(k)
    before = layered.before_any_layer if k == 1 else values.get(k - 1, layered.values.get(layers[: k - 1]))
    reward = None if value is None or before is None else layered.sign * (value - before)
    return value, reward


def _text(shape: Shape | None) -> str:
    return "" if shape is None else "x".join(map(str, shape))


def plot_architecture(
    study: Study, trial: FrozenTrial | int | None = None, *, space: LayerSpace | None = None
) -> go.Figure:
    """Plot the best network of a trial as a diagram.

    The diagram shows the layers, their output shapes, parameters, MACs, values and rewards. Layers that the
    trial tried after its best network, without an improvement, are named below it. Shapes and costs are
    computed in the space that is recorded in the study.

    Args:
        study: A study of any sampler on a `LayerSpace`.
        trial: A trial of the study, or its number. None selects the trial with the best network among those
            that satisfy their constraints.
        space: Search space, for a study that does not record it. Without one, shapes and costs are omitted.

    Returns:
        A figure. Without data it shows the reason.

    Raises:
        ImportError: If Plotly is not installed.
        ValueError: If the trial does not exist.

    Examples:
        >>> import optuna
        >>> from optuna_trlhpo.benchmarks.problems.synthetic import synthetic_layers
        >>> study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        >>> study.optimize(synthetic_layers(), n_trials=3)
        >>> plot_architecture(study, trial=0).layout.title.text.split(":")[0]
        'Architecture of Trial 0'
    """
    return draw_figure(TITLE, lambda: get_architecture_info(study, trial, space), _get_plot)


def _get_plot(info: ArchitectureInfo) -> go.Figure:
    go = import_plotly()
    colours = {**colours_of(part.kind for part in info.parts), "input": GREY, "classifier": GREY}
    figure = go.Figure()
    figure.add_trace(  # invisible markers for the hover texts
        go.Scatter(
            x=[0] * len(info.parts),
            y=list(range(len(info.parts))),
            mode="markers",
            marker={"opacity": 0, "size": 30},
            text=[_hover(part, info.value_name) for part in info.parts],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    texts: list[dict[str, Any]] = []  # set all at once, because Plotly copies all of them for each addition
    value_name = in_plotly(info.value_name)
    headers = {0.62: "output", 0.98: "parameters", 1.35: "MACs", 1.68: value_name, 2.02: "gain"}
    for x, header in headers.items():
        _write(texts, x, -0.8, f"<b>{header}</b>")
    for y, part in enumerate(info.parts):
        figure.add_shape(
            type="rect",
            x0=-_BOX,
            x1=_BOX,
            y0=y - 0.32,
            y1=y + 0.32,
            fillcolor=colours[part.kind],
            opacity=0.35,
            line={"color": colours[part.kind]},
        )
        _write(texts, 0, y, in_plotly(part.name))
        if y:
            arrow = {"x": 0, "y": y - 0.33, "ax": 0, "ay": y - 0.67, "axref": "x", "ayref": "y"}
            texts.append({"text": "", "showarrow": True, "arrowhead": 2, "arrowwidth": 1.2, **arrow})
        cells = (
            part.shape,
            count(part.parameters),
            count(part.macs),
            "" if part.value is None else decimal(part.value),
            "" if part.reward is None else decimal(part.reward, signed=True),
        )
        for x, cell in zip(headers, cells, strict=True):
            _write(texts, x, y, cell)
    bottom = len(info.parts) - 0.2
    for x, total in ((0.98, info.parameters), (1.35, info.macs)):
        _write(texts, x, bottom, f"<b>{count(total)}</b>")
    if info.left_out:
        _write(texts, 0.8, bottom + 0.7, f"tried after it and discarded: {in_plotly(info.left_out)}")
    title = f"Architecture of Trial {info.number}"
    title += "" if info.value is None else f": {value_name} {decimal(info.value)}"
    figure.update_xaxes(visible=False, range=[-0.45, 2.25], fixedrange=True)
    figure.update_yaxes(visible=False, range=[bottom + 1.2, -1.2], fixedrange=True)
    return figure.update_layout(
        title=title,
        annotations=texts,
        showlegend=False,
        plot_bgcolor="white",
        height=160 + 62 * len(info.parts),
    )


def _write(texts: list[dict[str, Any]], x: float, y: float, text: str) -> None:
    texts.append({"x": x, "y": y, "text": text, "showarrow": False})


def _hover(part: Part, value_name: str) -> str:
    lines = [in_plotly(part.name)]
    lines += [f"output {part.shape}"] if part.shape else []
    lines += [f"{count(part.parameters)} parameters"] if part.parameters is not None else []
    lines += [f"{count(part.macs)} MACs"] if part.macs is not None else []
    lines += [f"{in_plotly(value_name)} {decimal(part.value)}"] if part.value is not None else []
    return "<br>".join(lines)
