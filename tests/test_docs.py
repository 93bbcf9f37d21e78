"""The documentation against the source: every name can be imported, and the drawing of the rooms is true."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from optuna_trlhpo import __version__

ROOT = Path(__file__).resolve().parents[1]
OURS = "optuna_trlhpo"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FILES = sorted((ROOT / OURS).rglob("*.py"))

DOTTED = re.compile(rf"\b{OURS}(?:\.[A-Za-z_]\w*)+")
INLINE = re.compile(r"`([a-z_]+(?:\.[A-Za-z_]\w*)+)`")
FENCED = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(rf"\b(?:{OURS}|tests|examples|docs)/[\w./-]*\w(?![\w<])")


def room(module: str) -> str:
    """The first name below the package, "cnn" for ``optuna_trlhpo.cnn.model``, or the package's own name."""
    return (module.split(".") + [OURS])[1]


ROOMS = {room(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in FILES} - {"__init__"}
ROOMS.add(OURS)


# Names --------------------------------------------------------------------------------------------------


def names_in(text: str) -> set[str]:
    """Names of the package in a page, in full; inline code such as `agent.ddpg` begins with a room."""
    names = set(DOTTED.findall(text))
    inline = {name for name in INLINE.findall(text) if name.split(".")[0] in ROOMS - {OURS}}
    return names | {f"{OURS}.{name}" for name in inline}


def imports_in(text: str) -> set[str]:
    """``module.name`` for each name that a page's Python imports from the package."""
    return {
        f"{node.module}.{alias.name}"
        for block in FENCED.findall(text)
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == OURS
        for alias in node.names
    }


def find(name: str) -> Any:
    """The module, or what a module has of that name.

    Raises:
        LookupError: If there is no such name.
        ImportError: If a package that it needs is missing.
    """
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        module = ".".join(parts[:n])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith(OURS):
                raise
            continue
        for attribute in parts[n:]:
            fields = getattr(found, "__annotations__", {})
            if not hasattr(found, attribute) and attribute not in fields:
                raise LookupError(f"{module} has no {'.'.join(parts[n:])}")
            found = getattr(found, attribute, None)
        return found
    raise LookupError(name)


MENTIONED = sorted(
    (path.relative_to(ROOT).as_posix(), name)
    for path in PAGES
    for name in names_in(path.read_text(encoding="utf-8")) | imports_in(path.read_text(encoding="utf-8"))
)


def is_missing(name: str) -> bool:
    """Whether a name cannot be found, though no optional package is missing for it."""
    try:
        find(name)
    except LookupError:
        return True
    except ImportError:  # it needs a package that is not installed
        return False
    return False


def test_every_name_in_the_documentation_can_be_imported() -> None:
    assert [(page, name) for page, name in MENTIONED if is_missing(name)] == []
    assert ("README.md", "optuna_trlhpo.cnn.CNNObjective") in MENTIONED


@pytest.mark.parametrize("module", [OURS, f"{OURS}.cnn", f"{OURS}.baselines", f"{OURS}.dashboard"])
def test_the_public_names_are_documented(module: str) -> None:
    documented = {name for page, name in MENTIONED if page.startswith("docs/api/")}
    try:
        exported = {f"{module}.{name}" for name in find(module).__all__}
    except ImportError as error:
        pytest.skip(f"{module} needs a package that is missing: {error}")
    assert exported - documented == set()


def test_every_file_in_the_documentation_exists() -> None:
    named = {(path, name) for path in PAGES for name in FILE_NAME.findall(path.read_text(encoding="utf-8"))}
    assert {(path, name) for path, name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("::: optuna_trlhpo.cnn.Cut\n", {"optuna_trlhpo.cnn.Cut"}),
        ("`agent.ddpg.DDPG.act` of `study.best_trial`", {"optuna_trlhpo.agent.ddpg.DDPG.act"}),
    ],
)
def test_names_are_found(text: str, names: set[str]) -> None:
    assert names_in(text) == names


def test_imports_are_found() -> None:
    text = "```python\nfrom optuna_trlhpo.cnn import (\n    Cut,\n    Cost,\n)\nimport optuna\n```\n"
    assert imports_in(text) == {"optuna_trlhpo.cnn.Cut", "optuna_trlhpo.cnn.Cost"}


