"""Runs that nobody trained: folders with a config and with checkpoints of random networks."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import config as configuration
from vaegan_jax import gan, transfer, vae
from vaegan_jax.checkpoints import Checkpoints
from vaegan_jax.config import recipe

SHAPE = (16, 32, 3)


def tiny():
    """A config of a run whose images are 16x32 and whose networks compile in a second."""
    config = configuration.default_config()
    config.data.image_size = (16, 32)
    config.model.base_width, config.model.latent_size = 4, 5
    return recipe.resolve(config, 40, SHAPE)


def states(config, scratch=False):
    """Returns a VAE's state, and a GAN's with a latent map unlike the identity."""
    trained = vae.init(config, SHAPE)
    if scratch:
        start = gan.random_init(config, SHAPE)
    else:
        rng = np.random.default_rng(3)
        size = config.model.latent_size
        spread = rng.normal(size=(size, 2 * size))
        start = gan.identity_init(trained.params["decoder"], size)
        start = transfer.match_posterior(start, rng.normal(size=size), spread @ spread.T / size)
    grown = gan.init(config, SHAPE, start)
    # The average is not the generator, so that one cannot pass for the other.
    return trained, grown.replace(ema=jax.tree.map(lambda leaf: leaf * 1.1 + 0.01, grown.ema))


def write(path, config, vae_steps=(3, 7), gan_steps=(2, 5), scratch=False):
    """Writes the folder of a run and returns its states; with each step the VAE's biases grow."""
    trained, grown = states(config, scratch)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(configuration.to_json(config))
    counts = {"train": 40, "validation": 8, "test": 8, "is_test_unseen": False}
    (path / "data.json").write_text(json.dumps({"digest": "d" * 64} | counts))
    (path / "latent.json").write_text(
        json.dumps(
            {"step": vae_steps[-1] if vae_steps else 0, "latent_size": 5, "active_units": 3,
             "variance_by_unit": [0.1, 0.9, 0.0, 0.4, 0.2], "kl_nats_by_unit": [1.0] * 5}
        )
    )  # fmt: skip
    for stage, state, steps in (("vae", trained, vae_steps), ("gan", grown, gan_steps)):
        if not steps:
            continue
        saved = Checkpoints(path / "checkpoints" / stage, keep=9)
        for step in steps:
            saved.save(step, at(state, step), {})
    return trained, grown


def at(state, step):
    """Returns a state as it is saved at a step: with another bias of the last layer at each."""
    name = "ema" if hasattr(state, "ema") else "params"
    params = getattr(state, name)

    def moved(path, leaf):
        return leaf + step / 100 if "bias_out" in jax.tree_util.keystr(path) else leaf

    params = jax.tree_util.tree_map_with_path(moved, params)
    return state.replace(**{name: params}, step=jnp.asarray(step, jnp.int32))
