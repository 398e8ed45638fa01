"""Metrics against the values of published libraries, closed forms and plain NumPy."""

import json
import pathlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaegan_jax.evaluation import distances

HERE = pathlib.Path(__file__).parent
EXPECTED = json.loads((HERE / "parity.json").read_text())
CASES = sorted(EXPECTED["cases"])


@pytest.fixture(scope="module")
def arrays():
    with np.load(HERE / "parity.npz") as file:
        return dict(file)


@pytest.fixture(params=CASES)
def case(request, arrays):
    """Expected values, real features and fake features."""
    name = request.param
    return EXPECTED["cases"][name], arrays[f"{name}/real"], arrays[f"{name}/fake"]


def frechet(real, fake):
    return distances.frechet(distances.gaussian(real), distances.gaussian(fake))


def manifold(real, fake, k=3, k_density=5):
    nearest = distances.nearest_others(real, max(k, k_density))
    return distances.manifold(real, nearest, fake, k, k_density)


def test_frechet_equals_the_libraries(case):
    expected, real, fake = case
    exact = expected["fid"]["svd_of_factors_float64 (own, most accurate)"]
    np.testing.assert_allclose(frechet(real, fake), exact, rtol=1e-7)
    # pytorch-fid's own error on singular covariances is larger than ours.
    np.testing.assert_allclose(
        frechet(real, fake),
        expected["fid"]["pytorch_fid.calculate_frechet_distance"],
        rtol=1e-4,
    )


@pytest.mark.parametrize("size", [(400, 32), (30, 100)])
def test_frechet_of_affine_copy_matches_closed_form(size):
    # fake = a real + b on the same rows: |(1 - a) m - b|^2 + (1 - a)^2 tr(S).
    rng = np.random.default_rng(1)
    real = rng.normal(2, 1, size=size).astype(np.float32)
    a, b = 1.3, rng.normal(size=size[1]).astype(np.float32)
    expected = (((1 - a) * real.mean(axis=0) - b) ** 2).sum() + (1 - a) ** 2 * real.var(
        axis=0, ddof=1
    ).sum()
    np.testing.assert_allclose(frechet(real, a * real + b), expected, rtol=1e-6)


@pytest.mark.parametrize("offset", [0, 100])
def test_frechet_of_a_set_and_itself_is_zero(offset):
    real = np.random.default_rng(2).normal(offset, 1, size=(300, 64)).astype(np.float32)
    assert abs(frechet(real, real)) < 1e-6  # the traces are 64


def test_frechet_of_one_dimension():
    rng = np.random.default_rng(3)
    a, b = rng.normal(1, 2, (1000, 1)), rng.normal(-1, 0.5, (800, 1))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    ours = frechet(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_polynomial_mmd_equals_the_library(case):
    expected, real, fake = case
    n = expected["kid"]["n"]
    value = expected["kid"]["torchmetrics.poly_mmd same rows"]
    np.testing.assert_allclose(
        distances.mmd(distances.cubic_kernel, real[:n], fake[:n]), value, atol=2e-5
    )


@pytest.mark.parametrize("name", CASES)
def test_gaussian_mmd_equals_the_library(name, arrays):
    expected = EXPECTED["cases"][name]["mmd2_rbf_sigma2_unbiased"]["torch_fidelity"]
    n = EXPECTED["cases"][name]["kid"]["n"]  # the library requires equal numbers
    ours = distances.mmd(
        distances.gaussian_kernel(2.0), arrays[f"{name}/real"][:n], arrays[f"{name}/fake"][:n]
    )
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_precision_recall_density_coverage_equal_the_libraries(case):
    expected, real, fake = case
    ours = manifold(real, fake, k=3, k_density=5)
    fidelity = expected["improved_precision_recall_k3 (<=)"]["torch_fidelity"]
    prdc = expected["prdc_k5 (strict <)"]
    np.testing.assert_allclose(ours.precision, fidelity["precision"], atol=1e-6)
    np.testing.assert_allclose(ours.recall, fidelity["recall"], atol=1e-6)
    np.testing.assert_allclose(ours.density, prdc["density"], atol=1e-6)
    np.testing.assert_allclose(ours.coverage, prdc["coverage"], atol=1e-6)
    prdc = expected["prdc_k3 (strict <)"]
    ours = manifold(real, fake, k=3, k_density=3)
    np.testing.assert_allclose(ours.density, prdc["density"], atol=1e-6)
    np.testing.assert_allclose(ours.coverage, prdc["coverage"], atol=1e-6)


def test_vendi_equals_the_library(case):
    expected, _, fake = case
    value = expected["vendi (cosine kernel, q=1) of fake"][
        "vendi_score.vendi.score_X(normalize=True)"
    ]
    np.testing.assert_allclose(distances.vendi(fake), value, rtol=1e-5)


def test_vendi_of_orthogonal_rows_is_row_count():
    basis = np.eye(8, dtype=np.float32)
    np.testing.assert_allclose(distances.vendi(basis), 8, rtol=1e-6)
    np.testing.assert_allclose(distances.vendi(np.repeat(basis[:3], 20, axis=0)), 3, rtol=1e-5)


@settings(max_examples=15)  # each shape is compiled
@given(n=st.integers(6, 40), m=st.integers(6, 40), d=st.integers(1, 5), seed=st.integers(0, 99))
def test_neighbours_equal_plain_numpy(n, m, d, seed):
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(50, 1, (rows, d)).astype(np.float32) for rows in (n, m))
    pairs = ((x[:, None].astype(np.float64) - y[None]) ** 2).sum(axis=-1)
    ours = distances.neighbours(x, y)
    np.testing.assert_allclose(ours.nearest, pairs.min(axis=1), atol=1e-4)
    np.testing.assert_allclose(pairs[np.arange(n), ours.row], pairs.min(axis=1), atol=1e-4)
    within = ((x[:, None].astype(np.float64) - x[None]) ** 2).sum(axis=-1)
    for k in (1, 3):
        nearest = distances.nearest_others(x, k)
        np.testing.assert_allclose(nearest, np.sort(within, axis=1)[:, 1 : k + 1], atol=1e-4)


def test_block_size_does_not_change_results(monkeypatch, arrays):
    real, fake = arrays["unequal_n/real"], arrays["unequal_n/fake"]
    expected = manifold(real, fake)
    monkeypatch.setattr(distances, "_BLOCK_ROWS", 7)
    jax.clear_caches()
    assert manifold(real, fake) == expected
    jax.clear_caches()
