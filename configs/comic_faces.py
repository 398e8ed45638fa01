"""The bundled comic faces with the automatic recipe."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    # Seldom enough that a GPU, which takes many steps per second, does not wait for the disk.
    config.training.log_every = 500
    config.training.picture_every = 2_500
    config.training.checkpoint_every = 2_500
    config.evaluation.curve_every = 5_000
    return config
