import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import mannwhitneyu

from tests.conftest import assert_trees_equal
from vaegan_jax import gan, networks, registry
from vaegan_jax.losses import augmentation
from vaegan_jax.losses.terms import make_terms
from vaegan_jax.randomness import Purpose, Stage, draw_key, latents, step_key

OBJECTIVES = {name: registry.load("objective", name) for name in registry.BUILT_IN["objective"]}

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
    normalised = discriminator.apply({"params": state.discriminator}, real)
    np.testing.assert_allclose(scalars["real_logit"], normalised.mean(), rtol=1e-3, atol=1e-5)


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
    for state in states[1:3]:
        assert_trees_equal(state.generator, states[0].generator)
        assert_trees_equal(state.generator_optimizer, states[0].generator_optimizer)
        assert_trees_equal(state.ema, states[0].ema)
    for before, after in zip(
        jax.tree.leaves(states[2].generator), jax.tree.leaves(states[3].generator), strict=True
    ):
        assert not np.array_equal(before, after)


@pytest.mark.parametrize("half_life", [40.0, 10_000.0])
def test_ema_decay_matches_the_formula(half_life):
    images = np.arange(0, 50 * half_life, half_life)
    decay = jax.vmap(lambda seen: gan.ema_decay(seen, 32, half_life))(images)
    assert decay.dtype == jnp.float32
    assert decay[0] == 0
    expected = 0.5 ** (32 / np.minimum(half_life, gan.EMA_RAMP * images[1:]))
    np.testing.assert_allclose(decay[1:], expected, rtol=1e-5)
    assert decay[10] < decay[-1] == pytest.approx(0.5 ** (32 / half_life))


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


def log_sigmoid(x):
    return -np.logaddexp(0, -np.asarray(x, np.float64))


def expected_losses(objective, real, fake):
    """Both losses in float64, by their own formulas."""
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    usual = -log_sigmoid(real).mean() - log_sigmoid(-fake).mean()
    return {
        "minimax": (usual, log_sigmoid(-fake).mean()),
        "non_saturating": (usual, -log_sigmoid(fake).mean()),
        "hinge": (
            np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean(),
            -fake.mean(),
        ),
        "least_squares": (
            (((real - 1) ** 2).mean() + (fake**2).mean()) / 2,
            ((fake - 1) ** 2).mean() / 2,
        ),
        "wasserstein": (fake.mean() - real.mean(), -fake.mean()),
        "relativistic": (-log_sigmoid(real - fake).mean(), -log_sigmoid(fake - real).mean()),
    }[objective]


@pytest.mark.parametrize(
    ("objective", "penalty"),
    list(zip(OBJECTIVES, 2 * ("r1", "r2", "gradient_penalty"), strict=True)),
)
def test_train_step_with_each_objective_and_penalty(config, real, objective, penalty):
    config.gan.objective, config.gan.discriminator_warmup_steps = objective, 0
    config.gan.penalties = f"{penalty}(weight=2)"
    state = first_state(config)
    new, scalars = one_step(config, state, real)
    discriminator = networks.make_discriminator(config.model, SHAPE)
    generator = networks.make_decoder(config.model, SHAPE)
    z = latents(draw_key(KEY, Purpose.LATENT), (4, config.model.latent_size))
    fake = jnp.tanh(generator.apply({"params": state.generator}, z))

    def logits(params):
        return [discriminator.apply({"params": params}, images) for images in (real, fake)]

    before, after = logits(state.discriminator), logits(new.discriminator)
    ours = scalars["discriminator_loss"], scalars["generator_loss"]
    expected = (
        expected_losses(objective, *before)[0],
        expected_losses(objective, *after)[1],
    )
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=1e-5)
    assert {"r1", "r2", "gradient_penalty"} & set(scalars) == {penalty}
    at = {"r1": real, "r2": fake}.get(penalty)
    if at is not None:
        slopes = jax.grad(lambda x: discriminator.apply({"params": state.discriminator}, x).sum())(
            at
        )
        np.testing.assert_allclose(scalars[penalty], (slopes**2).sum() / 8, rtol=1e-3)
    for network in ("generator", "discriminator"):
        pairs = zip(
            jax.tree.leaves(getattr(state, network)),
            jax.tree.leaves(getattr(new, network)),
            strict=True,
        )
        assert any(not np.array_equal(a, b) for a, b in pairs)


