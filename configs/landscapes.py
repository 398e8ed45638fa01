"""Landscape images at 64x96, such as the landscape-pictures of Kaggle, read from their zip.

python launch.py --config configs/landscapes.py --config.data.path=archive.zip --workdir ...
"""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "folder"
    config.data.path = ""  # set this on the command line
    config.data.image_size = (64, 96)
    config.data.flip = True
    config.vae.steps = 5_000
    config.gan.steps = 30_000
    config.gan.generator_learning_rate = 5e-4
    config.gan.discriminator_learning_rate = 5e-4
    config.gan.b2 = 0.99
    config.gan.r1_weight = 3.0
    config.gan.discriminator_warmup_steps = 100
    return config
