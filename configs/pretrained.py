"""The bundled pretrained model of comic faces: small networks, hours on two cores."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.latent_size = 64
    config.model.low_pass = False
    config.vae.steps = 3_000
    config.vae.batch_size = 64
    config.gan.steps = 12_000
    config.gan.batch_size = 32
    config.gan.generator_learning_rate = 5e-4
    config.gan.discriminator_learning_rate = 5e-4
    config.gan.ema_half_life_images = 10_000.0
    config.training.log_every = 50
    config.training.picture_every = 500
    config.training.checkpoint_every = 500
    config.evaluation.samples = 1_000
    config.evaluation.max_reference_images = 1_000
    config.evaluation.max_likelihood_images = 500
    config.evaluation.iwae_samples = 16
    config.evaluation.curve_every = 3_000
    config.evaluation.curve_samples = 200
    return config
