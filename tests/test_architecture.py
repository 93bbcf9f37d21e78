"""The rules that keep the package in order: which way imports point, no global generators, a tidy top level.

Everything is read from the source; nothing of the package is imported.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = "optuna_trlhpo"
FILES = sorted((ROOT / OURS).rglob("*.py"))

# Which rooms a room may import; a room that is not named here may import anything but the sampler.
ALLOWED: dict[str, set[str]] = {
    "layers": set(),
    "kinds": {"layers", "cnn"},
    "places": {"layers"},
    "outlines": {"layers"},
    "params": {"layers"},
    "texts": set(),
    "arguments": set(),
    "hooks": set(),
    "growth": {"layers", "hooks", "notes"},
    "space": {"texts", "layers", "places", "outlines", "params", "hooks", "growth"},
    "parameters": set(),
    "decision_tree": {"parameters"},
    "path": set(),
    "question": {"decision_tree", "parameters", "path"},
    "space_model": {"parameters", "path", "question"},
    "explored": {"parameters"},
    "ordering": set(),
    "unseen": {"episode", "layers", "parameters"},
    "columns": {"parameters", "_agent"},
    "configurations": {"columns", "episode", "path", "reward"},
    "sorts": set(),
    "path_source": {"_agent", "columns", "configurations"},
    "candidates": {
        *("_agent", "columns", "configurations", "episode", "parameters", "path", "sorts", "space_model"),
    },
    "path_search": {
        *("_agent", "candidates", "columns", "configurations", "episode", "path", "path_source"),
        *("sorts", "space_model"),
    },
    "path_agent": {
        *("_agent", "configurations", "episode", "explored", "notes", "parameters", "path"),
        *("path_search", "path_trial", "space_model"),
    },
    "path_trial": {"parameters", "path", "path_search"},
    "episode": {"layers", "parameters"},
    "reward": {"layers", "episode"},
    "_agent": {"_agent"},
    "notes": {"layers"},
    "names": {"layers", "episode", "_agent"},
    "experience": {"layers", "episode", "reward", "_agent", "names"},
    "sources": {"episode", "reward", "_agent", "names", "notes", "experience"},
    "search": {"_agent", "layers", "episode", "experience", "sources"},
    "explain": {"_agent", "episode", "notes", "experience", "search", "path", "path_search"},
    "sampler": {
        *("arguments", "layers", "hooks", "growth", "episode", "reward", "_agent"),
        *("notes", "experience", "sources", "search", "explain", "configurations", "ordering"),
        *("path_agent", "path_search", "path_trial", "unseen"),
    },
    "cnn": {"cnn", "texts", "layers", "space", "episode", "notes"},
    "dashboard": {"dashboard", "visualization", "texts", "layers", "notes", "cnn"},
    "visualization": {"visualization", "texts", "layers", "kinds", "space", "episode", "reward", "notes"},
}
MAY_IMPORT_SAMPLER = {"", "benchmarks", "baselines", "sklearn"}  # "" is the package's own __init__
WITHOUT_TORCH = {
    "places",
    "outlines",
    "params",
    "texts",
    "arguments",
    "hooks",
    "growth",
    "space",
    "parameters",
    "decision_tree",
    "path",
    "question",
    "space_model",
    "explored",
    "ordering",
    "sorts",
    "unseen",
    "episode",
    "reward",
    "notes",
    "visualization",
}
WITHOUT_OPTUNA = {"_agent", "cnn"}
EXCEPT = {  # what in cnn/ touches a study or a trial
    "optuna_trlhpo.cnn.checks",
    "optuna_trlhpo.cnn.finished",
    "optuna_trlhpo.cnn.leaders",
    "optuna_trlhpo.cnn.objective",
    "optuna_trlhpo.cnn.stopping",
    "optuna_trlhpo.cnn.trained",
}

TORCH_SEEDING = {"manual_seed", "manual_seed_all", "seed", "seed_all", "set_rng_state"}

TOP_LEVEL = {
    "optuna_trlhpo",
    "examples",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "Makefile",
    "mkdocs.yml",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def room(module: str) -> str:
    """The first name below the package: "cnn" for ``optuna_trlhpo.cnn.data``, "" for the package itself."""
    return (module.split(".") + [""])[1]


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Every module that is imported anywhere in ``tree``: also in a function, also for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: None if is_package else -1]
                above = package[: len(package) - (node.level - 1)]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def breaches(source: str, path: Path) -> list[str]:
    """The imports of a file that point the wrong way."""
    module = module_name(path)
    here = room(module)
    found = []
    for name in imported(ast.parse(source), module, path.name == "__init__.py"):
        package = name.split(".")[0]
        if package == OURS:
            there = room(name)
            wrong = here in ALLOWED and there not in ALLOWED[here]
            if wrong or (there == "sampler" and here not in MAY_IMPORT_SAMPLER):
                found.append(name)
        elif package in ("torch", "torchvision") and here in WITHOUT_TORCH:
            found.append(name)
        elif package == "optuna" and here in WITHOUT_OPTUNA and module not in EXCEPT:
            found.append(name)
    return found


def dotted(node: ast.AST) -> list[str]:
    """``["np", "random", "rand"]`` for the expression ``np.random.rand``; empty for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return [*base, node.attr]
    return []


