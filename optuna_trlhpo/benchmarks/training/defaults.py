"""Default values of the commands of this folder, without the code that they belong to."""

ENGINE_ROUNDS = 3

TRAIN_IMAGES = 2000
"""Training images of ``train-less``."""

SEARCH_ARMS = ("plain", "engine")
"""Names of the two objectives of ``engine-search``; see `engine_search`."""
SEARCH_TRIALS, SEARCH_IMAGES, SEARCH_REFITS = 200, 2000, 3

SMALL_SETTINGS = ("mnist-8000", "mnist-33000", "digits-2000", "mnist1d-8000", "cancer-1000")
"""Names of the settings of ``small``; see `small_networks`."""

COMPRESSED_NETWORKS = ("vgg11", "googlenet", "unet")
"""Names of the networks of ``compress``; see `compression`."""
COMPRESSION_MINUTES = 6.0