@pytest.mark.parametrize(
    "name", ["optuna_trlhpo.search", "optuna_trlhpo.cnn.finished", "optuna_trlhpo.LayerSpace.signature"]
)
def test_an_old_name_is_not_found(name: str) -> None:
    with pytest.raises(LookupError):
        find(name)


# Attributes ---------------------------------------------------------------------------------------------


def test_every_attribute_is_described() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in FILES)
    keys = set(re.findall(r'^\w*(?:_ATTRIBUTE|_NOTE) = "(.+)"$', source, re.MULTILINE))
    assert {"trlhpo:seen", "layer_space", "baselines:note"} <= keys
    page = (ROOT / "docs" / "api" / "attributes.md").read_text(encoding="utf-8")
    assert keys - set(re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)) == set()


# Versions -----------------------------------------------------------------------------------------------


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [__version__]


# Rooms --------------------------------------------------------------------------------------------------

Arrow = tuple[str, str]


def drawn_arrows(page: str) -> list[Arrow]:
    """The arrows of the page's drawing."""
    drawings = re.findall(r"^```mermaid\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(drawings) == 1
    head, *lines = drawings[0].splitlines()
    assert head.startswith("flowchart")
    arrows = [re.fullmatch(r"\s*(\w+) --> (\w+)", line) for line in lines]
    assert all(arrows), "a line of the drawing is no arrow"
    return [(arrow[1], arrow[2]) for arrow in arrows if arrow]


def table_rooms(page: str) -> list[str]:
    """The rooms of the page's table, by their first column."""
    table = page[page.index("| room |") :].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports anywhere, also in a function or for types alone."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts[:-1]
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [above, node.module]))
            # `from optuna_trlhpo import cnn` imports a room, `import LayerSpace` from there the package.
            of_package = base == OURS
            modules.update(
                f"{base}.{alias.name}" if of_package and alias.name in ROOMS else base for alias in node.names
            )
    return {module for module in modules if module.split(".")[0] == OURS}


def actual_arrows() -> set[Arrow]:
    """Every import between rooms that the source has."""
    arrows = set()
    for path in FILES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        here = OURS if parts == (OURS, "__init__") else parts[1]
        arrows |= {(here, room(module)) for module in imported(path)}
    return {(here, there) for here, there in arrows if here != there}


def reachable(start: str, arrows: Iterable[Arrow]) -> set[str]:
    arrows = list(arrows)
    found: set[str] = set()
    todo = {start}
    while todo:
        todo = {there for here, there in arrows if here in todo} - found
        found |= todo
    return found


PAGE = ARCHITECTURE.read_text(encoding="utf-8")


def test_every_room_is_described_once() -> None:
    assert sorted(table_rooms(PAGE)) == sorted(ROOMS)


def test_every_room_is_drawn() -> None:
    assert {name for arrow in drawn_arrows(PAGE) for name in arrow} == ROOMS


def test_every_arrow_stands_for_an_import() -> None:
    arrows = drawn_arrows(PAGE)
    assert set(arrows) - actual_arrows() == set()
    assert len(arrows) == len(set(arrows))


def test_every_import_follows_from_the_arrows() -> None:
    arrows = drawn_arrows(PAGE)
    missing = {(here, there) for here, there in actual_arrows() if there not in reachable(here, arrows)}
    assert missing == set()


def test_the_drawing_has_no_arrow_too_many() -> None:
    """An arrow that follows from others is left out, and no arrow closes a circle."""
    arrows = drawn_arrows(PAGE)
    for arrow in arrows:
        others = [other for other in arrows if other != arrow]
        assert arrow[1] not in reachable(arrow[0], others), arrow
        assert arrow[0] not in reachable(arrow[1], arrows), arrow


def test_actual_imports_are_read() -> None:
    arrows = actual_arrows()
    assert {("sampler", "agent"), ("trials", "layers"), (OURS, "sampler"), ("dashboard", "cnn")} <= arrows
    assert ("trials", "agent") not in arrows


def test_what_is_reachable_follows_arrows() -> None:
    assert reachable("a", [("a", "b"), ("b", "c"), ("d", "a")]) == {"b", "c"}
