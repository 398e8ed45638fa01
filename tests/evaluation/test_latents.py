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


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_slerp_between_parallel_latents_is_linear(scale):
    a = np.random.default_rng(0).standard_normal(6).astype(np.float32)
    path = latents.slerp(a, scale * a, np.array([0, 0.5, 1], np.float32))
    np.testing.assert_allclose(path, [a, (1 + scale) / 2 * a, scale * a], rtol=1e-3)