def test_lazy_penalty_is_scaled_by_its_interval(config, real):
    config.gan.penalties, config.gan.discriminator_warmup_steps = "r1(weight=2)", 6
    often = [float(s["r1"]) for s in steps_of(config, real, 1)]
    config.gan.penalties = "r1(weight=2, every=3)"
    rare = [float(s["r1"]) for s in steps_of(config, real, 4)]
    np.testing.assert_allclose(rare[0], 3 * often[0], rtol=1e-4)
    assert rare[1:3] == [0, 0]
    assert rare[3] > 0


def test_every_penalty_has_an_interval(config, real):
    config.gan.penalties = "gradient_penalty(every=3), r1, r2(every=2)"
    config.gan.discriminator_warmup_steps = 8
    seen = steps_of(config, real, 7)
    for name, every in (("r1", 1), ("r2", 2), ("gradient_penalty", 3)):
        assert [float(s[name]) > 0 for s in seen] == [step % every == 0 for step in range(7)], name


def steps_of(config, real, count):
    step = jax.jit(gan.make_train_step(config, SHAPE))
    state, seen = first_state(config), []
    for i in range(count):
        state, scalars = step(state, real, step_key(0, Stage.GAN, i))
        seen.append(scalars | {"generator": state.generator})
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


def test_symptom_scalars_match_numpy(config, real):
    config.gan.discriminator_warmup_steps = 0
    state = first_state(config)
    new, scalars = one_step(config, state, real)
    generator = networks.make_decoder(config.model, SHAPE)
    z = latents(draw_key(KEY, Purpose.LATENT), (4, config.model.latent_size))
    fake = np.tanh(np.asarray(generator.apply({"params": state.generator}, z), np.float64))

    def mean_distance(x):
        return pdist(np.asarray(x, np.float64).reshape(4, -1)).mean()

    np.testing.assert_allclose(
        scalars["diversity"], mean_distance(fake) / mean_distance(real), rtol=1e-3
    )
    discriminate = networks.make_discriminate(config.model, SHAPE)
    features = [
        discriminate(state.discriminator, jnp.asarray(x, jnp.float32))[1] for x in (fake, real)
    ]
    np.testing.assert_allclose(
        scalars["feature_diversity"],
        mean_distance(features[0]) / mean_distance(features[1]),
        rtol=1e-3,
    )
    np.testing.assert_allclose(
        scalars["margin"], scalars["real_logit"] - scalars["fake_logit"], rtol=1e-3, atol=1e-6
    )
    assert scalars["absolute_margin"] == abs(scalars["margin"])
    logits, _ = discriminate(new.discriminator, jnp.asarray(fake, jnp.float32))
    slope = np.mean(1 / (1 + np.exp(np.asarray(logits, np.float64))))
    np.testing.assert_allclose(scalars["generator_slope"], slope, rtol=1e-3)


