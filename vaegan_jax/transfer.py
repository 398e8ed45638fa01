"""The hand-over: the VAE's decoder, read from its checkpoint, becomes the GAN's generator."""

import pathlib

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, networks


def generator_params(
    config: ConfigDict, image_shape: tuple[int, int, int], directory: pathlib.Path, step: int
) -> optax.Params:
    """Returns the generator's first parameters: the decoder's, and nothing else of the VAE.

    Args:
      config: the run's config.
      image_shape: (height, width, channels).
      directory: the folder of the VAE's checkpoints.
      step: which of them.

    Raises:
      UserError: where a leaf is missing, extra, or of another shape or dtype; it lists them all.
    """
    generator = networks.make_decoder(config.model, image_shape)
    z = jnp.zeros((1, config.model.latent_size))
    template = jax.eval_shape(generator.init, jax.random.key(0), z)["params"]
    return checkpoints.restore_part(directory, step, ("params", "decoder"), template)
