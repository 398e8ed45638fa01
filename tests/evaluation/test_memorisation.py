"""The tests for copies against written-out definitions, and on sets with known copies."""

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tests.evaluation.test_distances import CASES, EXPECTED, HERE
from vaegan_jax.evaluation import distances, memorisation


def nearest(features, train):
    usual = jax.device_get(distances.nearest_others(train, 1))[:, 0]
    return memorisation.nearest_train(features, train, usual)


@pytest.mark.parametrize("name", CASES)
def test_authenticity_equals_the_library(name):
    with np.load(HERE / "parity.npz") as file:
        real, fake = file[f"{name}/real"], file[f"{name}/fake"]
    expected = EXPECTED["cases"][name]["authenticity_fraction (dgm-eval authpct rule, x0.01)"]
    np.testing.assert_allclose((nearest(fake, real).ratio > 1).mean(), expected, atol=1e-6)


def test_data_copying_equals_its_definition():
    rng = np.random.default_rng(0)
    test, fake = rng.normal(size=120), rng.normal(-0.3, 1, 90)
    cells = rng.integers(0, 3, 120), np.concatenate([rng.integers(0, 2, 85), np.full(5, 2)])
    value, error = memorisation.data_copying(test, fake, *cells)
    scores, weights = [], []
    for cell in (0, 1):  # the third has too few fakes
        p, q = test[cells[0] == cell], fake[cells[1] == cell]
        u = (q[:, None] > p[None]).sum()
        m, n = len(q), len(p)
        scores.append((u - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12))
        weights.append(n)
    np.testing.assert_allclose(value, np.average(scores, weights=weights), rtol=1e-12)
    shares = np.array(weights) / sum(weights)
    np.testing.assert_allclose(error, np.linalg.norm(shares))


def test_data_copying_without_large_cells_uses_one_cell():
    rng = np.random.default_rng(1)
    test, fake = rng.normal(size=60), rng.normal(size=60)
    expected = memorisation.data_copying(test, fake, np.zeros(60, int), np.zeros(60, int))
    assert memorisation.data_copying(test, fake, np.arange(60), np.arange(60)) == expected
    few = memorisation.data_copying(test[:19], fake, np.zeros(19, int), np.ones(60, int))
    assert np.isnan(few).all()


def copying(fake, train, test):
    centres = memorisation.cell_centres(jax.random.key(0), train, len(test))
    distance = [nearest(features, train).distance for features in (test, fake)]
    cells = [memorisation.cells(features, centres) for features in (test, fake)]
    return memorisation.data_copying(*distance, *cells)


@pytest.fixture(scope="module")
def sets():
    """Training and test images at 7 to 1, and fresh samples."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 6)).astype(np.float32) for n in (2100, 300, 300)]


def test_fresh_samples_are_no_copies(sets):
    train, test, fresh = sets
    value, error = copying(fresh, train, test)
    assert abs(value) < 3 * error


def test_copies_are_detected_at_seven_training_images_to_one_test_image(sets):
    train, test, fresh = sets
    noise = np.random.default_rng(1).normal(0, 1e-3, fresh.shape).astype(np.float32)
    value, error = copying(train[:300] + noise, train, test)
    assert value < -5 * error
    # A third of copies suffices, and blurred (shifted) samples are not taken for copies.
    value, error = copying(np.concatenate([train[:100] + noise[:100], fresh[:200]]), train, test)
    assert value < -3 * error
    value, error = copying(fresh + 1, train, test)
    assert value > 0


def test_cells_are_nearest_centres(sets):
    train, test, _ = sets
    centres = memorisation.cell_centres(jax.random.key(0), train, len(test))
    assert len(centres) == 6
    expected = cdist(test, centres).argmin(axis=1)
    np.testing.assert_array_equal(memorisation.cells(test, centres), expected)
    same = np.ones((400, 3), np.float32)  # empty cells are no error
    centres = memorisation.cell_centres(jax.random.key(0), same, 200)
    assert set(memorisation.cells(same, centres)) == {0}
