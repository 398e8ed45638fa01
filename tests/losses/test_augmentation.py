"""Every augmentation against plain NumPy, on images that are not square."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import registry
from vaegan_jax.losses import augmentation

AUGMENTATIONS = {
    name: registry.load("augmentation", name) for name in registry.BUILT_IN["augmentation"]
}

KEY, OTHER = jax.random.key(0), jax.random.key(1)
SHAPE = (5, 16, 32, 3)
ALL = {
    **AUGMENTATIONS,
    "all": augmentation.make(", ".join(AUGMENTATIONS)),
}
each = pytest.mark.parametrize("name", ALL)


def draw(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@each
def test_key_determines_the_result(name):
    images = draw()
    changed = ALL[name](images, KEY)
    assert (changed.shape, changed.dtype) == (images.shape, jnp.float32)
    np.testing.assert_array_equal(changed, ALL[name](images, KEY))
    assert not np.array_equal(changed, ALL[name](images, OTHER))
    assert not np.array_equal(changed, images)


@each
def test_change_is_independent_of_other_images(name):
    images, others = draw(), draw(1)
    others[2] = images[2]
    changed, beside_others = ALL[name](images, KEY), ALL[name](others, KEY)
    np.testing.assert_array_equal(changed[2], beside_others[2])
    assert not np.array_equal(changed[1], beside_others[1])
    # Nor does the gradient of one image's result reach another.
    gradient = jax.grad(lambda x: jnp.sum(ALL[name](x, KEY)[2] ** 2))(images)
    assert np.any(gradient[2])
    assert not np.any(np.delete(gradient, 2, axis=0))


@each
def test_real_and_fake_have_the_same_distribution(name):
    # Each is an affine map of the image, and its coefficients depend on the key only.
    real, fake = draw(), 0.1 * draw(1)
    between = ALL[name](0.25 * real + 0.75 * fake, KEY)
    mixed = 0.25 * ALL[name](real, KEY) + 0.75 * ALL[name](fake, KEY)
    np.testing.assert_allclose(between, mixed, atol=1e-6)


@pytest.mark.parametrize("strength", [1, 0.5, 0])
def test_colour_matches_the_formula(strength):
    images = draw()
    brightness, saturation, contrast = np.float64(
        jax.random.uniform(KEY, (3, 5, 1, 1, 1), jnp.float32)
    )
    x = images.astype(np.float64) + strength * (brightness - 0.5)
    grey = x.mean(3, keepdims=True)
    x = grey + (1 + strength * (2 * saturation - 1)) * (x - grey)
    mean = x.mean((1, 2, 3), keepdims=True)
    x = mean + (1 + strength * (contrast - 0.5)) * (x - mean)
    (call,) = registry.parse(f"colour(strength={strength})")
    result = registry.bind("augmentation", call)(images, KEY)
    np.testing.assert_allclose(result, x, atol=1e-6)
    if strength == 1:
        np.testing.assert_array_equal(result, augmentation.colour(images, KEY))


def shifted(image, down, right):
    """An image moved by whole pixels, in plain loops."""
    height, width, _ = image.shape
    moved = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            if 0 <= i - down < height and 0 <= j - right < width:
                moved[i, j] = image[i - down, j - right]
    return moved


def test_translation_shifts_by_up_to_an_eighth():
    # The places of a grid's values are told by the values themselves.
    grid = 1 + np.arange(16 * 32, dtype=np.float32).reshape(1, 16, 32, 1)
    moved = np.asarray(augmentation.translation(np.repeat(grid, 300, axis=0), KEY))
    seen = set()
    for image in moved:
        i, j = np.argwhere(image[..., 0])[0]
        row, column = divmod(int(image[i, j, 0]) - 1, 32)
        down, right = int(i) - row, int(j) - column
        seen.add((down, right))
        np.testing.assert_array_equal(image, shifted(grid[0], down, right))
    assert seen == {(down, right) for down in range(-2, 3) for right in range(-4, 5)}


def test_cutout_masks_a_rectangle_of_half_the_sides():
    images = 1 + draw(shape=(2000, 16, 32, 3)) / 2  # nothing in it is 0
    cut = np.asarray(augmentation.cutout(images, KEY))
    hidden = (cut == 0).all(3)
    np.testing.assert_array_equal(cut, np.where(hidden[..., None], 0, images))
    rows, columns = hidden.any(2), hidden.any(1)
    np.testing.assert_array_equal(hidden, rows[:, :, None] & columns[:, None])
    for marked, side in ((rows, 16), (columns, 32)):
        # No gaps: half the side, or less at an edge of the image; any centre is as likely.
        assert (np.abs(np.diff(np.pad(marked, ((0, 0), (1, 1))).astype(int))).sum(1) == 2).all()
        size = marked.sum(1)
        at_edge = marked[:, 0] | marked[:, -1]
        assert (size[~at_edge] == side // 2).all()
        assert set(size) == set(range(side // 4, side // 2 + 1))
        start = np.where(marked[:, 0], size - side // 2, marked.argmax(1))
        found, counts = np.unique(start, return_counts=True)
        np.testing.assert_array_equal(found, np.arange(-side // 4, side - side // 4 + 1))
        np.testing.assert_allclose(counts / 2000, 1 / (side + 1), atol=0.03)


@pytest.mark.parametrize(("side", "size"), [(5, 2), (5, 3), (4, 4), (3, 1), (1, 0)])
def test_cutout_positions_are_symmetric(side, size):
    marked = np.asarray(augmentation._span(KEY, 5000, side, size))
    assert marked.sum(1).max() == size
    np.testing.assert_allclose(marked.mean(0), marked.mean(0)[::-1], atol=0.04)


def test_make_composes_with_separate_keys():
    images = draw()
    by_hand = images
    for number, name in enumerate(["cutout", "cutout", "colour"]):
        by_hand = ALL[name](by_hand, jax.random.fold_in(KEY, number))
    augment = augmentation.make("cutout, cutout, colour")
    np.testing.assert_array_equal(augment(images, KEY), by_hand)
    assert augmentation.make("")(images, KEY) is images
