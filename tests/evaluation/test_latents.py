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
    lengths = latents.path_lengths(jax.random.key(0), ends[0], ends[1], lambda z: z)
    np.testing.assert_allclose(lengths, (3 * angles) ** 2, rtol=1e-2)


def test_a_tear_is_seen():
    start, end = jnp.full((400, 1), -1.0), jnp.full((400, 1), 1.0)
    ends = [jnp.concatenate([x, jnp.ones_like(x)], axis=1) for x in (start, end)]
    smooth = latents.path_lengths(jax.random.key(0), *ends, lambda z: z)
    torn = latents.path_lengths(jax.random.key(0), *ends, lambda z: z + 5.0 * (z[:, :1] > 0))
    assert (torn > 100 * smooth.max()).any()
    assert (torn > 100 * smooth.max()).mean() < 0.05


def test_the_places_follow_the_key():
    a, b = (jax.random.normal(jax.random.key(k), (9, 4)) for k in (0, 1))
    square = [latents.path_lengths(jax.random.key(k), a, b, lambda z: z**2) for k in (0, 0, 1)]
    np.testing.assert_array_equal(square[0], square[1])
    assert (square[0] != square[2]).any()
