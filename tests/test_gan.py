import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, log_expit
from scipy.stats import mannwhitneyu

from tests.conftest import assert_trees_equal
from vaegan_jax import gan, layers, networks
from vaegan_jax.losses import augmentation, symptoms
from vaegan_jax.losses.terms import make_terms
from vaegan_jax.randomness import Purpose, Stage, draw_key, latents, step_key

SHAPE = (16, 32, 3)
KEY = step_key(0, Stage.GAN, 0)


@pytest.fixture
def real():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.uniform(-1, 1, (4, *SHAPE)), jnp.float32)


def first_state(config, **changes):
    start = jax.jit(lambda: gan.random_init(config, SHAPE))()
    state = jax.jit(lambda start: gan.init(config, SHAPE, start))(start)
    return state.replace(**changes)


def one_step(config, state, real):
    return jax.jit(gan.make_train_step(config, SHAPE))(state, real, KEY)


def assert_close_where_clear(new, expected, gradient, rate):
    """Compares two first Adam steps where the gradient is more than rounding error."""
    for a, b, g in zip(*(jax.tree.leaves(tree) for tree in (new, expected, gradient)), strict=True):
        clear = np.abs(g) > 1e-3 * np.abs(g).max() + 1e-6
        assert clear.any()
        np.testing.assert_allclose(np.asarray(a)[clear], np.asarray(b)[clear], atol=0.05 * rate)


@pytest.mark.parametrize(
    ("objective", "noise", "r1_weight"),
    [
        ("minimax", "normal", 2.0),
        ("non_saturating", "uniform", 2.0),
        ("non_saturating", "normal", 0.0),
    ],
)
def test_train_step_matches_the_written_out_algorithm(config, real, objective, noise, r1_weight):
    config.gan.objective, config.gan.noise = objective, noise
    config.gan.penalties = f"r1(weight={r1_weight})"
    config.gan.discriminator_warmup_steps = 0
    generator = networks.make_decoder(config.model, SHAPE)
    discriminator = networks.make_discriminator(config.model, SHAPE)
    state = first_state(config)
    z = latents(draw_key(KEY, Purpose.LATENT), (4, config.model.latent_size), noise)

    def generate(params):
        return jnp.tanh(generator.apply({"params": params}, z))

    def probability(params, images):
        return jax.nn.sigmoid(discriminator.apply({"params": params}, images))

    def discriminator_loss(params):
        fake = jax.lax.stop_gradient(generate(state.generator))
        loss = -jnp.log(probability(params, real)).mean()
        loss -= jnp.log(1 - probability(params, fake)).mean()
        for image in real:
            slope = jax.grad(lambda x: discriminator.apply({"params": params}, x[None])[0])(image)
            loss += r1_weight / 2 * jnp.sum(slope**2) / len(real)
        return loss

    adam = optax.adam(2e-4, 0.5, 0.999)
    gradient = jax.jit(jax.grad(discriminator_loss))(state.discriminator)
    updates, _ = adam.update(gradient, state.discriminator_optimizer)
    discriminator_params = optax.apply_updates(state.discriminator, updates)

    def generator_loss(params):
        caught = 1 - probability(discriminator_params, generate(params))
        return jnp.log(caught).mean() if objective == "minimax" else -jnp.log(1 - caught).mean()

    value, generator_gradient = jax.jit(jax.value_and_grad(generator_loss))(state.generator)
    updates, _ = adam.update(generator_gradient, state.generator_optimizer)
    generator_params = optax.apply_updates(state.generator, updates)

    new, scalars = one_step(config, state, real)
    assert_close_where_clear(new.discriminator, discriminator_params, gradient, 2e-4)
    assert_close_where_clear(new.generator, generator_params, generator_gradient, 2e-4)
    np.testing.assert_allclose(scalars["generator_loss"], value, rtol=1e-3)
    r1 = float(scalars["r1"]) if r1_weight else 0.0
    assert ("r1" in scalars) == bool(r1_weight)
    np.testing.assert_allclose(
        scalars["discriminator_loss"] + r1_weight * r1,
        discriminator_loss(state.discriminator),
        rtol=1e-3,
    )
    np.testing.assert_allclose(
        scalars["generator_gradient_norm"], optax.tree.norm(generator_gradient), rtol=1e-2
    )


