"""Metrics against the values of published libraries, closed forms and plain NumPy."""

import json
import pathlib

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from vaegan_jax.evaluation import distances

HERE = pathlib.Path(__file__).parent
EXPECTED = json.loads((HERE / "parity.json").read_text())
CASES = sorted(EXPECTED["cases"])


@pytest.fixture(scope="module")
def arrays():
    with np.load(HERE / "parity.npz") as file:
        return dict(file)


def frechet(real, fake):
    return distances.frechet(distances.gaussian(real), distances.gaussian(fake))


@pytest.mark.parametrize("name", CASES)
def test_metrics_equal_the_libraries(name, arrays):
    expected, real, fake = EXPECTED["cases"][name], arrays[f"{name}/real"], arrays[f"{name}/fake"]
    ours = distances.make_compare(real)(fake)
    exact = expected["fid"]["svd_of_factors_float64 (own, most accurate)"]
    np.testing.assert_allclose(ours["frechet"], exact, rtol=1e-7)
    # pytorch-fid's own error on singular covariances is larger than ours.
    theirs = expected["fid"]["pytorch_fid.calculate_frechet_distance"]
    np.testing.assert_allclose(ours["frechet"], theirs, rtol=1e-4)
    library = expected["improved_precision_recall_k3 (<=)"]["torch_fidelity"] | {
        metric: expected["prdc_k5 (strict <)"][metric] for metric in ("density", "coverage")
    }
    for metric in ("precision", "recall", "density", "coverage"):
        np.testing.assert_allclose(ours[metric], library[metric], atol=1e-6, err_msg=metric)
    vendi = expected["vendi (cosine kernel, q=1) of fake"]
    theirs = vendi["vendi_score.vendi.score_X(normalize=True)"]
    np.testing.assert_allclose(distances.vendi(fake), theirs, rtol=1e-5)


@settings(max_examples=6)  # each shape is compiled
@given(n=st.integers(6, 40), m=st.integers(6, 40), d=st.integers(1, 5), seed=st.integers(0, 99))
def test_neighbours_equal_plain_numpy(n, m, d, seed):
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(50, 1, (rows, d)).astype(np.float32) for rows in (n, m))
    pairs = ((x[:, None].astype(np.float64) - y[None]) ** 2).sum(axis=-1)
    nearest, rows = distances.neighbours(x, y)
    np.testing.assert_allclose(nearest, pairs.min(axis=1), atol=1e-4)
    np.testing.assert_allclose(pairs[np.arange(n), rows], pairs.min(axis=1), atol=1e-4)
    within = ((x[:, None].astype(np.float64) - x[None]) ** 2).sum(axis=-1)
    for k in (1, 3):
        nearest = distances.nearest_others(x, k)
        np.testing.assert_allclose(nearest, np.sort(within, axis=1)[:, 1 : k + 1], atol=1e-4)


def draw(n, m, d):
    """Shifted and narrower fakes, some of them copies of real images or of each other."""
    rng = np.random.default_rng(n)
    real, fake = rng.normal(size=(n, d)), rng.normal(0.5, 0.7, (m, d))
    fake[:3] = real[:3] + rng.normal(0, 1e-3, (3, d))
    fake[3:10] = fake[10:17] + rng.normal(0, 1e-3, (7, d))
    return real.astype(np.float32), fake.astype(np.float32)


def plain(real, fake):
    """The metrics in float64, with SciPy."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    between = cdist(fake, real)
    near_real, near_fake = (
        np.sort(cdist(x, x) + np.diag(np.full(len(x), np.inf)), axis=1) for x in (real, fake)
    )
    inside = between < near_real[None, :, 4]
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b).real
    squares = (real.mean(axis=0) - fake.mean(axis=0)) ** 2
    return {
        "frechet": squares.sum() + np.trace(a + b - 2 * root),
        "precision": (between <= near_real[None, :, 2]).any(axis=1).mean(),
        "recall": (between <= near_fake[:, 2, None]).any(axis=0).mean(),
        "density": inside.sum() / (5 * len(fake)),
        "coverage": inside.any(axis=0).mean(),
    }


# The largest case has several blocks of rows.
@pytest.mark.parametrize("sizes", [(60, 40, 5), (40, 60, 3), (700, 550, 4)])
def test_metrics_equal_their_definitions(sizes):
    real, fake = draw(*sizes)
    values, expected = distances.make_compare(real)(fake), plain(real, fake)
    assert set(values) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=2e-4, atol=1e-6, err_msg=name)
    for name in ("precision", "recall", "coverage"):
        assert 0 < expected[name] < 1
