import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.evaluation import latents


def test_the_length_of_a_great_circle_is_its_angle():
    # On a sphere of radius r the way from a to b is r times the angle, at an even speed.
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(2, 50, 8))
    ends = (3 * ends / np.linalg.norm(ends, axis=-1, keepdims=True)).astype(np.float32)
    angles = np.arccos((ends[0] * ends[1]).sum(axis=-1) / 9)
    places = jax.random.uniform(jax.random.key(0), (50,), maxval=0.99)
    lengths = latents.path_lengths(ends[0], ends[1], places, lambda z: z)
    np.testing.assert_allclose(lengths, (3 * angles) ** 2, rtol=1e-2)


def test_a_tear_is_seen():
    start, end = jnp.full((400, 1), -1.0), jnp.full((400, 1), 1.0)
    ends = [jnp.concatenate([x, jnp.ones_like(x)], axis=1) for x in (start, end)]
    places = jnp.linspace(0, 0.99, 400)
    smooth = latents.path_lengths(*ends, places, lambda z: z)
    torn = latents.path_lengths(*ends, places, lambda z: z + 5.0 * (z[:, :1] > 0))
    assert (torn > 100 * smooth.max()).any()
    assert (torn > 100 * smooth.max()).mean() < 0.05
