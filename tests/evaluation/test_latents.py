import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import geometric_slerp

from vaegan_jax.evaluation import latents


def test_slerp_equals_scipys():
    a, b = np.random.default_rng(0).standard_normal((2, 6))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    t = np.linspace(0, 1, 9)
    actual = latents.slerp(a.astype(np.float32), b.astype(np.float32), t.astype(np.float32))
    np.testing.assert_allclose(actual, geometric_slerp(a, b, t), atol=1e-5)


def test_slerp_between_latents_of_different_norms_has_the_right_ends():
    a, b = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    path = latents.slerp(a, 3 * b, np.array([0, 1], np.float32))
    np.testing.assert_allclose(path, [a, 3 * b], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_slerp_between_parallel_latents_is_linear(scale):
    a = np.random.default_rng(0).standard_normal(6).astype(np.float32)
    path = latents.slerp(a, scale * a, np.array([0, 0.5, 1], np.float32))
    np.testing.assert_allclose(path, [a, (1 + scale) / 2 * a, scale * a], rtol=1e-3)


def test_path_length_on_a_sphere_is_the_arc_length():
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(2, 50, 8))
    ends = (3 * ends / np.linalg.norm(ends, axis=-1, keepdims=True)).astype(np.float32)
    angles = np.arccos((ends[0] * ends[1]).sum(axis=-1) / 9)
    t = jax.random.uniform(jax.random.key(0), (50,), maxval=0.99)
    lengths = latents.path_lengths(ends[0], ends[1], t, lambda z: z)
    np.testing.assert_allclose(lengths, (3 * angles) ** 2, rtol=1e-2)


def test_path_length_detects_discontinuities():
    start, end = jnp.full((400, 1), -1.0), jnp.full((400, 1), 1.0)
    ends = [jnp.concatenate([x, jnp.ones_like(x)], axis=1) for x in (start, end)]
    t = jnp.linspace(0, 0.99, 400)
    smooth = latents.path_lengths(*ends, t, lambda z: z)
    torn = latents.path_lengths(*ends, t, lambda z: z + 5.0 * (z[:, :1] > 0))
    assert 0 < (torn > 100 * smooth.max()).mean() < 0.05
