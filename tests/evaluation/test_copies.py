import jax
import numpy as np
import pytest

from tests.evaluation.test_distances import CASES, EXPECTED, HERE
from vaegan_jax.evaluation import copies, distances


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 6)).astype(np.float32) for n in (900, 300, 300)]


def squared(a, b):
    return ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(axis=-1)


def authenticity(real, fake):
    nearest = distances.nearest_others(real, 1)
    return copies.authenticity(nearest, distances.neighbours(fake, real))


def test_fresh_samples_are_as_near_to_either_side(sets):
    train, held_out, fake = sets
    found = copies.memorisation(jax.random.key(0), fake, train, held_out)
    assert abs(found.share - 0.5) < 4 * found.error
    assert 0.5 / np.sqrt(300) <= found.error < 0.1


def test_copies_of_training_images_are_seen(sets):
    train, held_out, _ = sets
    noise = np.random.default_rng(1).normal(0, 1e-3, train.shape).astype(np.float32)
    found = copies.memorisation(jax.random.key(0), train + noise, train, held_out)
    # A third of the training images is drawn: their copies are nearest to them, and of the
    # others about half.
    np.testing.assert_allclose(found.share, 1 / 3 + 2 / 3 / 2, atol=4 * 0.5 / np.sqrt(900))
    same = copies.memorisation(jax.random.key(0), held_out, held_out, held_out)
    assert abs(same.share - 0.5) < 0.05  # neither is nearer, up to rounding


def test_the_smaller_side_may_be_either(sets):
    held_out, train, fake = sets
    found = copies.memorisation(jax.random.key(0), fake, train, held_out)
    assert abs(found.share - 0.5) < 4 * found.error
    found = copies.memorisation(jax.random.key(0), train, train, held_out)
    assert found.share == 1  # all 300 of them are drawn


def test_the_draw_follows_the_key(sets):
    train, held_out, fake = sets
    shares = [
        copies.memorisation(jax.random.key(k), fake, train, held_out).share for k in (0, 0, 1)
    ]
    assert shares[0] == shares[1] != shares[2]


@pytest.mark.parametrize("name", CASES)
def test_authenticity_equals_the_library(name):
    with np.load(HERE / "parity.npz") as file:
        real, fake = file[f"{name}/real"], file[f"{name}/fake"]
    expected = EXPECTED["cases"][name]["authenticity_fraction (dgm-eval authpct rule, x0.01)"]
    np.testing.assert_allclose(authenticity(real, fake), expected, atol=1e-6)


def test_slightly_changed_copies_are_not_authentic():
    rng = np.random.default_rng(5)
    real = rng.normal(size=(200, 16)).astype(np.float32)
    changed = real[:50] + rng.normal(0, 1e-3, (50, 16)).astype(np.float32)
    assert authenticity(real, changed) == 0


def test_duplicates_are_a_hundredth_of_fresh_samples_and_all_of_a_collapsed_generator(sets):
    _, real, fake = sets
    nearest, own = distances.nearest_others(real, 1), distances.nearest_others(fake, 1)
    assert copies.duplicate_rate(nearest, own) < 0.05
    limit = np.quantile(np.sort(squared(real, real), axis=1)[:, 1], 0.2)
    expected = np.mean(np.sort(squared(fake, fake), axis=1)[:, 1] < limit)
    np.testing.assert_allclose(copies.duplicate_rate(nearest, own, 0.2), expected, atol=1e-6)
    collapsed = distances.nearest_others(np.repeat(fake[:10], 30, axis=0), 1)
    assert copies.duplicate_rate(nearest, collapsed) == 1


def test_completeness_falls_where_part_of_the_latent_space_decodes_to_nothing_real(sets):
    train, _, fake = sets
    nearest = distances.nearest_others(train, 1)
    own = np.sort(squared(train, train), axis=1)[:, 1]
    expected = np.mean(squared(fake, train).min(axis=1) <= np.quantile(own, 0.95))
    found = copies.completeness(nearest, distances.neighbours(fake, train))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert expected > 0.85
    strayed = np.concatenate([fake[:150], fake[150:] + 20])
    found = copies.completeness(nearest, distances.neighbours(strayed, train))
    assert abs(found - expected / 2) < 0.05


def test_fakes_that_are_all_nearest_to_one_image_prove_nothing(sets):
    train, held_out, fake = sets
    # Far off, the outermost image of all is nearest to every fake.
    found = copies.memorisation(jax.random.key(0), fake * 0.01 + 100, train[:300], held_out)
    assert found.share in (0, 1)
    assert found.error > 0.2
    copied = copies.memorisation(jax.random.key(0), train[:300], train[:300], held_out)
    assert (copied.share, copied.error < 0.1) == (1, True)
