"""The rules that keep the package in order: which way imports point, no global generators, a tidy top level.

Nearly everything is read from the source.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = "optuna_trlhpo"
FILES = sorted((ROOT / OURS).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Which rooms a room may import, the arrows of docs/architecture.md; a room is a folder or a file beside them.
ALLOWED: dict[str, set[str]] = {
    "_checks": set(),
    "_texts": set(),
    "_threads": set(),
    "layers": set(),
    "kinds": {"layers"},
    "space": {"_checks", "_texts", "layers"},
    "trials": {"layers"},
    "search_space": {"trials"},
    "agent": {"_threads", "layers", "trials", "search_space"},
    "checkpoints": {"_threads", "trials", "search_space", "agent"},
    "sampler": {"_checks", "_threads", "space", "trials", "agent", "checkpoints"},
    "cnn": {"_checks", "_texts", "_threads", "layers", "space", "trials"},
    "sklearn": {"_checks", "_threads", "layers", "space", "trials", "cnn", "sampler"},
    "baselines": {"_checks", "layers", "space", "trials", "search_space"},
    "visualization": {"_texts", "layers", "space", "trials"},
    "dashboard": {"_checks", "_texts", "layers", "trials", "cnn", "visualization"},
    "benchmarks": {
        *("", "_checks", "_threads", "layers", "space", "trials", "agent", "sampler", "cnn", "baselines"),
        *("stopping", "visualization"),
    },
    "stopping": {"_checks", "trials"},
    "": {"layers", "space", "stopping", "trials", "agent", "sampler"},  # the package's own __init__
}
# The same between the folders of benchmarks.
BENCHMARKS: dict[str, set[str]] = {
    "problems": set(),
    "harness": {"problems"},
    "layer_prior": {"problems", "harness"},
    "training": {"problems", "harness", "layer_prior"},
    "overhead": {"problems", "harness"},
    "search": {"problems", "harness", "layer_prior", "training"},
    "reproduction": {"problems", "harness", "search"},
}
# What is imported without PyTorch: it is loaded where a layer becomes a module, or a sampler is made.
TORCH_FREE = {
    "",
    "_checks",
    "_texts",
    "kinds",
    "layers",
    "space",
    "trials",
    "stopping",
    "search_space",
    "baselines",
    "visualization",
}
LOADS_TORCH = {"optuna_trlhpo.layers.blocks", "optuna_trlhpo.baselines.bananas"}
MOST_LINES = 400

TORCH_SEEDING = {"manual_seed", "manual_seed_all", "seed", "seed_all", "set_rng_state"}

# What begins with an underscore and is used all the same: of named tuples, and of Optuna, which has no other.
NOT_PRIVATE = {"_asdict", "_replace", "_fields", "_make"}
OPTUNAS = {"_storage", "_study_id", "_trial_id", "_contains", "_base_sampler"}
# Of PyTorch: what ends a failed capture of a graph.
PYTORCHS = {"_C", "_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool", "_cuda_releasePool"}

TOP_LEVEL = {
    "optuna_trlhpo",
    "examples",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "Makefile",
    "mkdocs.yml",
}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def room(module: str) -> str:
    """The first name below the package: "cnn" for ``optuna_trlhpo.cnn.model``, "" for the package itself."""
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
    """The imports of a file that point the wrong way, for types too."""
    module = module_name(path)
    here, found = room(module), []
    for name in imported(ast.parse(source), module, path.name == "__init__.py"):
        if name.split(".")[0] != OURS:
            continue
        there = room(name)
        wrong = there != here and there not in ALLOWED[here]
        if here == there == "benchmarks":
            ours, theirs = (other.split(".")[2:3] for other in (module, name))
            known = set(ours + theirs) <= set(BENCHMARKS)
            wrong = known and ours != theirs and bool(ours) and not set(theirs) <= BENCHMARKS[ours[0]]
        if wrong:
            found.append(name)
    return found


def at_once(path: Path) -> set[str]:
    """The modules that a file imports as soon as it is loaded, not in a function or for types alone."""
    module = module_name(path)
    names: set[str] = set()
    todo: list[ast.AST] = [parsed(path)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update(imported(node, module, path.name == "__init__.py"))
        todo += ast.iter_child_nodes(node)
    return names


AT_ONCE = {module_name(path): at_once(path) for path in FILES}
IMPORTED = {module: names & MODULES - {module} for module, names in AT_ONCE.items()}


def with_packages(names: set[str]) -> set[str]:
    """Modules with the packages that they are in, which are loaded with them; the outermost apart."""
    parents = {name.rsplit(".", k)[0] for name in names for k in range(1, name.count(".") + 1)}
    return (names | parents) & MODULES - {OURS}


def reached(module: str, imports: dict[str, set[str]]) -> set[str]:
    """All that is imported with a module, directly or on the way."""
    found: set[str] = set()
    todo = imports[module]
    while todo:
        found |= todo
        todo = {name for one in todo for name in imports.get(one, ())} - found
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


def private_names(source: str) -> list[str]:
    """The private names of the package that a test imports, reads or replaces."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(OURS):
            found += [alias.name for alias in node.names if f"{node.module}.{alias.name}" not in MODULES]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls", "super()"):
            found.append(node.attr)
        elif isinstance(node, ast.Call) and dotted(node.func)[-1:] in (["setattr"], ["getattr"]):
            texts = [argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant)]
            found += [text.rpartition(".")[2] for text in texts if isinstance(text, str)]
    known = NOT_PRIVATE | OPTUNAS | PYTORCHS
    return [name for name in found if name.startswith("_") and not name.endswith("__") and name not in known]


