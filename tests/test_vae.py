import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import chi2

from tests.conftest import assert_trees_equal
from vaegan_jax import networks, vae
from vaegan_jax.randomness import Purpose, Stage, draw_key, step_key

SHAPE = (16, 32, 3)
KEY = step_key(0, Stage.VAE, 0)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.uniform(-1, 1, (4, *SHAPE)), jnp.float32)


def plain_loss(config, params, images, eps):
    """The loss written out again, for one image at a time."""
    encoder = networks.make_encoder(config.model, SHAPE)
    decoder = networks.make_decoder(config.model, SHAPE)
    total = 0.0
    for x, e in zip(images, eps, strict=True):
        mean, log_variance = encoder.apply({"params": params["encoder"]}, x[None])
        variance = jnp.exp(log_variance)
        z = mean + jnp.sqrt(variance) * e[None]
        image = jnp.tanh(decoder.apply({"params": params["decoder"]}, z))
        kl = -0.5 * jnp.sum(1 + log_variance - mean**2 - variance)
        total += jnp.sum((x[None] - image) ** 2) + config.vae.kl_weight * kl
    return total / len(images)


@pytest.mark.parametrize("kl_weight", [0.0, 1.0, 3.5])
def test_train_step_is_adam_on_the_written_out_loss(config, batch, kl_weight):
    config.vae.kl_weight = kl_weight
    state = jax.jit(lambda: vae.init(config, SHAPE))()
    eps = jax.random.normal(draw_key(KEY, Purpose.POSTERIOR), (4, config.model.latent_size))
    plain = jax.jit(jax.value_and_grad(lambda p: plain_loss(config, p, batch, eps)))
    value, gradient = plain(state.params)
    updates, _ = optax.adam(1e-3, 0.9, 0.999).update(gradient, state.optimizer)
    expected = optax.apply_updates(state.params, updates)

    new, scalars = jax.jit(vae.make_train_step(config, SHAPE))(state, batch, KEY)
    np.testing.assert_allclose(scalars["loss"], value, rtol=1e-4)
    np.testing.assert_allclose(
        scalars["loss"], scalars["reconstruction"] + kl_weight * scalars["kl"], rtol=1e-5
    )
    np.testing.assert_allclose(scalars["gradient_norm"], optax.tree.norm(gradient), rtol=1e-3)
    assert int(new.step) == 1
    # Adam's first step has length 1e-3 wherever the gradient is more than rounding error.
    for a, b, g in zip(
        *(jax.tree.leaves(tree) for tree in (new.params, expected, gradient)), strict=True
    ):
        clear = np.abs(g) > 1e-2
        np.testing.assert_allclose(np.asarray(a)[clear], np.asarray(b)[clear], atol=2e-5)


def test_train_step_is_deterministic_in_state_batch_and_key(config, batch):
    state = jax.jit(lambda: vae.init(config, SHAPE))()
    step = jax.jit(vae.make_train_step(config, SHAPE))
    once, again = step(state, batch, KEY), step(state, batch, KEY)
    assert_trees_equal(once, again)
    other, _ = step(state, batch, step_key(0, Stage.VAE, 1))
    assert not np.array_equal(
        once[0].params["decoder"]["dense"]["kernel"], other.params["decoder"]["dense"]["kernel"]
    )


def test_seeds_give_different_parameters(config):
    def init():
        return jax.jit(lambda: vae.init(config, SHAPE))()

    first = init()
    assert_trees_equal(first, init())
    config.seed = 1
    second = init()
    for part in ("encoder", "decoder"):
        kernels = [
            s.params[part]["head" if part == "encoder" else "dense"]["kernel"]
            for s in (first, second)
        ]
        assert not np.array_equal(*kernels)


@pytest.mark.parametrize("reconstruction", ["squared_error", "cross_entropy"])
def test_training_lowers_the_loss(config, batch, reconstruction):
    config.vae.reconstruction = reconstruction
    step = jax.jit(vae.make_train_step(config, SHAPE))
    state = jax.jit(lambda: vae.init(config, SHAPE))()
    losses = []
    for i in range(60):
        state, scalars = step(state, batch, step_key(0, Stage.VAE, i))
        losses.append(float(scalars["loss"]))
    # The entropy of the pixels is what cross entropy cannot go below.
    t = (np.asarray(batch, np.float64) + 1) / 2
    floor = -(t * np.log(t) + (1 - t) * np.log(1 - t)).sum() / len(batch)
    floor = floor if reconstruction == "cross_entropy" else 0
    assert losses[-1] - floor < 0.8 * (losses[0] - floor)


