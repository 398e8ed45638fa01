"""The original GAN of 2014, to show its failures: minimax loss, no penalty, no pre-training."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.base_width = 32
    config.transfer.generator = "scratch"
    config.gan.steps = 1_400
    config.gan.batch_size = 32
    config.gan.objective = "minimax"
    config.gan.r1_weight = 0.0
    config.gan.discriminator_warmup_steps = 0
    config.training.log_every = 50
    config.training.picture_every = 200
    config.training.checkpoint_every = 400
    config.evaluation.embeddings = "efflite0_64,alexnet_160"
    config.evaluation.samples = 1_000
    config.evaluation.max_reference_images = 1_000
    config.evaluation.curve_every = 400
    config.evaluation.curve_samples = 200
    return config
