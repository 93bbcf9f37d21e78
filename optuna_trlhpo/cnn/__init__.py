"""Ready-made objectives: grow a small CNN for a dataset inside a trial, or compress one that exists."""

from optuna_trlhpo.cnn.compress.adapter import Adapter, IntegerRange, NarrowingAdapter
from optuna_trlhpo.cnn.compress.objective import CompressObjective
from optuna_trlhpo.cnn.compress.results import CompressionTest, OriginalNetwork, TestedNetwork
from optuna_trlhpo.cnn.compress.unet import UNet
from optuna_trlhpo.cnn.data import digits_on_canvas, segmentation_data
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
    "Adapter",
    "Budget",
    "CNNObjective",
    "CompressObjective",
    "CompressionTest",
    "Confirmation",
    "Confirmed",
    "Cost",
    "Cut",
    "Device",
    "Exported",
    "IntegerRange",
    "NarrowingAdapter",
    "OriginalNetwork",
    "Partition",
    "Refit",
    "Savings",
    "TestedNetwork",
    "UNet",
    "build_network",
    "devices",
    "digits_on_canvas",
    "export_network",
    "measure_cost",
    "savings",
    "segmentation_data",
]
