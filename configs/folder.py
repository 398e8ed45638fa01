"""Your own images: set ``--config.data.path=`` to a folder or a zip."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "folder"
    config.data.path = ""  # set this on the command line
    config.data.flip = True
    config.model.base_width = 32
    config.vae.steps = 2_000
    config.gan.steps = 6_000
    config.gan.batch_size = 32
    config.gan.generator_learning_rate = 1e-3
    config.gan.discriminator_learning_rate = 1e-3
    config.gan.b2 = 0.99
    config.gan.r1_weight = 3.0
    config.gan.discriminator_warmup_steps = 50
    return config
