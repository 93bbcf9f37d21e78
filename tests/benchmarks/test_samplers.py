"""The samplers of OptunaHub: where they come from, and what is said if they do not work."""

from __future__ import annotations

import sys
import types

import optuna
import pytest

from optuna_trlhpo.benchmarks.__main__ import main
from optuna_trlhpo.benchmarks.harness.samplers import HUB_SAMPLERS, SAMPLERS

NAME = "tpe-union-multivariate"
CLASS = "TPEUnionMultivariateSampler"


@pytest.fixture
def hub(monkeypatch):
    """A module in place of optunahub, whose ``load_module`` a test defines."""
    module = types.ModuleType("optunahub")
    monkeypatch.setitem(sys.modules, "optunahub", module)
    return module


def test_a_sampler_of_the_hub_is_loaded_at_one_commit(hub) -> None:
    asked = []

    def load_module(package, *, ref):
        asked.append((package, ref))
        return types.SimpleNamespace(**{CLASS: optuna.samplers.RandomSampler})

    hub.load_module = load_module
    sampler = SAMPLERS[NAME](seed=3)
    assert isinstance(sampler, optuna.samplers.RandomSampler)
    ((package, ref),) = asked
    assert package == "samplers/tpe_union_multivariate" and len(ref) == 40


def test_without_optunahub_a_sentence_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "optunahub", None)
    for factory in HUB_SAMPLERS.values():
        with pytest.raises(ImportError, match=r'pip install "optuna-trlhpo\[hub\]"'):
            factory(seed=0)


def test_a_failed_download_is_said_in_one_line(hub, toy, tmp_path, capsys) -> None:
    def load_module(package, *, ref):
        raise OSError("no network\nand a long protocol of git")

    hub.load_module = load_module
    assert main(["run", "--samplers", NAME, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "takes a network the first time: OSError: no network\n" in told
    assert "Traceback" not in told and "protocol of git" not in told


def test_a_sampler_that_cannot_be_created_is_said_with_the_version_of_optuna(hub) -> None:
    def broken(*, seed):
        raise TypeError("unexpected keyword argument 'categorical_distance_func'")

    hub.load_module = lambda package, *, ref: types.SimpleNamespace(**{CLASS: broken})
    told = f"{CLASS} of OptunaHub does not work with Optuna {optuna.__version__}: TypeError: unexpected"
    with pytest.raises(RuntimeError, match=told):
        SAMPLERS[NAME](seed=0)