def test_reparameterize_is_mean_plus_sigma_eps():
    mean, variance, eps = np.random.default_rng(0).uniform(0.1, 2, (3, 4, 5)).astype(np.float32)
    expected = mean + np.sqrt(variance) * eps
    z = vae.reparameterize(mean, np.log(variance), eps)
    np.testing.assert_allclose(z, expected, rtol=1e-5)
    gradient = jax.grad(lambda m, v: vae.reparameterize(m, v, eps).sum(), argnums=(0, 1))(
        mean, np.log(variance)
    )
    np.testing.assert_allclose(gradient[0], np.ones_like(mean))
    np.testing.assert_allclose(gradient[1], 0.5 * np.sqrt(variance) * eps, rtol=1e-5)


def loss_with(config, batch, at, **fields):
    """The scalars of a step taken at a given step of the run."""
    for name, value in fields.items():
        config.vae[name] = value
    state = jax.jit(lambda: vae.init(config, SHAPE))()
    state = state.replace(step=jnp.int32(at))
    _, scalars = jax.jit(vae.make_train_step(config, SHAPE))(state, batch, KEY)
    return {name: float(value) for name, value in scalars.items()}


@pytest.mark.parametrize(
    ("at", "fields", "factor"),
    [
        (3, {"kl_schedule": "linear", "kl_warmup_steps": 12}, 0.25),
        (40, {"kl_schedule": "linear", "kl_warmup_steps": 12}, 1.0),
        # Cycles of ten steps, of which five rise.
        (12, {"kl_schedule": "cyclical", "steps": 40, "kl_cycles": 4}, 0.4),
        (18, {"kl_schedule": "cyclical", "steps": 40, "kl_cycles": 4}, 1.0),
    ],
)
def test_kl_weight_follows_the_schedule(config, batch, at, fields, factor):
    scalars = loss_with(config, batch, at, kl_weight=2.0, **fields)
    expected = scalars["reconstruction"] + 2 * factor * scalars["kl"]
    np.testing.assert_allclose(scalars["loss"], expected, rtol=1e-5)


def test_free_bits_remove_the_kl_gradient(config, batch):
    free = loss_with(config, batch, 0, free_bits=1e3)
    # No dimension has as many: all are charged the same, and nothing of it is learnt.
    latent_size = config.model.latent_size
    np.testing.assert_allclose(free["loss"], free["reconstruction"] + 1e3 * latent_size, rtol=1e-5)
    nearly = loss_with(config, batch, 0, free_bits=1e-9)
    np.testing.assert_allclose(nearly["loss"], nearly["reconstruction"] + nearly["kl"], rtol=1e-4)


def own_reconstruction(images, logits):
    """A user's own term."""
    return 7 * jnp.sum((images - jnp.tanh(logits)) ** 4, axis=(1, 2, 3))


def test_user_reconstruction_is_loaded_by_path(config, batch):
    name = "tests.test_vae:own_reconstruction"
    scalars = loss_with(config, batch, 0, reconstruction=name, kl_weight=0.0)
    assert scalars["loss"] == scalars["reconstruction"] > 0
    plain = loss_with(config, batch, 0, reconstruction="squared_error")
    assert scalars["reconstruction"] != plain["reconstruction"]


def test_learned_variance_is_a_trained_parameter(config, batch):
    config.vae.reconstruction, config.vae.decoder_variance = "gaussian", "learned"
    step = jax.jit(vae.make_train_step(config, SHAPE))
    state = jax.jit(lambda: vae.init(config, SHAPE))()
    variance = float(np.exp(state.params["likelihood"]["log_variance"]))
    new, scalars = step(state, batch, KEY)
    np.testing.assert_allclose(scalars["variance"], variance, rtol=1e-6)
    squared = loss_with(
        config, batch, 0, reconstruction="squared_error", decoder_variance="optimal"
    )
    size = np.prod(SHAPE)
    expected = squared["reconstruction"] / (2 * variance) + size / 2 * np.log(2 * np.pi * variance)
    np.testing.assert_allclose(scalars["reconstruction"], expected, rtol=1e-4)
    # The batch's mean squared error is larger than the first variance, so that it must rise.
    assert squared["reconstruction"] / size > variance
    assert float(np.exp(new.params["likelihood"]["log_variance"])) > variance