def test_spectral_norm_normalises_the_discriminator(config, real):
    config.model.spectral_norm = True
    state = first_state(config)
    _, scalars = one_step(config, state, real)

    def power_iteration(matrix):
        """The largest singular value after 16 rounds, in float64."""
        key = draw_key(step_key(0, Stage.LAYERS, 0), Purpose.POWER_ITERATION)
        v = np.asarray(jax.random.normal(key, (matrix.shape[1],)), np.float64)
        for _ in range(16):
            u = matrix @ v
            v = matrix.T @ (u / np.linalg.norm(u))
            v /= np.linalg.norm(v)
        return np.linalg.norm(matrix @ v)

    def normalise(path, leaf):
        matrix = np.reshape(np.asarray(leaf, np.float64), (-1, leaf.shape[-1]))
        return leaf / power_iteration(matrix) if path[-1].key == "kernel" else leaf

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


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_discriminator_loss_value_and_gradient_match_the_formula(weight):
    params, real, fake, (x, y) = linear_case()
    terms = make_terms("penalty", f"r1(weight={weight}, every=4)")
    (loss, scalars), gradient = jax.value_and_grad(gan.discriminator_loss, has_aux=True)(
        params, real, fake, KEY,
        discriminate=linear_discriminate, objective=OBJECTIVES["non_saturating"],
        terms=terms, latents=np.zeros((5, 2)), generate=None, step=0,
    )  # fmt: skip
    w = np.asarray(params, np.float64)
    objective = np.mean(np.log1p(np.exp(-x @ w))) + np.mean(np.log1p(np.exp(y @ w)))
    # The slope of a linear logit is w itself, at every image.
    np.testing.assert_allclose(loss, objective + 4 * weight / 2 * w @ w, rtol=1e-5)
    expected = (sigmoid(y @ w) @ y - sigmoid(-x @ w) @ x) / 5 + 4 * weight * w
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    np.testing.assert_allclose(scalars["discriminator_loss"], objective, rtol=1e-5)
    np.testing.assert_allclose(scalars["margin"], np.mean(x @ w) - np.mean(y @ w), rtol=1e-4)
    auc = mannwhitneyu(x @ w, y @ w).statistic / 25
    assert 0 < auc < 1
    np.testing.assert_allclose(scalars["discriminator_auc"], auc, rtol=1e-6)
    if weight:
        np.testing.assert_allclose(scalars["r1"], 4 * w @ w / 2, rtol=1e-5)


@pytest.mark.parametrize("name", ["minimax", "non_saturating", "relativistic"])
def test_generator_loss_value_and_gradient_match_the_formula(name):
    params, real, fake, (x, y) = linear_case()
    (loss, scalars), gradient = jax.value_and_grad(gan.generator_loss, argnums=2, has_aux=True)(
        params, real, fake,
        discriminate=linear_discriminate, objective=OBJECTIVES[name],
    )  # fmt: skip
    w = np.asarray(params, np.float64)
    real_logits, logits = x @ w, y @ w
    np.testing.assert_allclose(loss, expected_losses(name, real_logits, logits)[1], rtol=1e-5)
    slope = {
        "minimax": -sigmoid(logits),
        "non_saturating": -sigmoid(-logits),
        "relativistic": -sigmoid(real_logits - logits),
    }[name]
    expected = slope[:, None] * w / 5
    np.testing.assert_allclose(gradient.reshape(5, 4), expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(scalars["generator_slope"], np.abs(slope).mean(), rtol=1e-5)


def test_updates_match_sgd_and_ema(config):
    config.gan.ema_half_life_images, config.gan.penalties = 20.0, ""
    params, real, fake, (x, y) = linear_case()
    model = gan.make_gan(config, SHAPE)._replace(
        discriminate=linear_discriminate,
        discriminator_optimizer=optax.sgd(0.5),
        generator_optimizer=optax.sgd(0.25),
    )
    state = gan.GANState(
        step=jnp.int32(700), generator=jnp.ones(3), discriminator=jnp.asarray(params),
        generator_optimizer=optax.sgd(0.25).init(jnp.ones(3)),
        discriminator_optimizer=optax.sgd(0.5).init(params),
        ema=jnp.zeros(3), latent_mean=jnp.zeros(2), latent_factor=jnp.eye(2),
    )  # fmt: skip
    new, scalars = gan.update_discriminator(state, real, fake, KEY, model)
    w = np.asarray(params, np.float64)
    gradient = (sigmoid(y @ w) @ y - sigmoid(-x @ w) @ x) / 5
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
