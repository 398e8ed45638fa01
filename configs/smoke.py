"""The smallest run that exercises every stage: about a minute, for tests, not for good images."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.image_size = 16
    config.model.base_width = 4
    config.model.latent_size = 8
    config.vae.steps = 12
    config.vae.batch_size = 16
    config.gan.steps = 12
    config.gan.batch_size = 16
    config.gan.discriminator_warmup_steps = 4
    config.training.log_every = 4
    config.training.picture_every = 8
    config.training.checkpoint_every = 6
    config.evaluation.embeddings = "pixels"
    config.evaluation.samples = 100
    config.evaluation.max_reference_images = 200
    config.evaluation.max_likelihood_images = 20
    config.evaluation.iwae_samples = 2
    config.evaluation.curve_every = 6
    config.evaluation.curve_samples = 50
    return config
