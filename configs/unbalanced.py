"""A GAN initialised from a VAE's decoder, as in Ham et al. 2020, arXiv 2002.02112.

As in the paper, there is no penalty and no warm-up of the discriminator, and the decoder is
transferred unchanged. Quickstart size.
"""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.base_width = 32
    config.vae.steps = 600
    config.transfer.match_posterior = False
    config.gan.steps = 1_400
    config.gan.batch_size = 32
    config.gan.objective = "non_saturating"
    config.gan.r1_weight = 0.0
    config.gan.discriminator_warmup_steps = 0
    config.training.log_every = 50
    config.training.picture_every = 200
    config.training.checkpoint_every = 400
    config.evaluation.samples = 1_000
    config.evaluation.max_reference_images = 1_000
    config.evaluation.curve_every = 400
    config.evaluation.curve_samples = 200
    return config
