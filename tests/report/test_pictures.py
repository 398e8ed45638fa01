import jax
import numpy as np
import pytest
from scipy.spatial import geometric_slerp

from vaegan_jax import networks, vae
from vaegan_jax.evaluation.latents import slerp
from vaegan_jax.report import pictures

SHAPE = (16, 32, 3)


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setattr(pictures, "COLUMNS", 4)


def test_a_grid_holds_every_image_in_its_place():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 3), np.uint8)
    picture = pictures.grid(images, 2)
    assert picture.shape == (3 * 3 + 2 * 2, 4 * 2 + 2, 3)
    expected = np.full(picture.shape, 255, np.uint8)
    for i, (top, left) in enumerate([(0, 0), (0, 6), (5, 0), (5, 6), (10, 0)]):
        expected[top : top + 3, left : left + 4] = i
    np.testing.assert_array_equal(picture, expected)


def test_slerp_follows_the_great_circle():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 6))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    t = np.linspace(0, 1, 9)
    expected = geometric_slerp(a, b, t)
    ours = slerp(a.astype(np.float32), b.astype(np.float32), t.astype(np.float32))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_slerp_ends_at_its_ends_whatever_their_lengths():
    a, b = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    path = slerp(a, 3 * b, np.array([0, 1], np.float32))
    np.testing.assert_allclose(path, [a, 3 * b], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_slerp_between_parallel_latents_is_a_straight_line(scale):
    a = np.random.default_rng(0).standard_normal(6).astype(np.float32)
    path = slerp(a, scale * a, np.array([0, 0.5, 1], np.float32))
    np.testing.assert_allclose(path, [a, (1 + scale) / 2 * a, scale * a], rtol=1e-3)


def test_pictures_show_what_the_networks_make(config, monkeypatch):
    monkeypatch.setattr(pictures, "COLUMNS", 2)
    params = vae.init(config, SHAPE).params
    made = pictures.make_decoder_pictures(config, SHAPE, "normal")(params["decoder"])
    z = pictures.fixed_latents(config, 4, "normal")
    logits = networks.make_decoder(config.model, SHAPE).apply({"params": params["decoder"]}, z)
    images = np.clip(np.round((np.tanh(np.asarray(logits, np.float64)) + 1) * 127.5), 0, 255)
    difference = made["samples"].astype(int) - pictures.grid(images.astype(np.uint8), 2)
    assert np.abs(difference).max() <= 1  # a rounding apart
    # A row of two goes from the first latent to the second.
    first_row = made["interpolations"][: SHAPE[0]].astype(int) - made["samples"][: SHAPE[0]]
    assert np.abs(first_row).max() <= 1
    assert made["interpolations"].shape == (16, 2 * 32 + 2, 3)


def test_the_latents_of_the_pictures_are_those_of_the_seed(config):
    first = pictures.fixed_latents(config, 4, "normal")
    np.testing.assert_array_equal(first, pictures.fixed_latents(config, 4, "normal"))
    config.seed = 1
    assert not np.array_equal(first, pictures.fixed_latents(config, 4, "normal"))


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_reconstructions_stand_below_their_originals(config, count):
    params = jax.jit(lambda: vae.init(config, SHAPE).params)()
    images = np.random.default_rng(0).integers(0, 256, (count, *SHAPE)).astype(np.uint8)
    picture = pictures.make_reconstruction_picture(config, images)(params)
    shown = min(count, 8)
    rows = -(-shown // 4)
    assert picture.shape == (2 * rows * 18 - 2, 4 * 34 - 2, 3)
    encoder = networks.make_encoder(config.model, SHAPE)
    decoder = networks.make_decoder(config.model, SHAPE)
    for i in range(shown):
        top, left = 36 * (i // 4), 34 * (i % 4)
        np.testing.assert_array_equal(picture[top : top + 16, left : left + 32], images[i])
        mean, _ = encoder.apply({"params": params["encoder"]}, images[i : i + 1] / 127.5 - 1)
        image = np.tanh(decoder.apply({"params": params["decoder"]}, mean))[0]
        below = picture[top + 18 : top + 34, left : left + 32]
        assert np.abs(below - (image + 1) * 127.5).max() <= 1.1


def decoded(config, params, z):
    """By hand, in float64."""
    decoder = networks.make_decoder(config.model, SHAPE)
    logits = np.asarray(decoder.apply({"params": params}, np.asarray(z, np.float32)), np.float64)
    return (np.tanh(logits) + 1) * 127.5


def cell(picture, row, column):
    height, width, _ = SHAPE
    top, left = row * (height + 2), column * (width + 2)
    return picture[top : top + height, left : left + width].astype(float)


def test_decoder_and_generator_stand_above_one_another_at_the_same_latents(config):
    decoder = jax.jit(lambda: vae.init(config, SHAPE).params)()["decoder"]
    generator = jax.tree.map(lambda leaf: leaf * 1.5, decoder)
    picture = pictures.side_by_side(config, SHAPE, decoder, generator)
    assert picture.shape == (4 * 18 - 2, 4 * 34 - 2, 3)
    z = pictures.fixed_latents(config, 16, "normal")
    for row, (params, first) in enumerate(
        ((decoder, 0), (generator, 0), (decoder, 4), (generator, 4))
    ):
        images = decoded(config, params, z[first : first + 4])
        for column in range(4):
            assert np.abs(cell(picture, row, column) - images[column]).max() <= 1.1


def test_a_traversal_changes_one_unit_and_begins_with_the_most_active(config):
    params = jax.jit(lambda: vae.init(config, SHAPE).params)()["decoder"]
    mean = np.array([0.5, -0.5, 0.1, 0.0, 0.2], np.float32)
    variance = np.array([0.1, 0.9, 0.0, 0.4, 0.2], np.float32)
    picture = pictures.traversals(config, SHAPE, params, mean, variance)
    assert picture.shape == (5 * 18 - 2, 5 * 34 - 2, 3)
    for row, unit in enumerate((1, 3, 4, 0, 2)):
        for column, place in enumerate((-3, -1.5, 0, 1.5, 3)):
            z = mean.copy()
            z[unit] += place * np.sqrt(variance[unit])
            image = decoded(config, params, z[None])[0]
            assert np.abs(cell(picture, row, column) - image).max() <= 1.1


@pytest.mark.parametrize("count", [16, 5])
def test_pairs_stand_in_columns_of_three(count):
    rng = np.random.default_rng(0)
    sets = rng.integers(0, 256, (3, count, *SHAPE)).astype(np.uint8)
    picture = pictures.pairs(*sets)
    columns = -(-count // 2)
    assert picture.shape == (6 * 18 - 2, columns * 34 - 2, 3)
    for i in range(count):
        for kind in range(3):
            shown = cell(picture, 3 * (i // columns) + kind, i % columns)
            np.testing.assert_array_equal(shown, sets[kind, i])