def test_symptom_scalars_match_numpy(config, batch):
    state = jax.jit(lambda: vae.init(config, SHAPE))()
    _, scalars = jax.jit(vae.make_train_step(config, SHAPE))(state, batch, KEY)
    encoder = networks.make_encoder(config.model, SHAPE)
    decoder = networks.make_decoder(config.model, SHAPE)
    mean, log_variance = encoder.apply({"params": state.params["encoder"]}, batch)
    critical = 0.01 * chi2.ppf(0.99, len(batch) - 1) / (len(batch) - 1)
    assert scalars["active_units"] == (np.var(mean, axis=0, ddof=1) > critical).sum()
    eps = jax.random.normal(draw_key(KEY, Purpose.POSTERIOR), mean.shape)
    z = vae.reparameterize(mean, log_variance, eps)
    decoded = np.tanh(decoder.apply({"params": state.params["decoder"]}, z))

    def detail(x):
        centre = x[:, 1:-1, 1:-1]
        around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
        return ((around - 4 * centre) ** 2).mean()

    np.testing.assert_allclose(
        scalars["sharpness"], detail(decoded) / detail(np.asarray(batch)), rtol=1e-3
    )


def test_loss_value_and_gradient_match_the_formula(config):
    """Of a linear encoder and decoder, written out in NumPy."""
    rng = np.random.default_rng(4)
    images = rng.uniform(-1, 1, (3, 2, 2, 1)).astype(np.float32)
    eps = rng.normal(size=(3, 2)).astype(np.float32)
    params = {
        "encoder": 0.3 * rng.normal(size=(4, 4)).astype(np.float32),
        "decoder": rng.normal(size=(2, 4)).astype(np.float32),
    }
    model = vae.make_vae(config, SHAPE)._replace(
        encode=lambda kernel, x: tuple(jnp.split(x.reshape(len(x), -1) @ kernel, 2, axis=1)),
        decode=lambda kernel, z: (z @ kernel).reshape(-1, 2, 2, 1),
    )

    def plain(encoder, decoder):
        x = np.asarray(images, np.float64).reshape(3, 4)
        mean, log_variance = np.split(x @ encoder, 2, axis=1)
        z = mean + np.exp(log_variance / 2) * eps
        reconstruction = np.sum((x - np.tanh(z @ decoder)) ** 2, axis=1).mean()
        kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
        return reconstruction, kl

    encoder, decoder = (np.asarray(params[name], np.float64) for name in ("encoder", "decoder"))
    (value, scalars), gradient = jax.value_and_grad(vae.loss, has_aux=True)(
        params, images, eps, 2.5, model
    )
    reconstruction, kl = plain(encoder, decoder)
    np.testing.assert_allclose(scalars["reconstruction"], reconstruction, rtol=1e-5)
    np.testing.assert_allclose(scalars["kl"], kl.sum(1).mean(), rtol=1e-5)
    np.testing.assert_allclose(scalars["largest_kl"], kl.mean(0).max(), rtol=1e-5)
    np.testing.assert_allclose(value, reconstruction + 2.5 * kl.sum(1).mean(), rtol=1e-5)

    def total(encoder, decoder):
        reconstruction, kl = plain(encoder, decoder)
        return reconstruction + 2.5 * kl.sum(1).mean()

    for name, kernel in (("encoder", encoder), ("decoder", decoder)):
        for index in np.ndindex(kernel.shape):
            step = np.zeros_like(kernel)
            step[index] = 1e-5
            sides = [
                total(*((kernel + s, decoder) if name == "encoder" else (encoder, kernel + s)))
                for s in (step, -step)
            ]
            slope = (sides[0] - sides[1]) / 2e-5
            np.testing.assert_allclose(gradient[name][index], slope, rtol=1e-3, atol=1e-4)
