"""The relativistic loss with R1 and R2 of Huang et al. 2024, arXiv 2501.05441.

It uses their loss and penalties, but this project's networks, at quickstart size.
"""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.base_width = 32
    config.vae.steps = 600
    config.gan.steps = 1_400
    config.gan.batch_size = 32
    config.gan.objective = "relativistic"
    config.gan.r1_weight = 1.0
    config.gan.r2_weight = 1.0
    config.gan.b1 = 0.0
    config.gan.b2 = 0.99
    config.gan.discriminator_warmup_steps = 50
    config.training.log_every = 50
    config.training.picture_every = 200
    config.training.checkpoint_every = 400
    config.evaluation.embeddings = "efflite0_64,alexnet_160"
    config.evaluation.samples = 1_000
    config.evaluation.max_reference_images = 1_000
    config.evaluation.curve_every = 400
    config.evaluation.curve_samples = 200
    return config
