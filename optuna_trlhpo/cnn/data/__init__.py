"""Reading, scaling and splitting of datasets."""

from optuna_trlhpo.cnn.data.datasets import ImageData, load_data
from optuna_trlhpo.cnn.data.reading import DATASETS
from optuna_trlhpo.cnn.data.splitting import stratified_split

__all__ = ["DATASETS", "ImageData", "load_data", "stratified_split"]
