"""Reading, scaling and splitting of datasets."""

from optuna_trlhpo.cnn.data.datasets import ImageData, load_data
from optuna_trlhpo.cnn.data.reading import DATASETS
from optuna_trlhpo.cnn.data.segmentation import digits_on_canvas, segmentation_data
from optuna_trlhpo.cnn.data.splitting import stratified_split

__all__ = [
    "DATASETS",
    "ImageData",
    "digits_on_canvas",
    "load_data",
    "segmentation_data",
    "stratified_split",
]
