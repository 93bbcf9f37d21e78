"""Reproduce figures 2 and 3 of the paper: which layers harm, and whether attention tells them apart.

Four samplers search MNIST in a reduced setting, which is printed: chance, which tries all pairs of layers;
the paper's agent; the same learning a hundred times as fast; and the default with a critic of transformers.
Then both figures are written for each, as HTML and SVG, and what was found is printed. The studies live in
one SQLite file, so an interrupted run goes on where it was. Without the files of MNIST the 8x8 digits of
scikit-learn take their place. Takes about a quarter of an hour on one CPU core.

Source of the figures: Shaer, Nikan, Shami, "Efficient Transformer-based Hyper-parameter Optimization for
Resource-constrained IoT Environments", arXiv:2403.12237, section V.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import optuna
import plotly.graph_objects as go
from matplotlib.axes import Axes
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import TrialState

from optuna_trlhpo import AgentConfig, TRLHPOSampler
from optuna_trlhpo.cnn import CNNObjective
from optuna_trlhpo.visualization import (
    attention_affinity_findings,
    layer_affinity_findings,
    matplotlib,
    plot_attention_affinity,
    plot_layer_affinity,
)

AGENTS: dict[str, BaseSampler] = {
    "random": RandomSampler(seed=0),
    "paper": TRLHPOSampler.paper(seed=0, warn_independent_sampling=False),
    "paper-faster": TRLHPOSampler.paper(
        seed=0,
        agent=AgentConfig.paper(actor_learning_rate=1e-3, critic_learning_rate=1e-3),
        warn_independent_sampling=False,
    ),
    "transformer-critic": TRLHPOSampler(
        seed=0, agent=AgentConfig(critic="transformer"), warn_independent_sampling=False
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", default="data", help="folder that holds MNIST/raw (%(default)s)")
    parser.add_argument("--storage", default="sqlite:///paper_figures.db", help="(%(default)s)")
    parser.add_argument("--out", default="paper_figures", help="folder for the figures (%(default)s)")
    parser.add_argument("--trials", type=int, default=200, help="finished trials an agent (%(default)s)")
    parser.add_argument("--train-size", type=int, default=2_000, help="images to train on (%(default)s)")
    parser.add_argument("--validation-size", type=int, default=5_000, help="that judge (%(default)s)")
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS), help="(all)")
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    objective = make_objective(args.data_root, args.train_size, args.validation_size)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in args.agents:
        study = search(objective, name, args.storage, n_trials(name, args.trials))
        print(f"\n{name}: {len(study.get_trials(deepcopy=False))} trials, best {study.best_value:.4f}")
        print(textwrap.indent("\n".join(layer_affinity_findings(study)), "  "))
        write(plot_layer_affinity(study), matplotlib.plot_layer_affinity(study), out / f"figure2-{name}")
        if name != "random":  # chance attends to nothing
            print(textwrap.indent("\n".join(attention_affinity_findings(study)), "  "))
            write(
                plot_attention_affinity(study),
                matplotlib.plot_attention_affinity(study),
                out / f"figure3-{name}",
            )
    print(f"\nFigures are in {out}")


def n_trials(name: str, most: int) -> int:
    """A quarter for the critic of transformers: it learns for several times as long as a training takes."""
    return max(most // 4, 1) if name == "transformer-critic" else most


def make_objective(data_root: str, train_size: int, validation_size: int) -> CNNObjective:
    """The paper's networks (convolutions without activation, a constant learning rate), trained less."""
    how = {"epochs": 2, "batch_size": 64, "learning_rate": 2e-3, "max_macs": 5e5}
    sizes = {"train_size": train_size, "validation_size": validation_size}
    try:
        objective = CNNObjective.paper("mnist", data_root=data_root, **sizes, **how)
    except FileNotFoundError as error:
        print(f"{error}\nWithout MNIST the 8x8 digits take its place: what is found is not about MNIST.")
        objective = CNNObjective.paper("digits", **(how | {"epochs": 10}))
    data = objective.data
    print(
        f"Reduced setting: {len(data.train_labels):,} training and {len(data.validation_labels):,} "
        f"validation images of {data.name}, {objective.epochs} epochs in batches of "
        f"{objective.batch_size}, at most {objective.space.max_macs:,.0f} MACs."
    )
    return objective


def search(objective: CNNObjective, name: str, storage: str, wanted: int) -> Study:
    """The study of the sampler ``name``, with ``wanted`` finished trials."""
    study = optuna.create_study(
        study_name=f"{name}-{objective.data.name}",
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        sampler=AGENTS[name],
        pruner=optuna.pruners.NopPruner(),
    )
    finished = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
    if finished < wanted:
        study.optimize(objective, n_trials=wanted - finished, show_progress_bar=True)
    return study


def write(figure: go.Figure, axes: list[Axes], path: Path) -> None:
    """The figure as a page to point at, and its twin for print."""
    figure.write_html(path.with_suffix(".html"))
    twin = axes[0].get_figure(root=True)
    assert twin is not None
    twin.savefig(path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
