"""Your own images: set ``--config.data.path=`` to a folder or a zip."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "folder"
    config.data.path = ""  # set this on the command line
    config.data.flip = True
    config.evaluation.curve_every = 5_000
    return config
