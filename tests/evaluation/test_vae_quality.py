"""Against plain NumPy and SciPy in float64, one image at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.special
import scipy.stats

from vaegan_jax import networks, vae
from vaegan_jax.evaluation import vae_quality
from vaegan_jax.randomness import Purpose

SHAPE = (16, 32, 3)
DRAWS = 6
VARIANCES = np.array([0.5, 0.02, 1.7], np.float32)
INDICES = np.array([3, 0, 41, 7], np.int32)
KEY = jax.random.key(11, impl="threefry2x32")


@pytest.fixture
def params(config):
    """Parameters of which none is 0, so that every image has a posterior of its own."""
    leaves, tree = jax.tree.flatten(jax.jit(lambda: vae.init(config, SHAPE).params)())
    rng = np.random.default_rng(0)
    moved = [leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, moved)


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (4, *SHAPE), np.uint8)


def posterior_of(config, params, images):
    encoder = networks.make_encoder(config.model, SHAPE)
    scaled = np.asarray(images / 127.5 - 1, np.float32)
    found = encoder.apply({"params": params["encoder"]}, scaled)
    return [np.asarray(x, np.float64) for x in found]


def plain_bounds(config, params, image, index, key):
    """Everything that is said of one image, with its draws made again from the key."""

    def key_of(purpose):
        return jax.random.fold_in(jax.random.fold_in(key, int(purpose)), index)

    noise = jax.random.uniform(key_of(Purpose.DEQUANTISATION), SHAPE, minval=-0.5, maxval=0.5)
    spread = (image + np.asarray(noise, np.float64)) / 127.5 - 1
    mean, log_variance = (x[0] for x in posterior_of(config, params, image[None]))
    deviation = np.exp(log_variance / 2)
    eps = jax.random.normal(key_of(Purpose.POSTERIOR), (DRAWS, len(mean)))
    z = mean + deviation * np.asarray(eps, np.float64)
    decoder = networks.make_decoder(config.model, SHAPE)
    logits = decoder.apply({"params": params["decoder"]}, z.astype(np.float32))
    decoded = np.tanh(np.asarray(logits, np.float64))

    kl = (np.square(mean) + deviation**2 - 1 - log_variance).sum() / 2
    prior = scipy.stats.norm.logpdf(z).sum(axis=-1)
    posterior = scipy.stats.norm.logpdf(z, mean, deviation).sum(axis=-1)
    elbo, iwae = [], []
    for variance in VARIANCES.astype(np.float64):
        densities = scipy.stats.norm.logpdf(spread, decoded, np.sqrt(variance))
        likelihood = densities.sum(axis=(1, 2, 3))
        elbo.append(likelihood.mean() - kl)
        weights = likelihood + prior - posterior
        iwae.append(scipy.special.logsumexp(weights) - np.log(DRAWS))
    # A grey value's probability is its density times the width of its bin, 2/255.
    bits = [-(np.array(x) / spread.size + np.log(2 / 255)) / np.log(2) for x in (elbo, iwae)]
    error = np.square(spread - decoded).sum(axis=(1, 2, 3)).mean()
    return {"squared_error": error, "kl": kl, "elbo": bits[0], "iwae": bits[1]}


def test_the_bounds_are_those_of_plain_numpy(config, params, images):
    bounds = vae_quality.make_bounds(config, SHAPE, DRAWS)
    found = bounds(params, images, INDICES, KEY, VARIANCES)
    assert {name: value.shape for name, value in found.items()} == {
        "squared_error": (4,),
        "kl": (4,),
        "elbo": (4, 3),
        "iwae": (4, 3),
    }
    for i, index in enumerate(INDICES):
        expected = plain_bounds(config, params, images[i], index, KEY)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][i], value, rtol=2e-5, err_msg=name)
        # In bits per image the two differ by less than the tolerance above lets pass.
        expected_gap = (expected["elbo"] - expected["iwae"]) * np.prod(SHAPE)
        gap = (np.asarray(found["elbo"], np.float64) - found["iwae"])[i] * np.prod(SHAPE)
        np.testing.assert_allclose(gap, expected_gap, rtol=1e-4, atol=0.02)
    assert np.std(found["kl"]) > 0.01  # every image has its own


def test_an_images_numbers_do_not_depend_on_its_company_or_its_place(config, params, images):
    bounds = vae_quality.make_bounds(config, SHAPE, DRAWS)
    found = bounds(params, images, INDICES, KEY, VARIANCES)
    others = 255 - images
    among_others = np.stack([others[0], others[1], images[0], others[2]])
    moved = bounds(params, among_others, np.array([9, 8, INDICES[0], 6], np.int32), KEY, VARIANCES)
    for name in found:
        np.testing.assert_allclose(moved[name][2], found[name][0], rtol=1e-6, err_msg=name)


def test_the_draws_follow_the_index_and_the_key(config, params, images):
    bounds = vae_quality.make_bounds(config, SHAPE, DRAWS)
    same = np.repeat(images[:1], 4, axis=0)
    found = bounds(params, same, INDICES, KEY, VARIANCES)
    other = bounds(params, same, INDICES, jax.random.key(12), VARIANCES)
    errors = [*found["squared_error"].tolist(), *other["squared_error"].tolist()]
    assert len(set(errors)) == 8
    np.testing.assert_allclose(found["kl"], np.repeat(found["kl"][0], 4), rtol=1e-6)  # no draw


def test_with_one_draw_of_the_posterior_the_bounds_differ_by_the_kl_alone(config, params, images):
    bounds = vae_quality.make_bounds(config, SHAPE, 1)
    found = bounds(params, images, INDICES, KEY, VARIANCES)
    # Their difference is (log q/p of the draw) less its expectation, whatever the variance.
    differences = np.asarray(found["iwae"] - found["elbo"])
    np.testing.assert_allclose(differences, differences[:, :1] * np.ones((1, 3)), atol=1e-5)
    assert np.abs(differences).max() > 1e-4


def test_the_posterior_is_the_encoders(config, params, images):
    mean, log_variance = vae_quality.make_posterior(config, SHAPE)(params["encoder"], images)
    assert mean.shape == log_variance.shape == (4, config.model.latent_size)
    assert mean.dtype == log_variance.dtype == jnp.float32
    expected = posterior_of(config, params, images)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_variance, expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("reconstruction", "kl_weight", "variance"),
    [
        ("squared_error", 1.0, 0.5),
        ("squared_error", 3, 1.5),
        ("squared_error", 0.0, None),
        ("cross_entropy", 1.0, None),
    ],
)
def test_the_variance_that_a_loss_implies(config, reconstruction, kl_weight, variance):
    with config.ignore_type():
        config.vae.reconstruction, config.vae.kl_weight = reconstruction, kl_weight
    assert vae_quality.own_variance(config, {}) == variance


@pytest.mark.parametrize("kl_weight", [0.3, 1.0, 4.0])
def test_a_gaussian_of_that_variance_is_the_training_loss(config, kl_weight):
    config.vae.kl_weight = kl_weight
    deviation = np.sqrt(vae_quality.own_variance(config, {}))
    x, y = np.random.default_rng(0).uniform(-1, 1, (2, 40))
    # -log N = squared error / kl_weight + a constant, so that both are weighed alike.
    change = scipy.stats.norm.logpdf(x, y, deviation).sum()
    change -= scipy.stats.norm.logpdf(x, x, deviation).sum()
    np.testing.assert_allclose(-change * kl_weight, np.square(x - y).sum())


def plain_ssim(a, b):
    """Wang et al. 2004, equation 13, with their window, on grey values from 0 to 255."""
    places = np.arange(11) - 5
    window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(a.shape[-1]):
        x, y = (image[..., channel].astype(np.float64) for image in (a, b))
        mean_x, mean_y, xx, yy, xy = (
            scipy.signal.convolve2d(values, window, mode="valid")
            for values in (x, y, x * x, y * y, x * y)
        )
        var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
        values.append(
            (2 * mean_x * mean_y + c1)
            * (2 * cov + c2)
            / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
        )
    return np.mean(values)


def smooth_images(count, channels, height=24, width=20):
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(count, height, width, channels))
    waves = scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0))
    return np.clip(128 + 60 * waves / waves.std(), 0, 255).astype(np.uint8)


def noisy(images, deviation):
    noise = np.random.default_rng(3).normal(0, 1, images.shape) * deviation
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_fidelity_is_that_of_wang_et_al(channels):
    a = smooth_images(5, channels)
    b = noisy(a, np.array([1, 5, 20, 60, 120])[:, None, None, None])
    b[4] = 255 - b[4]  # structure turned round, for which it is negative
    found = vae_quality.fidelity(a, b)
    assert found["psnr"].shape == found["ssim"].shape == (5,)
    errors = np.square(a.astype(np.float64) - b).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found["psnr"], 10 * np.log10(255**2 / errors), rtol=1e-5)
    expected = np.array([plain_ssim(x, y) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(found["ssim"], expected, atol=1e-4)
    assert (np.diff(expected) < -0.01).all()  # they are far apart
    assert expected[-1] < 0


def test_equal_images_are_as_alike_as_can_be():
    images = smooth_images(3, 3)
    images[0] = 77  # even ones as well
    found = vae_quality.fidelity(images, images)
    np.testing.assert_allclose(found["ssim"], 1, atol=1e-5)
    assert np.isposinf(found["psnr"]).all()


def plain_sharpness(images):
    grey = images.astype(np.float64) / 255
    laplacians = [
        scipy.ndimage.laplace(image[..., channel])[1:-1, 1:-1]
        for image in grey
        for channel in range(image.shape[-1])
    ]
    return np.square(laplacians).mean(axis=(1, 2)).reshape(len(images), -1).mean(axis=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_sharpness_is_the_mean_square_of_scipys_laplacian(channels):
    images = np.random.default_rng(4).integers(0, 256, (3, 17, 33, channels), np.uint8)
    images[1] //= 4
    found = vae_quality.sharpness(images)
    np.testing.assert_allclose(found, plain_sharpness(images), rtol=1e-5)
    assert found[1] < found[0] / 10


def test_sharpness_falls_with_blur_and_rises_with_noise():
    sharp = noisy(smooth_images(4, 3), 8)
    blurred = [
        scipy.ndimage.gaussian_filter(sharp, (0, deviation, deviation, 0))
        for deviation in (2, 1, 0.5)
    ]
    noised = [noisy(sharp, deviation) for deviation in (5, 20)]
    values = np.array([vae_quality.sharpness(x) for x in (*blurred, sharp, *noised)])
    assert (values[1:] > 1.2 * values[:-1]).all()


def test_even_images_and_even_slopes_have_no_detail():
    flat = np.full((16, 32), 90)
    rows, columns = np.mgrid[:16, :32]
    images = np.stack([flat, 3 * rows + 5 * columns])[..., None].astype(np.uint8)
    np.testing.assert_allclose(vae_quality.sharpness(images), 0, atol=1e-10)


def test_a_learned_variance_is_its_own(config):
    config.vae.reconstruction, config.vae.decoder_variance = "gaussian", "learned"
    params = {"likelihood": {"log_variance": jnp.float32(-3.0)}}
    np.testing.assert_allclose(vae_quality.own_variance(config, params), np.exp(-3), rtol=1e-6)
    assert vae_quality.own_variance(config, {}) is None  # the likeliest has no fixed one
