import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.conftest import assert_trees_equal
from vaegan_jax import networks, vae
from vaegan_jax.losses import symptoms
from vaegan_jax.losses import vae as losses
from vaegan_jax.randomness import Purpose, Stage, draw_key, step_key

SHAPE = (16, 32, 3)
KEY = step_key(0, Stage.VAE, 0)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.uniform(-1, 1, (4, *SHAPE)), jnp.float32)


def first_state(config):
    return jax.jit(lambda: vae.init(config, SHAPE))()


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
    state = first_state(config)
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
    state = first_state(config)
    step = jax.jit(vae.make_train_step(config, SHAPE))
    once, again = step(state, batch, KEY), step(state, batch, KEY)
    assert_trees_equal(once, again)
    other, _ = step(state, batch, step_key(0, Stage.VAE, 1))
    kernels = [new.params["decoder"]["dense"]["kernel"] for new in (once[0], other)]
    assert not np.array_equal(*kernels)


def test_the_seed_determines_the_parameters(config):
    first = first_state(config)
    assert_trees_equal(first, first_state(config))
    config.seed = 1
    second = first_state(config)
    for part, layer in (("encoder", "head"), ("decoder", "dense")):
        assert not np.array_equal(*(s.params[part][layer]["kernel"] for s in (first, second)))


def loss_with(config, batch, at, **fields):
    """The scalars of a step taken at a given step of the run."""
    for name, value in fields.items():
        config.vae[name] = value
    state = first_state(config)
    state = state.replace(step=jnp.int32(at))
    _, scalars = jax.jit(vae.make_train_step(config, SHAPE))(state, batch, KEY)
    return {name: float(value) for name, value in scalars.items()}


@pytest.mark.parametrize(
    ("at", "fields", "factor"),
    [
        (3, {"kl_schedule": "linear", "kl_warmup_steps": 12}, 0.25),
        # Cycles of ten steps, of which five rise.
        (12, {"kl_schedule": "cyclical", "steps": 40, "kl_cycles": 4}, 0.4),
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
    state = first_state(config)
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


def test_scalars_of_the_latents_and_of_sharpness(config, batch):
    state = first_state(config)
    _, scalars = jax.jit(vae.make_train_step(config, SHAPE))(state, batch, KEY)
    mean, log_variance = networks.make_encode(config.model, SHAPE)(state.params["encoder"], batch)
    assert scalars["active_units"] == symptoms.active_units_of_batch(mean) > 0
    largest = losses.kl(mean, log_variance).mean(axis=0).max()
    np.testing.assert_allclose(scalars["largest_kl"], largest, rtol=1e-4)
    eps = jax.random.normal(draw_key(KEY, Purpose.POSTERIOR), mean.shape)
    z = mean + jnp.exp(log_variance / 2) * eps
    decoded = networks.make_decode(config.model, SHAPE)(state.params["decoder"], z)
    expected = symptoms.relative_sharpness(decoded, batch)
    np.testing.assert_allclose(scalars["sharpness"], expected, rtol=1e-3)
