"""CIFAR-10 from TFDS: 32x32, the official training split."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "cifar10"
    config.data.image_size = 32
    config.data.flip = True
    return config
