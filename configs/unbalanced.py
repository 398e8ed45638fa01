"""Does the warm start help? A GAN from a VAE's decoder, and one from scratch at equal cost.

The GAN is as in Ham et al. 2020, arXiv 2002.02112: no penalty, no warm-up of the discriminator, and
a decoder that is transferred unchanged. Quickstart size. Compare several seeds:

    python launch.py --config configs/unbalanced.py --config.seeds="(0, 1, 2, 3, 4)"
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    # From scratch there is no VAE. Its 600 steps cost as much as 768 GAN steps, at a ratio of 1.281
    # (quartiles 1.21 and 1.31: 0.0649 s per VAE step and 0.0533 s per GAN step, alternately), by
    # `python benchmarks/equal_cost.py --config configs/unbalanced.py --rounds 9` on 2 otherwise
    # idle cores of an AMD EPYC (AVX-512, Python 3.11, jax 0.10.2). It depends on the machine.
    config.variants = ("warm", "scratch: transfer.generator=scratch; gan.steps=7268")
    config.transfer.match_posterior = False
    config.gan.penalties = ""
    config.gan.discriminator_warmup_steps = 0
    config.evaluation.samples = 1_000
    return config
