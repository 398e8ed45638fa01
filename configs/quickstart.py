"""Comic faces in minutes on a CPU: the bundled images, few steps."""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.vae.steps = 600
    config.gan.steps = 6_500
    # Less than a minute: few samples, and small inputs that docs/embeddings.md justifies.
    config.evaluation.embeddings = "efflite0_64,alexnet_160"
    config.evaluation.samples = 300
    config.evaluation.max_reference_images = 2_000
    config.evaluation.max_likelihood_images = 200
    config.evaluation.iwae_samples = 16
    config.evaluation.curve_every = 3_250
    config.evaluation.curve_samples = 200
    return config
