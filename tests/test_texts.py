"""Texts of others mean nothing where they stand in ours: in notes, pages, figures and pictures."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.cbook import is_math_text
from optuna.artifacts import FileSystemArtifactStore
from optuna.study import Study

from optuna_trlhpo import AgentConfig, LayerSpace, TRLHPOSampler, visualization
from optuna_trlhpo._texts import brief, in_html, in_markdown, in_matplotlib, in_plotly, of_plotly, plain
from optuna_trlhpo.dashboard import publish
from optuna_trlhpo.dashboard._diagram import architecture_svg
from optuna_trlhpo.dashboard._markdown import BEGIN, END
from optuna_trlhpo.visualization._architecture import get_architecture_info

dashboard = pytest.importorskip("optuna_dashboard")

NASTY = [
    "![x](http://example.org/x.png)",
    '<a href="http://example.org">here</a>',
    "<img src=x onerror=alert(1)>",
    "</title><script>alert(1)</script>",
    END,
    f"{END}\n\n{BEGIN}",
    "a|b `c` **d** _e_ ~~f~~ [g]: h",
    "&lt;b&gt; &#60;i&#62; &amp;",
    "$\\frac{1}{$ and $$x^2$$",
    "http://example.org www.example.org someone@example.org //example.org",
    "one\nline\ttwo\r\n\u2028three\x00four\x1b[31mfive",
    "\u202eright to left\u2066 \ud800 \ufffe",
    "%{y} %{text} {0} %s ${title} $title $$",
    "]]> <!-- --> <![CDATA[",
    "<b>bold</b><br><sub>low</sub>",
    "\\",
    "_hidden",
    "2026-01-01",
]
MARKS = [*"![]()<>{}|\\`*_~$&;:#@/.-+=^%\"'\n\t a1\x00\u202e", "http://", "www.", "<b>", "&lt;", "<a href='"]
texts = st.sampled_from(NASTY) | st.lists(st.sampled_from(MARKS), max_size=15).map("".join) | st.text()


# One text -------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The elements of a page, what they are given, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.others = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.others += 1

    unknown_decl = handle_comment


@given(texts)
@settings(max_examples=500)
def test_a_text_is_one_line_that_can_be_seen(text: str) -> None:
    line = plain(text)
    assert plain(line) == line and len(line.splitlines()) <= 1
    line.encode()
    assert not re.search("[\x00-\x1f\u202e]", line)


@given(texts)
@settings(max_examples=500)
def test_in_html_a_text_is_a_text(text: str) -> None:
    page = Page(f'<p title="{in_html(text)}">{in_html(text)}</p>')
    assert (page.tags, page.others) == (["p"], 0)
    assert page.text == plain(text) and page.attributes == [("title", plain(text))]
    assert ElementTree.fromstring(f"<p>{in_html(text)}</p>").text in (plain(text), None)


@given(texts)
@settings(max_examples=500)
def test_in_markdown_a_text_is_a_text(text: str) -> None:
    """Every sign that means something is escaped, and no address is left in one piece."""
    written = in_markdown(text)
    free = re.sub(r"\\[!-/:-@\[-`{-~]", "", written)
    assert not re.search(r"[\\`*_\[\]<|$~!&^]", free)
    assert not re.search(r"//|www\.|\w@", written)
    read = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", written)
    assert read.replace("\u2060", "") == plain(text).replace("\u2060", "")
    assert BEGIN not in written and END not in written


@given(texts)
@settings(max_examples=500)
def test_in_plotly_a_text_is_a_text(text: str) -> None:
    written = in_plotly(text)
    assert "<" not in written and "$" not in written
    assert of_plotly(written) == plain(text)


@given(texts)
@settings(max_examples=500)
def test_in_matplotlib_a_text_is_a_text(text: str) -> None:
    written = in_matplotlib(text)
    assert not is_math_text(written) and written.replace(r"\$", "$") == plain(text)


@pytest.mark.parametrize("value", [None, 3, 0.5, True, [1], {"a": "<b>"}, 10**5000], ids=lambda it: brief(it))
def test_values_are_texts_too(value: object) -> None:
    for write in (plain, in_html, in_markdown, in_plotly, in_matplotlib):
        assert 0 < len(write(value)) < 50


# A whole study --------------------------------------------------------------------------------------------

SPACE = LayerSpace(input_shape=(1, 8, 8), max_layers=2, min_accuracy=None, min_improvement=None)


def layers_of(nasty: str) -> Study:
    def objective(trial: optuna.Trial) -> float:
        value = float(trial.suggest_categorical(nasty, [nasty, "other"]) == nasty)
        for layers in SPACE.grow(trial):
            value = 0.5 + 0.1 * len(layers) - 0.1 * float(SPACE.encode(layers).mean())
            trial.report(value, step=len(layers) - 1)
        trial.set_constraint(nasty, -1.0)
        return value

    agent = AgentConfig.paper(width=16, heads=2, blocks=1)
    sampler = TRLHPOSampler.paper(seed=0, agent=agent, warn_independent_sampling=False)
    return studied(nasty, objective, sampler)


def parameters_of(nasty: str) -> Study:
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("category", [nasty, "other"])
        return trial.suggest_float(nasty, 0, 1)

    return studied(nasty, objective, optuna.samplers.RandomSampler(seed=0))


def studied(nasty: str, objective: Any, sampler: optuna.samplers.BaseSampler) -> Study:
    study = optuna.create_study(study_name=f"{nasty} ", direction="maximize", sampler=sampler)
    study.set_metric_names([nasty])
    study.set_user_attr(nasty.replace(":", ""), {nasty: nasty})
    study.set_user_attr("training", {nasty: [nasty]})
    study.optimize(objective, n_trials=3)
    return study


def strings(value: Any, key: str = "") -> Iterator[str]:
    """All in a figure that plotly shows, or puts together to what it shows."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from strings(one, name) if name != "template" else ()
    elif isinstance(value, list):
        for one in value:
            yield from strings(one, key)
    elif isinstance(value, str):
        yield value


