"""The bundled comic faces with the automatic recipe."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.evaluation.curve_every = 5_000
    return config
