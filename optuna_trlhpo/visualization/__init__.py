"""Figures of a finished or running study, such as the contribution of each layer and the agent's attention.

Each figure is a function that reads only the study and returns a Plotly figure, as in `optuna.visualization`.
The module `matplotlib` has Matplotlib versions of some. They require the extra:
``pip install "optuna-trlhpo[visualization]"``.
"""

from optuna_trlhpo.visualization import matplotlib
from optuna_trlhpo.visualization._agent import plot_agent
from optuna_trlhpo.visualization._architecture import plot_architecture
from optuna_trlhpo.visualization._attention import plot_attention
from optuna_trlhpo.visualization._attention_affinity import (
    attention_affinity_findings,
    plot_attention_affinity,
)
from optuna_trlhpo.visualization._importances import plot_importances
from optuna_trlhpo.visualization._layer_affinity import layer_affinity_findings, plot_layer_affinity
from optuna_trlhpo.visualization._layer_rewards import plot_layer_rewards
from optuna_trlhpo.visualization._pareto_layers import plot_pareto_layers
from optuna_trlhpo.visualization._plain_names import with_plain_names
from optuna_trlhpo.visualization._report import write_report
from optuna_trlhpo.visualization._search_tree import plot_search_tree

__all__ = [
    "attention_affinity_findings",
    "layer_affinity_findings",
    "matplotlib",
    "plot_agent",
    "plot_architecture",
    "plot_attention",
    "plot_attention_affinity",
    "plot_importances",
    "plot_layer_affinity",
    "plot_layer_rewards",
    "plot_pareto_layers",
    "plot_search_tree",
    "with_plain_names",
    "write_report",
]
