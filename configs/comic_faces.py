"""The bundled comic faces at base width 64, for a GPU or a TPU; not yet run to the end."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.base_width = 64
    config.vae.steps = 5_000
    config.gan.steps = 30_000
    config.gan.generator_learning_rate = 5e-4
    config.gan.discriminator_learning_rate = 5e-4
    config.gan.b2 = 0.99
    config.gan.r1_weight = 3.0
    config.gan.penalty_every = 4
    config.gan.discriminator_warmup_steps = 100
    return config
