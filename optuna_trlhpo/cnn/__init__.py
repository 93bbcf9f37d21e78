"""A ready-made objective: grow a small CNN for a dataset, layer by layer, inside a trial."""

from optuna_trlhpo.cnn.deploy import devices
from optuna_trlhpo.cnn.deploy.cost import Cost, measure_cost
from optuna_trlhpo.cnn.deploy.devices import Device
from optuna_trlhpo.cnn.deploy.export import Exported, export_network
from optuna_trlhpo.cnn.deploy.partition import Budget, Cut, Partition
from optuna_trlhpo.cnn.model import build_network
from optuna_trlhpo.cnn.objective import CNNObjective
from optuna_trlhpo.cnn.results import Confirmation, Confirmed, Refit
from optuna_trlhpo.trials.training_record import Savings, savings

__all__ = [
    "Budget",
    "CNNObjective",
    "Confirmation",
    "Confirmed",
    "Cost",
    "Cut",
    "Device",
    "Exported",
    "Partition",
    "Refit",
    "Savings",
    "build_network",
    "devices",
    "export_network",
    "measure_cost",
    "savings",
]