def page_of(study: Study, folder: Path) -> Page:
    return Page(visualization.write_report(study, folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("nasty", NASTY, ids=lambda it: repr(it)[:20])
@pytest.mark.parametrize("make", [pytest.param(layers_of, marks=pytest.mark.slow), parameters_of])
def test_nothing_of_others_is_carried_out(make: Any, nasty: str, tmp_path: Path) -> None:
    study = make(nasty)

    for name in (name for name in visualization.__all__ if name.startswith("plot_")):
        for text in strings(json.loads(getattr(visualization, name)(study).to_json())):
            ours = re.sub(r"</?b>|<br>|<extra></extra>|%\{[a-z]\w*(:[^}<]*)?\}", "", text)
            assert "<" not in ours and "$" not in ours, (name, text)
    for name in visualization.matplotlib.__all__:
        axes = getattr(visualization.matplotlib, name)(study)
        figure = (axes[0] if isinstance(axes, list) else axes).figure
        figure.canvas.draw()
        shown = [text.get_text() for text in figure.findobj(pyplot.Text)]
        assert not any(is_math_text(text) for text in shown if "mathdefault" not in text)  # its own ticks
        pyplot.close("all")

    page, usual = page_of(study, tmp_path), page_of(make("usual"), tmp_path)
    assert page.tags == usual.tags and page.others == usual.others
    assert [name for name, _ in page.attributes] == [name for name, _ in usual.attributes]
    assert plain(nasty) in page.text

    artifacts = FileSystemArtifactStore(tmp_path)
    publish(study, artifact_store=artifacts)
    note = dashboard.get_note(study)
    publish(study, artifact_store=artifacts)
    assert dashboard.get_note(study) == note and note.count(BEGIN) == note.count(END) == 1
    body = re.sub(r"\\.", "", note.replace(BEGIN, "").replace(END, ""))
    assert not re.search(r"[`\[\]<$!&~^]|//|www\.|\w@", body)

    architecture = get_architecture_info(study, None)
    if not architecture.note:
        picture = ElementTree.fromstring(architecture_svg(architecture))
        assert {it.tag.rpartition("}")[2] for it in picture.iter()} == {"svg", "rect", "text", "path"}


def test_names_that_are_numbers_are_names() -> None:
    """To plotly an axis of "1" and "2" is one of numbers."""
    figure = visualization.plot_attention(layers_of("1"))
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "category"
