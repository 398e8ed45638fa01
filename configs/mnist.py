"""MNIST from TFDS: greyscale, 28x28 resized to 32x32, the official training split."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "mnist"
    config.data.image_size = 32
    config.data.channels = 1
    config.model.latent_size = 32
    return config