def test_only_the_discriminator_changes_during_warmup(config, real):
    config.gan.discriminator_warmup_steps = 2
    step = jax.jit(gan.make_train_step(config, SHAPE))
    states = [first_state(config)]
    for i in range(3):
        state, scalars = step(states[-1], real, step_key(0, Stage.GAN, i))
        states.append(state)
        assert (float(scalars["generator_gradient_norm"]) == 0) == (i < 2)
        assert not np.array_equal(
            states[-2].discriminator["head"]["kernel"], states[-1].discriminator["head"]["kernel"]
        )
    for name in ("generator", "generator_optimizer", "ema"):
        assert_trees_equal(getattr(states[2], name), getattr(states[0], name))
    for name in ("latent_mean", "latent_factor"):
        assert_trees_equal(getattr(states[3], name), getattr(states[0], name))
    for before, after in zip(
        jax.tree.leaves(states[2].generator), jax.tree.leaves(states[3].generator), strict=True
    ):
        assert not np.array_equal(before, after)


@pytest.mark.parametrize("warmup", [0, 1, 5, 6])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_generator_updates_are_counted_after_warmup(config, warmup, every):
    config.gan.discriminator_warmup_steps, config.gan.discriminator_steps = warmup, every
    due = [step > warmup and step % every == 0 for step in range(1, 20)]
    counts = [int(gan.generator_updates(jnp.int32(i), config.gan)) for i in range(20)]
    assert counts == [0, *np.cumsum(due)]


@pytest.mark.parametrize(("warmup", "every"), [(0, 1), (3, 1), (1, 2)])
def test_ema_of_a_run_matches_numpy_also_after_resuming(config, real, warmup, every, monkeypatch):
    monkeypatch.setattr(gan.ema_decay, "__defaults__", (0.5,))  # 4 images of 8: not all forgotten
    config.gan.discriminator_warmup_steps, config.gan.discriminator_steps = warmup, every
    config.gan.ema_half_life_images, config.gan.generator_learning_rate = 5.0, 0.01
    step = jax.jit(gan.make_train_step(config, SHAPE))
    state = first_state(config)
    average, seen = np.asarray(state.ema["dense"]["kernel"], np.float64), 0
    for i in range(1, 9):
        state = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), state)  # a restored copy
        state, _ = step(state, real, step_key(0, Stage.GAN, i - 1))
        if i > warmup and i % every == 0:
            decay = 0.5 ** (4 / min(5.0, 0.5 * seen)) if seen else 0.0
            average = decay * average + (1 - decay) * np.asarray(state.generator["dense"]["kernel"])
            seen += 4
        np.testing.assert_allclose(state.ema["dense"]["kernel"], average, atol=1e-6)
    assert np.abs(average - state.generator["dense"]["kernel"]).max() > 1e-3


def test_train_step_is_deterministic_in_state_batch_and_key(config, real):
    config.gan.discriminator_warmup_steps = 0
    step = jax.jit(gan.make_train_step(config, SHAPE))
    state = first_state(config)
    assert_trees_equal(step(state, real, KEY), step(state, real, KEY))
    other, _ = step(state, real, step_key(1, Stage.GAN, 0))
    kernel = step(state, real, KEY)[0].generator["dense"]["kernel"]
    assert not np.array_equal(kernel, other.generator["dense"]["kernel"])


def test_every_penalty_has_an_interval_by_which_it_is_scaled(config, real):
    config.gan.penalties, config.gan.discriminator_warmup_steps = "r1, gradient_penalty", 8
    often = steps_of(config, real, 1)
    config.gan.penalties = "gradient_penalty(every=3), r1(every=2), r2"
    rare = steps_of(config, real, 7)
    for name, every in (("r1", 2), ("r2", 1), ("gradient_penalty", 3)):
        assert [float(s[name]) > 0 for s in rare] == [step % every == 0 for step in range(7)], name
    np.testing.assert_allclose(rare[0]["r1"], 2 * often[0]["r1"], rtol=1e-4)


