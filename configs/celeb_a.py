"""CelebA from TFDS: aligned photographs of faces, 218x178, resized to 64x64."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "celeb_a"
    config.data.flip = True
    return config