def test_imports_point_one_way() -> None:
    found = {module_name(path): breaches(path.read_text(encoding="utf-8"), path) for path in FILES}
    assert {module: names for module, names in found.items() if names} == {}


def test_every_room_has_a_place() -> None:
    assert {room(module) for module in MODULES} == set(ALLOWED)
    folders = {module.split(".")[2] for module in MODULES if module.startswith(f"{OURS}.benchmarks.")}
    assert folders - {"__main__"} == set(BENCHMARKS)


def test_imports_make_no_circle() -> None:
    assert [module for module in sorted(MODULES) if module in reached(module, IMPORTED)] == []


def test_pytorch_is_loaded_only_where_it_may_be() -> None:
    everything = {one: names | with_packages(names) for one, names in AT_ONCE.items()} | {OURS: set()}
    free = [module for module in MODULES - LOADS_TORCH if room(module) in TORCH_FREE]
    loaded = {module: {name.split(".")[0] for name in reached(module, everything)} for module in free}
    assert [module for module, names in loaded.items() if names & {"torch", "torchvision"}] == []
    assert "optuna_trlhpo.space.layer_space" in loaded


def test_the_agent_knows_no_study() -> None:
    for path in FILES:
        if room(module_name(path)) in ("agent", "search_space", "layers"):
            names = {
                alias.name
                for node in ast.walk(parsed(path))
                if isinstance(node, ast.ImportFrom) and node.module in ("optuna", "optuna.study")
                for alias in node.names
            }
            assert names <= {"StudyDirection"}, path


def test_a_file_is_short_enough_to_be_read() -> None:
    lengths = {module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {module: n for module, n in lengths.items() if n > MOST_LINES} == {}


def test_no_two_classes_have_one_name() -> None:
    where: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(module_name(path))
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}


def test_no_name_of_another_module_is_private() -> None:
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(OURS):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert [name for name in private if f"{node.module}.{name}" not in MODULES] in (
                    [],
                    ["__version__"],
                )


def test_tests_use_public_names() -> None:
    found = {str(path.relative_to(ROOT)): private_names(path.read_text(encoding="utf-8")) for path in TESTS}
    assert {path: names for path, names in found.items() if names} == {}


