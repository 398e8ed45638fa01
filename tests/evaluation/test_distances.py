"""Against the standard libraries' own values, closed forms, and plain NumPy."""

import json
import pathlib

import jax
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax.errors import UserError
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
    """(expected values, real features, fake features) of one set of features."""
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
    np.testing.assert_allclose(frechet(real, fake), exact, rtol=5e-5)
    # pytorch-fid's own error on singular covariances is larger than ours.
    np.testing.assert_allclose(
        frechet(real, fake),
        expected["fid"]["pytorch_fid.calculate_frechet_distance"],
        rtol=1e-4,
    )


def test_frechet_from_statistics_equals_the_libraries(case):
    expected, real, fake = case
    ours = distances.frechet_from_statistics(distances.statistics(real), distances.statistics(fake))
    exact = expected["fid"]["svd_of_factors_float64 (own, most accurate)"]
    np.testing.assert_allclose(ours, exact, rtol=2e-6)


def test_frechet_is_the_formula_with_scipys_matrix_root():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(500, 12)), rng.normal(0.3, 1.5, size=(400, 12))
    sigmas = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(sigmas[0] @ sigmas[1]).real
    means = real.mean(axis=0) - fake.mean(axis=0)
    expected = means @ means + np.trace(sigmas[0] + sigmas[1] - 2 * root)
    ours = frechet(real.astype(np.float32), fake.astype(np.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(400, 32), (30, 100)])
def test_frechet_of_an_affine_copy_has_a_closed_form(size):
    # fake = a real + b on the same rows: |(1 - a) m - b|^2 + (1 - a)^2 tr(S).
    rng = np.random.default_rng(1)
    real = rng.normal(2, 1, size=size).astype(np.float32)
    a, b = 1.3, rng.normal(size=size[1]).astype(np.float32)
    expected = (((1 - a) * real.mean(axis=0) - b) ** 2).sum() + (1 - a) ** 2 * real.var(
        axis=0, ddof=1
    ).sum()
    np.testing.assert_allclose(frechet(real, a * real + b), expected, rtol=1e-4)


@pytest.mark.parametrize("offset", [0, 100])
def test_frechet_of_a_set_and_itself_is_nothing(offset):
    real = np.random.default_rng(2).normal(offset, 1, size=(300, 64)).astype(np.float32)
    assert abs(float(frechet(real, real))) < 1e-3  # the traces are 64


