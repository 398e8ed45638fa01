import jax
import numpy as np
import pytest

from vaegan_jax import networks, vae
from vaegan_jax.report import pictures

SHAPE = (16, 32, 3)


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setattr(pictures, "COLUMNS", 4)


@pytest.fixture
def params(config):
    return jax.jit(lambda: vae.init(config, SHAPE).params)()


def decoded(config, params, z):
    """Images from latents in float64, with values from 0 to 255."""
    decoder = networks.make_decoder(config.model, SHAPE)
    logits = np.asarray(decoder.apply({"params": params}, np.asarray(z, np.float32)), np.float64)
    return (np.tanh(logits) + 1) * 127.5


def cell(picture, row, column):
    height, width, _ = SHAPE
    top, left = row * (height + 2), column * (width + 2)
    return picture[top : top + height, left : left + width].astype(float)


def test_grid_layout():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 3), np.uint8)
    picture = pictures.grid(images, 2)
    expected = np.full((3 * 3 + 2 * 2, 4 * 2 + 2, 3), 255, np.uint8)
    for i, (top, left) in enumerate([(0, 0), (0, 6), (5, 0), (5, 6), (10, 0)]):
        expected[top : top + 3, left : left + 4] = i
    np.testing.assert_array_equal(picture, expected)


def test_decoder_pictures_show_samples_and_interpolations(config, params):
    made = pictures.decoder_pictures(config, SHAPE, params["decoder"], "normal")
    z = pictures.fixed_latents(config, 16, "normal")
    images = decoded(config, params["decoder"], z)
    for i, image in enumerate(images):
        assert np.abs(cell(made["samples"], i // 4, i % 4) - image).max() <= 1
    # A row goes from one latent to the next.
    assert made["interpolations"].shape == (2 * 18 - 2, 4 * 34 - 2, 3)
    for row in range(2):
        assert np.abs(cell(made["interpolations"], row, 0) - images[2 * row]).max() <= 1
        assert np.abs(cell(made["interpolations"], row, 3) - images[2 * row + 1]).max() <= 1


@pytest.mark.parametrize("count", [3, 9])
def test_rows_of_originals_and_reconstructions_alternate(config, params, count):
    images = np.random.default_rng(0).integers(0, 256, (count, *SHAPE)).astype(np.uint8)
    picture = pictures.reconstruction_picture(config, SHAPE, params, images)
    shown = min(count, 8)
    assert picture.shape == (2 * -(-shown // 4) * 18 - 2, 4 * 34 - 2, 3)
    encoder = networks.make_encoder(config.model, SHAPE)
    mean, _ = encoder.apply({"params": params["encoder"]}, images[:shown] / 127.5 - 1)
    reconstructions = decoded(config, params["decoder"], mean)
    for i in range(shown):
        row, column = 2 * (i // 4), i % 4
        np.testing.assert_array_equal(cell(picture, row, column), images[i])
        assert np.abs(cell(picture, row + 1, column) - reconstructions[i]).max() <= 1.1


def test_side_by_side_has_a_row_per_network(config, params):
    decoder = params["decoder"]
    generator = jax.tree.map(lambda leaf: leaf * 1.5, decoder)
    sources = [(decoder, pictures.same), (decoder, lambda z: 2 * z), (generator, pictures.same)]
    picture = pictures.side_by_side(config, SHAPE, sources)
    assert picture.shape == (6 * 18 - 2, 4 * 34 - 2, 3)
    z = pictures.fixed_latents(config, 16, "normal")
    for row in range(6):
        network, convert = sources[row % 3]
        expected = decoded(config, network, convert(z[4 * (row // 3) :][:4]))
        for column, image in enumerate(expected):
            assert np.abs(cell(picture, row, column) - image).max() <= 1.1


def test_traversals_change_one_unit_per_row_in_order_of_variance(config, params):
    mean = np.array([0.5, -0.5, 0.1, 0.0, 0.2], np.float32)
    variance = np.array([0.1, 0.9, 0.0, 0.4, 0.2], np.float32)
    picture = pictures.traversals(config, SHAPE, params["decoder"], mean, variance)
    assert picture.shape == (5 * 18 - 2, 5 * 34 - 2, 3)
    for row, unit in enumerate((1, 3, 4, 0, 2)):
        z = np.tile(mean, (5, 1))
        z[:, unit] += np.array([-3, -1.5, 0, 1.5, 3]) * np.sqrt(variance[unit])
        for column, image in enumerate(decoded(config, params["decoder"], z)):
            assert np.abs(cell(picture, row, column) - image).max() <= 1.1


@pytest.mark.parametrize("count", [16, 5])
def test_pairs_have_samples_above_their_nearest_images(count):
    rng = np.random.default_rng(0)
    sets = rng.integers(0, 256, (3, count, *SHAPE)).astype(np.uint8)
    picture = pictures.pairs(*sets)
    columns = -(-count // 2)
    assert picture.shape == (6 * 18 - 2, columns * 34 - 2, 3)
    for i in range(count):
        for kind in range(3):
            shown = cell(picture, 3 * (i // columns) + kind, i % columns)
            np.testing.assert_array_equal(shown, sets[kind, i])