def test_no_global_generator_is_touched() -> None:
    found = {module_name(path): global_generators(path.read_text(encoding="utf-8")) for path in FILES}
    assert {module: lines for module, lines in found.items() if lines} == {}


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
        ("layers/layer.py", "from optuna_trlhpo.trials import episode"),
        ("layers/layer.py", "from .. import LayerSpace"),
        ("space/limits.py", "from optuna_trlhpo.trials.episode import Episode"),
        ("trials/episode.py", "from optuna_trlhpo.space import LayerSpace"),
        ("trials/rewards.py", "from ..cnn.deploy.cost import macs"),
        ("search_space/model.py", "from optuna_trlhpo.agent.agent import Agent"),
        ("agent/ddpg.py", "from optuna_trlhpo.space import LayerSpace"),
        ("agent/replay.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
        ("agent/agent.py", "from optuna_trlhpo import TRLHPOSampler"),
        ("sampler.py", "from optuna_trlhpo.cnn import CNNObjective"),
        ("sampler.py", "def f():\n    import optuna_trlhpo.cnn.model"),
        ("cnn/objective.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
        ("cnn/objective.py", "from optuna_trlhpo import TRLHPOSampler"),
        ("cnn/__init__.py", "from ..agent import ddpg"),
        ("visualization/figures.py", "from optuna_trlhpo.dashboard import publish"),
        ("visualization/figures.py", "from optuna_trlhpo.cnn import CNNObjective"),
        ("dashboard/_publish.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
        ("baselines/bananas.py", "from optuna_trlhpo.agent.ensemble import Ensemble"),
        ("benchmarks/problems/tables.py", "from optuna_trlhpo.benchmarks.search import runner"),
        ("benchmarks/harness/rows.py", "from optuna_trlhpo.benchmarks.search.runner import run"),
    ],
)
def test_a_wrong_import_is_found(file: str, line: str) -> None:
    assert len(breaches(line, ROOT / OURS / file)) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("__init__.py", "from optuna_trlhpo.sampler import TRLHPOSampler"),
        ("__init__.py", "from .sampler import TRLHPOSampler"),
        ("layers/layer.py", "import optuna\nimport numpy as np"),
        ("trials/rewards.py", "from ..layers import Conv\nfrom .episode import Episode"),
        ("agent/ddpg.py", "from .transformer import Transformer\nfrom optuna_trlhpo.agent import noise"),
        ("sampler.py", "from optuna_trlhpo.agent.agent import Agent\nimport torch"),
        ("cnn/__init__.py", "from .model import build_network"),
        ("cnn/objective.py", "import optuna\nfrom ..layers import Conv\nfrom .data import load_data"),
        ("benchmarks/__main__.py", "from optuna_trlhpo import TRLHPOSampler\nfrom ..sampler import x"),
        ("benchmarks/search/runner.py", "from optuna_trlhpo.benchmarks.harness.rows import Row"),
    ],
)
def test_a_right_import_passes(file: str, line: str) -> None:
    assert breaches(line, ROOT / OURS / file) == []


@pytest.mark.parametrize(
    "imports",
    [
        "import optuna_trlhpo",
        "import optuna_trlhpo.baselines, optuna_trlhpo.visualization, optuna_trlhpo.kinds",
        "from optuna_trlhpo import LayerSpace, AgentConfig; LayerSpace(max_macs=1e6)",
    ],
)
def test_the_package_is_imported_without_pytorch(imports: str) -> None:
    check = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


def test_the_sampler_is_there_when_it_is_asked_for() -> None:
    import optuna_trlhpo
    from optuna_trlhpo import baselines

    assert optuna_trlhpo.TRLHPOSampler.__name__ == "TRLHPOSampler"
    assert set(optuna_trlhpo.__all__) <= set(dir(optuna_trlhpo))
    assert baselines.BananasSampler.__name__ == "BananasSampler"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = optuna_trlhpo.nothing
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = baselines.nothing


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


@pytest.mark.parametrize(
    "source",
    [
        "from optuna_trlhpo.sampler import _logger",
        "from optuna_trlhpo.trials.episode import read_episode, _key",
        "sampler._config",
        "study.sampler.agent._planner",
        "make_sampler()._config = 3",
        "monkeypatch.setattr(module, '_STEPS', 3)",
        "monkeypatch.setattr('optuna_trlhpo.baselines.bananas._STEPS', 3)",
        "getattr(sampler, '_config')",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert len(private_names(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from optuna_trlhpo import __version__",
        "from optuna_trlhpo.dashboard import _figures, publish",
        "from optuna_trlhpo.dashboard._figures import figure_of",
        "class Own:\n    def f(self):\n        return self._value, super()._value",
        "row._replace(value=row._asdict()['value'])",
        "study._storage.get_trial(trial._trial_id)",
        "monkeypatch.setattr(module, 'STEPS', '_text')",
        "module.__name__",
    ],
)
def test_a_public_name_passes(source: str) -> None:
    assert private_names(source) == []
