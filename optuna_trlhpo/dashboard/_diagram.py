"""Diagram of a network as SVG, which every browser shows, written without other packages."""

from __future__ import annotations

from optuna_trlhpo._texts import in_html
from optuna_trlhpo.visualization._architecture import ArchitectureInfo
from optuna_trlhpo.visualization._plotly import GREY, colours_of
from optuna_trlhpo.visualization._study import decimal

_WIDTH, _STEP, _BOX = 640, 56, 200
"""Width of the picture, vertical distance of the boxes, and width of a box, in pixels."""


def architecture_svg(architecture: ArchitectureInfo) -> str:
    """Return a diagram of boxes from top to bottom, each with its shape, parameters, MACs and reward."""
    parts = architecture.parts
    colours = {**colours_of(part.kind for part in parts), "input": GREY, "classifier": GREY}
    height = _STEP * len(parts) + 60
    value = "" if architecture.value is None else f": {architecture.value_name} {decimal(architecture.value)}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="14">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="20" y="28" font-weight="bold">Trial {architecture.number}{in_html(value)}</text>',
    ]
    for k, part in enumerate(parts):
        top = 44 + _STEP * k
        middle = top + 22
        if k:
            arrow = f"M {20 + _BOX / 2} {top - 18} v 14 m -4 -5 l 4 5 l 4 -5"
            lines.append(f'<path d="{arrow}" fill="none" stroke="#444"/>')
        colour = colours[part.kind]
        lines.append(
            f'<rect x="20" y="{top}" width="{_BOX}" height="34" rx="4" fill="{colour}" fill-opacity="0.35" '
            f'stroke="{colour}"/>'
        )
        lines.append(
            f'<text x="{20 + _BOX / 2}" y="{middle}" text-anchor="middle">{in_html(part.name)}</text>'
        )
        about = [part.shape]
        if k:
            about += [] if part.parameters is None else [f"{part.parameters:,} parameters"]
            about += [] if part.macs is None else [f"{part.macs:,} MACs"]
            about += [] if part.reward is None else [f"gain {decimal(part.reward, signed=True)}"]
        text = in_html("  ·  ".join(it for it in about if it))
        lines.append(f'<text x="{40 + _BOX}" y="{middle}" font-size="12" fill="#444">{text}</text>')
    return "\n".join([*lines, "</svg>", ""])
