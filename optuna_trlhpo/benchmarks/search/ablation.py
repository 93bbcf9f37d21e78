"""Ablation: comparison of the whole agent with the agent without each of its parts.

Every problem has its progressive form, if available, because only this form uses all parts; or another one,
if asked for.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optuna_trlhpo._threads import making_modules
from optuna_trlhpo.agent.agent import Agent
from optuna_trlhpo.agent.course import Course
from optuna_trlhpo.agent.layer_policy import LayerPolicy, PolicyTransformer
from optuna_trlhpo.agent.layer_prior import LayerPrior
from optuna_trlhpo.agent.prior_knowledge import GrowthContext
from optuna_trlhpo.benchmarks.harness.command_line import (
    print_outcome,
    print_report,
    print_setting,
    read_existing_rows,
    select,
)
from optuna_trlhpo.benchmarks.harness.rows import Row, check_names
from optuna_trlhpo.benchmarks.harness.samplers import SamplerFactory, ours
from optuna_trlhpo.benchmarks.harness.studies import mean_text
from optuna_trlhpo.benchmarks.layer_prior.policy_training import train_policy
from optuna_trlhpo.benchmarks.layer_prior.pretraining import read_tasks, tasks_with_table
from optuna_trlhpo.benchmarks.problems import tables
from optuna_trlhpo.benchmarks.problems.problem import Form
from optuna_trlhpo.benchmarks.search import report, runner
from optuna_trlhpo.benchmarks.search.protocols import SEQUENCES, Share
from optuna_trlhpo.benchmarks.search.results import Results, p_text, ratio
from optuna_trlhpo.layers import Vocabulary
from optuna_trlhpo.sampler import TRLHPOSampler

WHOLE = "whole"


class AllPrefixes(TRLHPOSampler):
    """Sampler that trains every prefix of a network, and grows as deep as the objective allows."""

    def worth_training(self, *_: Any, **__: Any) -> bool:
        """Return True for every prefix."""
        return True

    def worth_growing(self, *_: Any, **__: Any) -> bool:
        """Return True for every prefix."""
        return True


class WithoutActor(TRLHPOSampler):
    """Sampler without the pretrained actor: networks of the space are drawn uniformly in its place."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for prior in self._priors:
            prior.policy = self.policy(prior.vocabulary)

    def policy(self, vocabulary: Vocabulary) -> LayerPolicy | None:
        """Return the policy in place of the actor's; None: networks are uniform."""
        return None