def steps_of(config, real, count):
    step = jax.jit(gan.make_train_step(config, SHAPE))
    state, seen = first_state(config), []
    for i in range(count):
        state, scalars = step(state, real, step_key(0, Stage.GAN, i))
        seen.append(scalars)
    return seen


def test_discriminator_inputs_are_augmented(config, real):
    config.gan.discriminator_warmup_steps, config.gan.penalties = 0, ""
    state = first_state(config)
    config.gan.augmentations = "colour, cutout"
    _, scalars = one_step(config, state, real)
    changes = jax.random.split(draw_key(KEY, Purpose.AUGMENTATION), 4)
    discriminator = networks.make_discriminator(config.model, SHAPE)
    seen = augmentation.cutout(
        augmentation.colour(real, jax.random.fold_in(changes[0], 0)),
        jax.random.fold_in(changes[0], 1),
    )
    normalised = discriminator.apply({"params": state.discriminator}, seen)
    np.testing.assert_allclose(scalars["real_logit"], normalised.mean(), rtol=1e-3, atol=1e-5)


def test_symptoms_are_those_of_fake_relative_to_real(config, real):
    state = first_state(config)
    _, scalars = one_step(config, state, real)
    z = latents(draw_key(KEY, Purpose.LATENT), (4, config.model.latent_size))
    fake = networks.make_decode(config.model, SHAPE)(state.generator, z)
    discriminate = networks.make_discriminate(config.model, SHAPE)
    features = [discriminate(state.discriminator, images)[1] for images in (fake, real)]
    expected = {
        "diversity": symptoms.diversity(fake, real),
        "near_duplicates": symptoms.near_duplicates(fake, real),
        "sharpness": symptoms.relative_sharpness(fake, real),
        "feature_diversity": symptoms.diversity(*features),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(scalars[name], value, rtol=1e-3, err_msg=name)


def test_spectral_norm_normalises_every_kernel_of_the_discriminator(config, real):
    config.model.spectral_norm = True
    state = first_state(config)
    _, scalars = one_step(config, state, real)

    def normalise(path, leaf):
        return layers.spectrally_normalized(leaf) if path[-1].key == "kernel" else leaf

    params = jax.tree_util.tree_map_with_path(normalise, state.discriminator)
    logits = networks.make_discriminator(config.model, SHAPE).apply({"params": params}, real)
    np.testing.assert_allclose(scalars["real_logit"], logits.mean(), rtol=1e-3, atol=1e-5)


def linear_discriminate(params, images):
    """A discriminator whose logits, and every derivative of them, are written out by hand."""
    rows = images.reshape(len(images), -1)
    return rows @ params, rows


def linear_case():
    rng = np.random.default_rng(3)
    real, fake = rng.uniform(-1, 1, (2, 5, 2, 2, 1)).astype(np.float32)
    params = rng.normal(size=4).astype(np.float32)
    rows = [np.asarray(images, np.float64).reshape(5, 4) for images in (real, fake)]
    return params, real, fake, rows


def linear_gan(config, objective="non_saturating", **changes):
    config.gan.objective, config.gan.penalties = objective, ""
    return gan.make_gan(config, SHAPE)._replace(discriminate=linear_discriminate, **changes)


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_discriminator_loss_value_and_gradient_match_the_formula(config, weight):
    params, real, fake, (x, y) = linear_case()
    terms = make_terms("penalty", f"r1(weight={weight}, every=4)")
    (loss, scalars), gradient = jax.value_and_grad(gan.discriminator_loss, has_aux=True)(
        params, real, fake, linear_gan(config), terms,
        latents=np.zeros((5, 2)), generate=None, step=0, key=KEY,
    )  # fmt: skip
    w = np.asarray(params, np.float64)
    objective = np.mean(np.log1p(np.exp(-x @ w))) + np.mean(np.log1p(np.exp(y @ w)))
    # The slope of a linear logit is w itself, at every image.
    np.testing.assert_allclose(loss, objective + 4 * weight / 2 * w @ w, rtol=1e-5)
    expected = (expit(y @ w) @ y - expit(-x @ w) @ x) / 5 + 4 * weight * w
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    np.testing.assert_allclose(scalars["discriminator_loss"], objective, rtol=1e-5)
    np.testing.assert_allclose(scalars["margin"], np.mean(x @ w) - np.mean(y @ w), rtol=1e-4)
    auc = mannwhitneyu(x @ w, y @ w).statistic / 25
    assert 0 < auc < 1
    np.testing.assert_allclose(scalars["discriminator_auc"], auc, rtol=1e-6)
    if weight:
        np.testing.assert_allclose(scalars["r1"], 4 * w @ w / 2, rtol=1e-5)


GENERATOR_LOSSES = {  # of one pair of logits, and its slope in the fake logit
    "minimax": (lambda r, f: log_expit(-f), lambda r, f: -expit(f)),
    "non_saturating": (lambda r, f: -log_expit(f), lambda r, f: -expit(-f)),
    "relativistic": (lambda r, f: -log_expit(f - r), lambda r, f: -expit(r - f)),
}


@pytest.mark.parametrize("name", GENERATOR_LOSSES)
def test_generator_loss_value_and_gradient_match_the_formula(config, name):
    params, real, fake, (x, y) = linear_case()
    (loss, scalars), gradient = jax.value_and_grad(gan.generator_loss, argnums=2, has_aux=True)(
        params, real, fake, (KEY, KEY), linear_gan(config, name)
    )
    w = np.asarray(params, np.float64)
    value, slope = (formula(x @ w, y @ w) for formula in GENERATOR_LOSSES[name])
    np.testing.assert_allclose(loss, value.mean(), rtol=1e-5)
    expected = slope[:, None] * w / 5
    np.testing.assert_allclose(gradient.reshape(5, 4), expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(scalars["generator_slope"], np.abs(slope).mean(), rtol=1e-5)


def test_updates_match_sgd_and_ema(config):
    config.gan.ema_half_life_images = 20.0
    params, real, fake, (x, y) = linear_case()
    sgd = {"discriminator_optimizer": optax.sgd(0.5), "generator_optimizer": optax.sgd(0.25)}
    model = linear_gan(config, **sgd)
    state = gan.GANState(
        step=jnp.int32(700), generator=jnp.ones(3), discriminator=jnp.asarray(params),
        generator_optimizer=optax.sgd(0.25).init(jnp.ones(3)),
        discriminator_optimizer=optax.sgd(0.5).init(params),
        ema=jnp.zeros(3), latent_mean=jnp.zeros(2), latent_factor=jnp.eye(2),
    )  # fmt: skip
    new, scalars = gan.update_discriminator(state, real, fake, np.zeros((5, 2)), KEY, model)
    w = np.asarray(params, np.float64)
    gradient = (expit(y @ w) @ y - expit(-x @ w) @ x) / 5
    np.testing.assert_allclose(new.discriminator, w - 0.5 * gradient, rtol=1e-4)
    norm = np.linalg.norm(gradient)
    np.testing.assert_allclose(scalars["discriminator_gradient_norm"], norm, rtol=1e-4)
    assert new.step == 700
    assert_trees_equal(new.generator, state.generator)

    newer = gan.update_generator(new, jnp.array([1.0, 2.0, 4.0]), 5, model)
    np.testing.assert_allclose(newer.generator, [0.75, 0.5, 0.0])
    # Five images of a half-life of 20, once more than 400 images were seen.
    kept = 0.5 ** (5 / 20)
    np.testing.assert_allclose(newer.ema, (1 - kept) * np.array([0.75, 0.5, 0.0]), rtol=1e-6)
    assert_trees_equal(newer.discriminator, new.discriminator)
