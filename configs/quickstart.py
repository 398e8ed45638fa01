"""Comic faces in minutes on a CPU: the bundled images, small networks."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.base_width = 32
    config.vae.steps = 600
    # Small batches and high learning rates, chosen by eye for a run of a few minutes.
    config.gan.steps = 1_400
    config.gan.batch_size = 32
    config.gan.generator_learning_rate = 1e-3
    config.gan.discriminator_learning_rate = 1e-3
    config.gan.b2 = 0.99
    config.gan.r1_weight = 3.0
    config.gan.penalty_every = 4
    config.gan.discriminator_warmup_steps = 50
    config.training.log_every = 50
    config.training.picture_every = 200
    config.training.checkpoint_every = 400
    # Less than a minute: few samples, and small inputs that docs/embeddings.md justifies.
    config.evaluation.embeddings = "efflite0_64,alexnet_160"
    config.evaluation.samples = 300
    config.evaluation.max_reference_images = 2_000
    config.evaluation.max_likelihood_images = 200
    config.evaluation.iwae_samples = 16
    config.evaluation.curve_every = 400
    config.evaluation.curve_samples = 200
    return config
