"""The tests for copies against written-out definitions, and on sets with known copies."""

import numpy as np
import pytest

from tests.evaluation.test_distances import CASES, EXPECTED, HERE
from vaegan_jax.evaluation import memorisation


@pytest.mark.parametrize("name", CASES)
def test_authenticity_equals_the_library(name):
    with np.load(HERE / "parity.npz") as file:
        real, fake = file[f"{name}/real"], file[f"{name}/fake"]
    expected = EXPECTED["cases"][name]["authenticity_fraction (dgm-eval authpct rule, x0.01)"]
    numbers, _ = memorisation.copy_numbers(0, "x", real, real, {"fake": fake})
    np.testing.assert_allclose(numbers[0].value, expected, atol=1e-6)
    error = np.sqrt(expected * (1 - expected) / (len(fake) - 1))
    np.testing.assert_allclose(numbers[0].error, error, atol=1e-6)


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


def test_copies_are_found_at_seven_training_images_to_one_test_image():
    rng = np.random.default_rng(0)
    train, test, fresh = (rng.normal(size=(n, 6)).astype(np.float32) for n in (2100, 300, 300))
    copies = train[:300] + rng.normal(0, 1e-3, fresh.shape).astype(np.float32)
    third = np.concatenate([copies[:100], fresh[100:]])
    samples = {"fresh": fresh, "copies": copies, "third": third, "shifted": fresh + 1}
    numbers, nearest = memorisation.copy_numbers(0, "x", train, test, samples)
    scores = {n.subject: n.value / n.error for n in numbers if n.metric == "data_copying"}
    assert abs(scores["fresh"]) < 3
    assert scores["copies"] < -5
    assert scores["third"] < -3
    assert scores["shifted"] > 0
    authentic = {n.subject: n.value for n in numbers if n.metric == "authenticity"}
    assert authentic["copies"] == 0
    np.testing.assert_array_equal(nearest["copies"].row, np.arange(300))


def test_cells_may_be_empty():
    same = np.ones((400, 3), np.float32)
    assert len(memorisation.cell_centres(0, same, 200)) == 4
