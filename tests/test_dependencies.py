"""The lower bounds in pyproject.toml are the versions in tests/lowest.txt, which `make test-lowest` tests."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).resolve().parents[1]
OTHER_EXTRAS = {"executorch", "smac", "hub", "docs", "dev", "all"}
"""`make test-smac` installs SMAC anew, and ExecuTorch asks for a newer torch than the rest; of what only this
repository needs, and its comparison with OptunaHub, the newest is good enough."""


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def extras_to_test():
    return set(project()["optional-dependencies"]) - OTHER_EXTRAS


def requirements(text):
    return [Requirement(line) for line in text if line]


def lower_bounds():
    """``[(name, version)]``, once for each place that asks for the package."""
    extras = project()["optional-dependencies"]
    asked = requirements(project()["dependencies"])
    for extra in sorted(extras_to_test()):
        asked += requirements(extras[extra])
    bounds = []
    for requirement in asked:
        (bound,) = requirement.specifier  # a lower bound, and nothing else
        assert bound.operator == ">=", requirement
        bounds.append((canonicalize_name(requirement.name), Version(bound.version)))
    return bounds


def lowest():
    """The versions of tests/lowest.txt by name."""
    lines = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = {}
    for requirement in requirements(line.partition("#")[0].strip() for line in lines):
        (pin,) = requirement.specifier
        assert pin.operator == "==", requirement
        name = canonicalize_name(requirement.name)
        assert name not in pinned, requirement
        pinned[name] = Version(pin.version)
    return pinned


def test_the_lowest_versions_are_those_that_are_tested():
    pinned = lowest()
    for name, version in lower_bounds():
        assert pinned.get(name) == version, name
    assert set(pinned) == {name for name, _ in lower_bounds()}


def test_every_extra_with_a_lower_bound_is_installed_to_be_tested():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (installed,) = re.findall(r"^LOWEST_EXTRAS := (\S+)$", makefile, flags=re.MULTILINE)
    assert set(installed.split(",")) == extras_to_test() | {"dev"}
