"""Does the warm start help? A GAN from a VAE's decoder, and one from scratch at equal cost.

The GAN is as in Ham et al. 2020, arXiv 2002.02112: no penalty, no warm-up of the discriminator, and
a decoder that is transferred unchanged. Quickstart size. Compare several seeds:

    python launch.py --config configs/unbalanced.py --config.seeds="(0, 1, 2, 3, 4)"
"""

from ml_collections import ConfigDict

from vaegan_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    # From scratch there is no VAE. Its 600 steps cost as much as 774 GAN steps, at a ratio of 1.289
    # (quartiles 1.19 and 1.35: 0.1463 s per VAE step and 0.1095 s per GAN step, alternately), by
    # `python benchmarks/equal_cost.py --config configs/unbalanced.py` on 2 otherwise idle cores of
    # an AMD EPYC (AVX-512, Python 3.11, jax 0.10.2). The ratio depends on the machine.
    config.variants = ("warm", "scratch: transfer.generator=scratch; gan.steps=2174")
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
    config.evaluation.embeddings = "efflite0_64,alexnet_160"
    config.evaluation.samples = 1_000
    config.evaluation.max_reference_images = 1_000
    config.evaluation.curve_every = 400
    config.evaluation.curve_samples = 200
    return config
