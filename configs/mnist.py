"""MNIST from TFDS: greyscale, 28x28 resized to 32x32, the official training split."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "mnist"
    config.data.image_size = 32
    config.data.channels = 1
    config.model.base_width = 32
    config.model.latent_size = 32
    config.vae.steps = 3_000
    config.gan.steps = 10_000
    config.gan.generator_learning_rate = 5e-4
    config.gan.discriminator_learning_rate = 5e-4
    config.gan.b2 = 0.99
    config.gan.r1_weight = 3.0
    config.gan.discriminator_warmup_steps = 100
    return config