def test_frechet_of_one_dimension():
    rng = np.random.default_rng(3)
    a, b = rng.normal(1, 2, (1000, 1)), rng.normal(-1, 0.5, (800, 1))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    ours = frechet(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_statistics_files_are_read_and_written(tmp_path):
    features = np.random.default_rng(4).normal(size=(50, 7))
    stored = distances.statistics(features)
    np.testing.assert_allclose(stored.mu, features.mean(axis=0))
    centred = features - features.mean(axis=0)
    np.testing.assert_allclose(stored.sigma, centred.T @ centred / 49)
    distances.save_statistics(tmp_path / "mine.npz", stored)
    loaded = distances.load_statistics(tmp_path / "mine.npz")
    np.testing.assert_array_equal(loaded.mu, stored.mu)
    np.testing.assert_array_equal(loaded.sigma, stored.sigma)


@pytest.mark.parametrize("content", ["missing", "text", "keys", "shapes"])
def test_a_statistics_file_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "x.npz"
    if content == "text":
        path.write_text("no archive")
    elif content == "keys":
        np.savez(path, mean=np.zeros(3))
    elif content == "shapes":
        np.savez(path, mu=np.zeros(3), sigma=np.zeros((4, 4)))
    with pytest.raises(UserError, match=r"x\.npz"):
        distances.load_statistics(path)


def test_the_polynomial_mmd_equals_the_libraries(case):
    expected, real, fake = case
    n = expected["kid"]["n"]
    value = expected["kid"]["torchmetrics.poly_mmd same rows"]
    np.testing.assert_allclose(
        distances.mmd(distances.cubic_kernel, real[:n], fake[:n]), value, atol=2e-5
    )


@pytest.mark.parametrize("name", CASES)
def test_the_gaussian_mmd_equals_the_library(name, arrays):
    expected = EXPECTED["cases"][name]["mmd2_rbf_sigma2_unbiased"]["torch_fidelity"]
    n = EXPECTED["cases"][name]["kid"]["n"]  # that library takes equally many of both
    ours = distances.mmd(
        distances.gaussian_kernel(2.0), arrays[f"{name}/real"][:n], arrays[f"{name}/fake"][:n]
    )
    np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_kid_of_given_subsets_equals_the_libraries(name, arrays):
    expected = EXPECTED["cases"][name]["kid_subsets"]
    real, fake = arrays[f"{name}/real"], arrays[f"{name}/fake"]
    values = [
        float(distances.mmd(distances.cubic_kernel, fake[rows_fake], real[rows_real]))
        for rows_fake, rows_real in arrays[f"{name}/kid_idx_fake_real"]
    ]
    np.testing.assert_allclose(np.mean(values), expected["mean"], atol=2e-5)
    np.testing.assert_allclose(np.std(values), expected["std(ddof=0)"], atol=2e-5)


def test_kid_draws_its_subsets_by_key_and_without_replacement(arrays):
    real, fake = arrays["general/real"], arrays["general/fake"]
    mean, deviation = distances.kid(jax.random.key(0), real, fake, subsets=20, size=100)
    again = distances.kid(jax.random.key(0), real, fake, subsets=20, size=100)
    assert (mean, deviation) == again
    other, _ = distances.kid(jax.random.key(1), real, fake, subsets=20, size=100)
    assert other != mean
    whole = distances.mmd(distances.cubic_kernel, real, fake)
    # Subsets of everything are everything: no deviation but that of another order of sums.
    all_mean, all_deviation = distances.kid(jax.random.key(0), real, fake, subsets=5, size=1000)
    np.testing.assert_allclose(all_mean, whole, atol=2e-5)
    assert all_deviation < 2e-5
    assert abs(mean - whole) < 4 * deviation / np.sqrt(20)


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


def test_vendi_counts_what_differs():
    basis = np.eye(8, dtype=np.float32)
    np.testing.assert_allclose(distances.vendi(basis), 8, rtol=1e-6)
    np.testing.assert_allclose(distances.vendi(np.repeat(basis[:3], 20, axis=0)), 3, rtol=1e-5)


@pytest.mark.parametrize("splits", [1, 10])
def test_the_inception_score_equals_the_library(arrays, splits):
    expected = EXPECTED["inception_score"][f"torch_fidelity splits={splits} no shuffle"]
    mean, deviation = distances.inception_score(arrays["inception_score/logits"], splits)
    np.testing.assert_allclose(mean, expected["inception_score_mean"], rtol=1e-6)
    np.testing.assert_allclose(deviation, expected["inception_score_std"], atol=1e-5)


@given(n=st.integers(6, 40), m=st.integers(6, 40), d=st.integers(1, 5), seed=st.integers(0, 99))
def test_neighbours_and_radii_are_those_of_plain_numpy(n, m, d, seed):
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(50, 1, (rows, d)).astype(np.float32) for rows in (n, m))
    pairs = ((x[:, None].astype(np.float64) - y[None]) ** 2).sum(axis=-1)
    ours = distances.neighbours(x, y)
    np.testing.assert_allclose(ours.nearest, pairs.min(axis=1), atol=1e-4)
    np.testing.assert_allclose(pairs[np.arange(n), ours.row], pairs.min(axis=1), atol=1e-4)
    own = ((x[:, None].astype(np.float64) - x[None]) ** 2).sum(axis=-1)
    for k in (1, 3):
        nearest = distances.nearest_others(x, k)
        np.testing.assert_allclose(nearest, np.sort(own, axis=1)[:, 1 : k + 1], atol=1e-4)


def test_the_size_of_a_block_changes_no_result(monkeypatch, arrays):
    real, fake = arrays["unequal_n/real"], arrays["unequal_n/fake"]
    whole = manifold(real, fake)
    monkeypatch.setattr(distances, "_BLOCK_ROWS", 7)
    jax.clear_caches()
    assert manifold(real, fake) == whole
    jax.clear_caches()