def global_generators(source: str) -> list[str]:
    """What in a file draws from, or seeds, a generator that the whole process shares."""
    tree = ast.parse(source)
    names: dict[str, list[str]] = {}  # a name in this file -> what it stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                full = alias.name.split(".")
                names[alias.asname or full[0]] = full if alias.asname else full[:1]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = [*node.module.split("."), alias.name]

    def resolve(node: ast.AST) -> tuple[str, ...]:
        parts = dotted(node)
        return (*names[parts[0]], *parts[1:]) if parts and parts[0] in names else ()

    found = []

    def visit(node: ast.AST, forked: bool) -> None:
        if isinstance(node, ast.With | ast.AsyncWith):
            calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
            forked |= any(resolve(call.func)[-1:] == ("fork_rng",) for call in calls)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            forked = False  # it may be called later, outside the fork
        if isinstance(node, ast.Attribute | ast.Name):
            match resolve(node):
                case ("numpy", "random", function) if function[0].islower() and function != "default_rng":
                    found.append(f"line {node.lineno}: numpy.random.{function}")
                case ("random", function) if function[0].islower():
                    found.append(f"line {node.lineno}: random.{function}")
                case ("torch", *_, function) if function in TORCH_SEEDING and not forked:
                    found.append(f"line {node.lineno}: torch seeded outside fork_rng")
        for child in ast.iter_child_nodes(node):
            visit(child, forked)

    visit(tree, False)
    return found


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    assert breaches(path.read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_global_generator_is_touched(path: Path) -> None:
    assert global_generators(path.read_text(encoding="utf-8")) == []


def test_top_level_is_tidy() -> None:
    try:
        listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not in a git repository")
    names = {name.split("/")[0] for name in listed.split("\0") if name}
    if not names:
        pytest.skip("git tracks nothing here")
    assert {name for name in names if not name.startswith(".")} - TOP_LEVEL == set()


# The rules themselves: each of these lines must be found wrong, or let pass, in the file named.


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("layers.py", "from optuna_trlhpo import episode"),
        ("layers.py", "from . import LayerSpace"),
        ("space.py", "import torch.nn as nn"),
        ("episode.py", "from optuna_trlhpo.reward import returns"),
        ("episode.py", "from torch import Tensor"),
        ("reward.py", "from .cnn.cost import macs"),
        ("_agent/ddpg.py", "from optuna_trlhpo.layers import Conv"),
        ("_agent/ddpg.py", "from ..layers import Conv"),
        ("_agent/replay.py", "import optuna"),
        ("cnn/training.py", "from optuna.trial import Trial"),
        ("experience.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
        ("search.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
        ("search.py", "from optuna_trlhpo.space import LayerSpace"),
        ("experience.py", "from optuna_trlhpo.search import Plan"),
        ("_agent/planning.py", "from optuna_trlhpo.episode import Slot"),
        ("sampler.py", "from optuna_trlhpo.cnn import CNNObjective"),
        ("sampler.py", "def f():\n    import optuna_trlhpo.cnn.model"),
        ("cnn/objective.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
        ("cnn/objective.py", "from optuna_trlhpo import TRLHPOSampler"),
        ("cnn/objective.py", "from ..reward import returns"),
        ("cnn/__init__.py", "from .._agent import ddpg"),
        ("visualization/figures.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
        ("visualization/figures.py", "from optuna_trlhpo.dashboard import publish"),
        ("dashboard/_publish.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
        ("cnn/partition.py", "import optuna"),
        ("visualization/figures.py", "from optuna_trlhpo.cnn import CNNObjective"),
        ("visualization/figures.py", "import torch"),
        ("notes.py", "from optuna_trlhpo.experience import Experience"),
        ("explain.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
    ],
)
def test_a_wrong_import_is_found(file: str, line: str) -> None:
    assert len(breaches(line, ROOT / OURS / file)) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("__init__.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
        ("__init__.py", "from .sampler import TRLHPOSampler"),
        ("layers.py", "import optuna\nimport numpy as np"),
        ("reward.py", "from .layers import Conv\nfrom .episode import Episode"),
        ("sampler.py", "from optuna_trlhpo._agent.ddpg import Agent\nimport torch"),
        ("search.py", "from ._agent.posterior import Posterior\nfrom .experience import Experience"),
        ("sampler.py", "from optuna_trlhpo.search import Plan, Search"),
        ("cnn/__init__.py", "from .model import build"),
        ("cnn/objective.py", "import optuna\nfrom ..layers import LayerSpace\nfrom .data import load"),
        ("_agent/ddpg.py", "from .transformer import Actor\nfrom optuna_trlhpo._agent import noise"),
        ("benchmarks/__main__.py", "from optuna_trlhpo import TRLHPOSampler\nfrom ..sampler import x"),
    ],
)
def test_a_right_import_passes(file: str, line: str) -> None:
    assert breaches(line, ROOT / OURS / file) == []


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.random.rand(3)",
        "import numpy\nnumpy.random.seed(0)",
        "from numpy import random as r\nr.shuffle(x)",
        "from numpy.random import randint\nrandint(3)",
        "import random\nrandom.random()",
        "from random import choice\nchoice(x)",
        "import torch\ntorch.manual_seed(0)",
        "import torch\ntorch.cuda.manual_seed_all(0)",
        "from torch import manual_seed\nmanual_seed(0)",
        "import torch\nwith torch.no_grad():\n    torch.manual_seed(0)",
        "import torch\nwith torch.random.fork_rng():\n    f = lambda: torch.manual_seed(0)",
    ],
)
def test_a_global_generator_is_found(source: str) -> None:
    assert len(global_generators(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.random.default_rng(0).random(3)",
        "import numpy as np\nnp.random.Generator(np.random.PCG64(np.random.SeedSequence(0)))",
        "import numpy as np\nrng: np.random.Generator\nrng.random()",
        "import random\nrandom.Random(0).random()",
        "def f(random):\n    return random.choice(3)",
        "import torch\ntorch.Generator().manual_seed(0)",
        "import torch\nwith torch.random.fork_rng(devices=[]):\n    torch.manual_seed(0)",
        "import torch\nfrom torch.random import fork_rng\nwith fork_rng():\n    torch.manual_seed(0)",
    ],
)
def test_a_generator_of_ones_own_passes(source: str) -> None:
    assert global_generators(source) == []
