"""Metrics against the values of published libraries, closed forms and plain NumPy."""

import json
import pathlib

import jax
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


@pytest.fixture(params=CASES)
def case(request, arrays):
    """Expected values, real features and fake features."""
    name = request.param
    return EXPECTED["cases"][name], arrays[f"{name}/real"], arrays[f"{name}/fake"]


def frechet(real, fake):
    return distances.frechet(distances.gaussian(real), distances.gaussian(fake))


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


def test_precision_recall_density_coverage_equal_the_libraries(case):
    expected, real, fake = case
    ours = distances.compare(distances.reference(real), fake)
    for library in (
        expected["improved_precision_recall_k3 (<=)"]["torch_fidelity"],
        {name: expected["prdc_k5 (strict <)"][name] for name in ("density", "coverage")},
    ):
        for name in {*library} & {*ours}:
            np.testing.assert_allclose(ours[name], library[name], atol=1e-6, err_msg=name)


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


def test_block_size_does_not_change_results(monkeypatch, arrays):
    reference = distances.reference(arrays["unequal_n/real"])
    fake = arrays["unequal_n/fake"]
    expected = distances.compare(reference, fake)
    monkeypatch.setattr(distances, "_BLOCK_ROWS", 7)
    jax.clear_caches()
    assert distances.compare(reference, fake) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    jax.clear_caches()


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
    values, expected = distances.compare(distances.reference(real), fake), plain(real, fake)
    assert set(values) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=2e-4, atol=1e-6, err_msg=name)
    for name in ("precision", "recall", "coverage"):
        assert 0 < expected[name] < 1


def test_metrics_of_the_reference_itself_and_of_distant_fakes():
    real, fake = draw(60, 40, 5)
    reference = distances.reference(real)
    same, distant = distances.compare(reference, real), distances.compare(reference, fake + 50)
    assert abs(same["frechet"]) < 1e-4
    assert all(same[name] == 1 for name in ("precision", "recall", "coverage"))
    assert all(distant[name] == 0 for name in ("precision", "recall", "density", "coverage"))
