"""CIFAR-10 from TFDS: 32x32, the official training split."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "cifar10"
    config.data.image_size = 32
    config.data.flip = True
    config.vae.steps = 20_000
    config.gan.steps = 100_000
    config.gan.generator_learning_rate = 5e-4
    config.gan.discriminator_learning_rate = 5e-4
    config.gan.b2 = 0.99
    config.gan.r1_weight = 1.0
    config.gan.discriminator_warmup_steps = 200
    return config