class UntrainedActor(WithoutActor):
    """Sampler with an actor that has learned nothing."""

    def policy(self, vocabulary: Vocabulary) -> LayerPolicy:
        """Return a policy with random weights."""
        with making_modules(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return LayerPolicy(PolicyTransformer(vocabulary).state_dict(), vocabulary)


class ShuffledActor(WithoutActor):
    """Sampler with an actor that was pretrained on exchanged accuracies."""

    def policy(self, vocabulary: Vocabulary) -> LayerPolicy:
        """Return a policy that has learned what networks there are, but not which are good."""
        return _shuffled_policy(vocabulary)


class Drawing(Agent):
    """Agent whose networks are all drawn from the pretrained actor, and ranked by nothing."""

    def _is_random(self, course: Course, number: int, context: GrowthContext | None) -> bool:
        course.explores = self.networks.can_explore(context)
        return not course.explores


class UnrankedActor(TRLHPOSampler):
    """Sampler without critic: the actor proposes a network, which is trained as it is."""

    _agent_type = Drawing

    def worth_growing(self, *_: Any, **__: Any) -> bool:
        """Return False: the critic would have to judge it."""
        return False


class _WithoutEmbedding(LayerPrior):
    """Prior whose actor is kept, while its expectations are 0."""

    def __init__(self, prior: LayerPrior) -> None:
        self.vocabulary, self.policy, self.unit = prior.vocabulary, prior.policy, prior.unit
        self.means = np.zeros_like(prior.means)

    def __call__(self, features: Sequence[np.ndarray]) -> np.ndarray:
        return np.zeros((len(features), len(self.means)))


class WithoutBody(TRLHPOSampler):
    """Sampler whose Gaussian process does not read the embedding of the pretrained transformer."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._priors = tuple(_WithoutEmbedding(prior) for prior in self._priors)


@functools.cache
def _shuffled_policy(vocabulary: Vocabulary) -> LayerPolicy:
    tasks = [name for name in tasks_with_table(vocabulary) if name.startswith("digits")]
    return LayerPolicy(train_policy(read_tasks(tasks), shuffled=True), vocabulary)


@dataclass(frozen=True)
class Variant:
    """Variant of the agent without one of its parts.

    Attributes:
        what: Description of the missing part and its replacement.
        factory: Factory of the sampler.
        problems: Problems on which the part has an effect. None: all.
    """

    what: str
    factory: SamplerFactory
    problems: tuple[str, ...] | None = None


def _without(what: str, *problems: str, **settings: Any) -> Variant:
    return Variant(what, functools.partial(ours, **settings), problems or None)


VARIANTS: dict[str, Variant] = {
    WHOLE: _without("the whole agent"),
    "actor-alone": _without("no critic: the actor decides alone", n_candidates=0),
    "critic-transformers": _without(
        "an ensemble of transformers instead of the exact posterior: bodies without the head",
        critic="transformer",
    ),
    "critic-perceptrons": _without(
        "an ensemble of perceptrons instead of the exact posterior", critic="perceptron"
    ),
    "expected-improvement": _without(
        "expected improvement, which ignores noise, instead of the gain of the incumbent",
        acquisition="expected_improvement",
    ),
    "thompson": _without("Thompson sampling instead of the gain of the incumbent", acquisition="thompson"),
    "no-mutations": _without("no mutations of the best networks", mutations=False),
    "rank-targets": _without("ranks instead of the logarithm of the error", targets="rank"),
    "reports-unread": _without("reports ignored: final values only", *SEQUENCES, read_reports=False),
    "all-prefixes": _without("every prefix trained", *SEQUENCES, sampler=AllPrefixes),
    "no-random-trials": _without(
        "no random trials after the startup trials", "mnist-layers", random_interval=0
    ),
    "no-actor": _without(
        "uniform networks in place of those of the pretrained actor", "mnist-layers", sampler=WithoutActor
    ),
    "untrained-actor": _without("an actor that has learned nothing", "mnist-layers", sampler=UntrainedActor),
    "shuffled-actor": _without(
        "an actor pretrained on exchanged accuracies", "mnist-layers", sampler=ShuffledActor
    ),
    "actor-unranked": _without(
        "no critic: each network is drawn from the pretrained actor", "mnist-layers", sampler=UnrankedActor
    ),
    "head-without-body": _without(
        "a Gaussian process that does not read the embedding of the pretrained transformer",
        "mnist-layers",
        sampler=WithoutBody,
    ),
    **{
        f"candidates-{n}": _without(
            f"{n} candidates a generation in place of 100", "mnist-layers", n_candidates=n
        )
        for n in (8, 32, 512)
    },
    "no-layer-prior": _without("no prior for layers", "mnist-layers", layer_prior=False),
}
"""Variants by name, the whole agent first."""


def run(
    problems: Sequence[str],
    variants: Iterable[str],
    *,
    seeds: int,
    budget: int,
    out: str | Path,
    form: Form | None = None,
    jobs: int = 1,
    data_root: str | Path | None = None,
    progress: bool = False,
) -> list[Row]:
    """Run the missing studies of the whole agent and of the variants, on problems where they differ.

    Args:
        problems: Names in `tables.problems`.
        variants: Names in `VARIANTS`.
        seeds: Number of studies of each kind.
        budget: Number of trainings of a study.
        out: Folder of the rows.
        form: Form of the problems; None, or for a problem without it: progressive if there is that form.
        jobs: Number of processes, each with one thread.
        data_root: See `tables.problems`.
        progress: Whether to show a progress bar.

    Returns:
        The new rows.

    Raises:
        ValueError: For an unknown name.
    """
    names = list(dict.fromkeys([WHOLE, *variants]))
    check_names("variant", names, VARIANTS)
    check_names("problem", problems, tables.problems())
    shares = []
    for problem in problems:
        here = tuple(name for name in names if problem in (VARIANTS[name].problems or problems))
        forms = tables.load(problem, data_root).forms
        chosen = form if form is not None and form in forms else forms[0]
        shares.append(Share((problem,), here, seeds, budget, forms=(chosen,)))
    factories = {name: VARIANTS[name].factory for name in names}
    return runner.run_protocol(shares, factories, out=out, jobs=jobs, data_root=data_root, progress=progress)


def markdown(results: Results) -> str:
    """Format a table for each problem: the regret of the whole agent, and relative regrets without a part."""
    parts = [
        "# Contribution of each part\n\nMean regret ± standard error of the whole agent, and the ratio of "
        "the regret without a part to it: above 1, the part helps. p values are those of Wilcoxon's signed-"
        "rank test over paired seeds, with Holm's correction over the variants; a p of .05 or more is a tie."
    ]
    for problem in results.problems:
        checkpoints = results.checkpoints(problem)
        rows = [_whole_row(results, problem, checkpoints)]
        for name in VARIANTS:
            if name != WHOLE and name in results.samplers(problem):
                rows.append(_variant_row(results, problem, name, checkpoints))
        heads = ["variant", "description", "seeds", *map(report.head, checkpoints), "CPU s per study"]
        parts.append(report.section(results, problem, heads, rows))
    parts.append(f"Versions: {report.versions_text(results)}.")
    return "\n\n".join(parts) + "\n"


def _whole_row(results: Results, problem: str, checkpoints: Sequence[int]) -> list[str]:
    cells = [results.cell(problem, WHOLE, at) for at in checkpoints]
    texts = ["" if cell is None else mean_text(cell.regrets.values()) for cell in cells]
    return _row(results, problem, WHOLE, texts)


def _variant_row(results: Results, problem: str, name: str, checkpoints: Sequence[int]) -> list[str]:
    texts = []
    for at in checkpoints:
        whole, cell = results.cell(problem, WHOLE, at), results.cell(problem, name, at)
        if whole is None or cell is None:
            texts.append("")
            continue
        compared = results.comparisons(problem, at, WHOLE)[name]
        texts.append(f"{ratio(cell, whole):.2f}, {compared.word}, p {p_text(compared.corrected)}")
    return _row(results, problem, name, texts)


def _row(results: Results, problem: str, name: str, texts: list[str]) -> list[str]:
    studies = [row for row in results.rows if (row["problem"], row["sampler"]) == (problem, name)]
    seconds = np.mean([row["seconds"] for row in studies])
    return [name, VARIANTS[name].what, str(len(studies)), *texts, f"{seconds:.1f}"]


def handle(arguments: argparse.Namespace) -> int:
    """Run the missing studies and print the table. Return 1 if a study failed."""
    problems = select("problem", arguments.problems, tables.problems())
    variants = select("variant", arguments.variants, VARIANTS)
    print_setting(arguments)
    rows = run(
        problems,
        variants,
        seeds=arguments.seeds,
        budget=arguments.budget,
        out=arguments.out,
        form=arguments.form,
        jobs=arguments.jobs,
        data_root=arguments.data_root,
        progress=True,
    )
    code = print_outcome(rows, arguments.out)
    text = markdown(Results(read_existing_rows(arguments.out)))
    print_report(text, arguments.markdown)
    return code
