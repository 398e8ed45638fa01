import jax
import numpy as np
import pytest

from vaegan_jax.evaluation import copies


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 6)).astype(np.float32) for n in (900, 300, 300)]


def squared(a, b):
    return ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(axis=-1)


def test_fresh_samples_are_as_near_to_either_side(sets):
    train, held_out, fake = sets
    found = copies.memorisation(jax.random.key(0), fake, train, held_out)
    assert abs(found.share - 0.5) < 4 * found.error
    np.testing.assert_allclose(found.error, 0.5 / np.sqrt(300), rtol=0.02)
    pairs = squared(fake, train)
    np.testing.assert_array_equal(found.nearest, pairs.argmin(axis=1))
    np.testing.assert_allclose(found.distance, pairs.min(axis=1), atol=1e-4)


def test_copies_of_training_images_are_seen(sets):
    train, held_out, _ = sets
    noise = np.random.default_rng(1).normal(0, 1e-3, train.shape).astype(np.float32)
    found = copies.memorisation(jax.random.key(0), train + noise, train, held_out)
    # A third of the training images is drawn: their copies are nearest to them, and of the
    # others about half.
    np.testing.assert_allclose(found.share, 1 / 3 + 2 / 3 / 2, atol=4 * 0.5 / np.sqrt(900))
    np.testing.assert_array_equal(found.nearest, np.arange(900))
    same = copies.memorisation(jax.random.key(0), held_out, held_out, held_out)
    assert abs(same.share - 0.5) < 0.05  # neither is nearer, up to rounding


def test_the_draw_follows_the_key(sets):
    train, held_out, fake = sets
    shares = [
        copies.memorisation(jax.random.key(k), fake, train, held_out).share for k in (0, 0, 1)
    ]
    assert shares[0] == shares[1] != shares[2]


def test_duplicates_are_a_hundredth_of_fresh_samples_and_all_of_a_collapsed_generator(sets):
    _, real, fake = sets
    assert copies.duplicate_rate(real, fake) < 0.05
    own = np.sort(squared(real, real), axis=1)[:, 1]
    expected = np.mean(np.sort(squared(fake, fake), axis=1)[:, 1] < np.quantile(own, 0.2))
    np.testing.assert_allclose(copies.duplicate_rate(real, fake, 0.2), expected, atol=1e-6)
    collapsed = np.repeat(fake[:10], 30, axis=0)
    assert copies.duplicate_rate(real, collapsed) == 1


def test_completeness_falls_where_part_of_the_latent_space_decodes_to_nothing_real(sets):
    train, _, fake = sets
    own = np.sort(squared(train, train), axis=1)[:, 1]
    nearest = squared(fake, train).min(axis=1)
    expected = np.mean(nearest <= np.quantile(own, 0.95))
    np.testing.assert_allclose(copies.completeness(train, fake), expected, atol=1e-6)
    assert expected > 0.85
    strayed = np.concatenate([fake[:150], fake[150:] + 20])
    assert abs(copies.completeness(train, strayed) - expected / 2) < 0.05
