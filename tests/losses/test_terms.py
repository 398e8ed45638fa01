import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import config as configuration
from vaegan_jax import gan, registry, vae
from vaegan_jax.errors import UserError
from vaegan_jax.losses import terms
from vaegan_jax.losses.terms import GANBatch, VAEBatch
from vaegan_jax.pipeline import stages
from vaegan_jax.randomness import Purpose, Stage, draw_key, step_key

HERE = "tests.losses.test_terms"
SHAPE = (16, 32, 3)
KEY = jax.random.key(3)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make(batch, **fields):
    names = [field.name for field in dataclasses.fields(batch)]
    return batch(**dict.fromkeys(names) | fields)


def assert_gradient(function, x):
    """Compares the gradient of a scalar with central differences along a direction."""
    with jax.enable_x64(True):
        x, direction = (jnp.asarray(a, jnp.float64) for a in (x, draw(*x.shape, seed=9)))
        slope = jnp.vdot(jax.grad(function)(x), direction)
        step = 1e-6
        change = function(x + step * direction) - function(x - step * direction)
        assert abs(slope) > 1e-6
        np.testing.assert_allclose(slope, change / (2 * step), rtol=1e-4)


@pytest.mark.parametrize(("options", "scale"), [({}, 2 * 3), ({"deviation": 0.5}, 2 * 0.25)])
def test_mmd_matches_numpy(options, scale):
    latents = 0.5 + draw(4, 3)
    value = terms.mmd(make(VAEBatch, latents=jnp.asarray(latents), key=KEY), **options)
    assert (value.shape, value.dtype) == ((4,), jnp.float32)
    prior = np.asarray(jax.random.normal(KEY, (4, 3)), np.float64)
    kernel = lambda x, y: np.exp(-((np.float64(x) - y) ** 2).sum() / scale)  # noqa: E731
    apart = [(i, j) for i in range(4) for j in range(4) if i != j]
    expected = np.mean([kernel(latents[i], latents[j]) for i, j in apart])
    expected += np.mean([kernel(prior[i], prior[j]) for i, j in apart])
    expected -= 2 * np.mean([kernel(x, y) for x in latents for y in prior])
    np.testing.assert_allclose(value.mean(), expected, rtol=1e-4)
    assert_gradient(
        lambda z: terms.mmd(make(VAEBatch, latents=z, key=KEY), **options).mean(), latents
    )


def test_mmd_is_zero_on_average_for_latents_of_the_prior_and_grows_with_the_distance():
    def of(shift, key):
        keys = jax.random.split(key)
        latents = shift + jax.random.normal(keys[0], (16, 8))
        return terms.mmd(make(VAEBatch, latents=latents, key=keys[1])).mean()

    shifts, keys = jnp.array([0, 0.5, 1]), jax.random.split(KEY, 50)
    values = jax.jit(jax.vmap(jax.vmap(of, (None, 0)), (0, None)))(shifts, keys)
    mean, error = values.mean(axis=1), values.std(axis=1) / 50**0.5
    assert abs(mean[0]) < 4 * error[0]
    assert 5 * error[1] < mean[1] < mean[2]


def test_feature_matching_matches_numpy():
    real, fake = draw(4, 2, 3, 5), draw(4, 2, 3, 5, seed=1)

    def value(fake):
        return terms.feature_matching(
            make(GANBatch, real_features=real, fake_features=fake, latents=draw(4, 3))
        )

    expected = ((np.float64(real).mean(0) - np.float64(fake).mean(0)) ** 2).sum()
    np.testing.assert_allclose(value(jnp.asarray(fake)), 4 * [expected], rtol=1e-5)
    gradient = jax.grad(lambda fake: value(fake).mean())(fake)
    expected = np.broadcast_to(2 / 4 * (fake.mean(0) - real.mean(0)), fake.shape)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_mode_seeking_matches_numpy():
    latents, fake = draw(4, 3), draw(4, 2, 3, 1, seed=1)

    def value(fake):
        return terms.mode_seeking(make(GANBatch, latents=latents, fake=fake))

    pairs = [
        np.abs(latents[i] - latents[i - 1]).mean() / (np.abs(fake[i] - fake[i - 1]).mean() + 1e-5)
        for i in range(4)
    ]
    np.testing.assert_allclose(value(jnp.asarray(fake)), pairs, rtol=1e-5)
    assert_gradient(lambda fake: value(fake).mean(), fake)
    # Two equal images are penalised, and the gradient stays finite.
    equal = jnp.asarray(fake[[0, 0, 1, 2]])
    assert value(equal)[1] > 100 * np.median(pairs)
    assert np.isfinite(jax.grad(lambda fake: value(fake).mean())(equal)).all()


def vae_fields(batch):
    """Zero if every field is what it says."""
    decoded = batch.reconstruction - jnp.tanh(batch.logits)
    eps = jax.random.normal(draw_key(step_key(0, Stage.VAE, 0), Purpose.POSTERIOR), (4, 5))
    drawn = batch.latents - (batch.mean + jnp.exp(batch.log_variance / 2) * eps)
    wrong = (decoded, drawn, batch.step.astype(float), batch.images - jnp.asarray(images()))
    return jnp.full(4, sum(jnp.sum(jnp.abs(x)) for x in wrong))


def gan_fields(batch):
    """Zero if every field is what it says, without augmentation."""
    wrong = (
        batch.real - jnp.asarray(images()),
        batch.fake - batch.generate(batch.latents),
        batch.real_logits - batch.discriminate(batch.real),
        batch.fake_logits - batch.discriminate(batch.fake),
        batch.step.astype(float),
    )
    assert batch.real_features.shape == batch.fake_features.shape
    return jnp.full(4, sum(jnp.sum(jnp.abs(x)) for x in wrong))


def noise(batch, scale):
    return scale * jax.random.uniform(batch.key, (4,))


def dark(batch):
    return jnp.mean(batch.fake, (1, 2, 3))


def dark_again(batch):
    return jnp.mean(batch.generate(batch.latents), (1, 2, 3))


def small_mean(batch):
    return jnp.sum(jnp.square(batch.mean), axis=1)


def unused(batch):
    return jnp.zeros(len(batch.latents))


def scalar(batch):
    return jnp.mean(batch.latents)


def broken(batch):
    raise RuntimeError("out of luck")


def images():
    return np.random.default_rng(0).uniform(-1, 1, (4, *SHAPE)).astype(np.float32)


def vae_step(config, text):
    config.vae.terms = text
    state = jax.jit(lambda: vae.init(config, SHAPE))()
    arguments = state, images(), step_key(0, Stage.VAE, 0)
    return jax.jit(vae.make_train_step(config, SHAPE)), arguments


def gan_step(config, text, penalties="r1(weight=0.5)"):
    config.gan.generator_terms, config.gan.penalties = text, penalties
    config.gan.discriminator_warmup_steps = 0
    start = jax.jit(lambda: gan.random_init(config, SHAPE))()
    state = jax.jit(lambda start: gan.init(config, SHAPE, start))(start)
    arguments = state, images(), step_key(0, Stage.GAN, 0)
    return jax.jit(gan.make_train_step(config, SHAPE)), arguments


def test_terms_of_the_vae_see_its_batch_and_are_added(config):
    text = f"{HERE}:vae_fields, {HERE}:noise(scale=3), {HERE}:small_mean(weight=0.25)"
    step, arguments = vae_step(config, text)
    _, scalars = step(*arguments)
    assert scalars[f"{HERE}:vae_fields"] < 1e-3
    key = jax.random.fold_in(draw_key(arguments[-1], Purpose.TERM), 1)
    expected = 3 * jax.random.uniform(key, (4,)).mean()
    np.testing.assert_allclose(scalars[f"{HERE}:noise"], expected, rtol=1e-5)
    total = scalars["reconstruction"] + scalars["kl"] + scalars[f"{HERE}:vae_fields"]
    total += scalars[f"{HERE}:noise"] + 0.25 * scalars[f"{HERE}:small_mean"]
    np.testing.assert_allclose(scalars["loss"], total, rtol=1e-5)


def test_penalties_and_terms_of_the_generator_see_the_batch(config):
    name = f"{HERE}:gan_fields"
    for text, penalties in (("", name), (f"{name}, {HERE}:noise(scale=2)", "")):
        step, arguments = gan_step(config, text, penalties)
        _, scalars = step(*arguments)
        assert scalars[name] < 1e-2
    key = jax.random.fold_in(draw_key(arguments[-1], Purpose.TERM), 1)
    expected = 2 * jax.random.uniform(key, (4,)).mean()
    np.testing.assert_allclose(scalars[f"{HERE}:noise"], expected, rtol=1e-5)


def test_gradients_reach_the_generator_through_its_images_and_through_generate(config):
    norms = []
    for name in ("unused", "dark", "dark_again"):
        step, arguments = gan_step(config, f"{HERE}:{name}(weight=100)")
        norms.append(float(step(*arguments)[1]["generator_gradient_norm"]))
    np.testing.assert_allclose(norms[1], norms[2], rtol=1e-3)
    assert abs(norms[1] - norms[0]) > 0.1 * norms[0]


@pytest.mark.parametrize("make_step", [vae_step, gan_step])
def test_what_a_term_does_not_use_costs_nothing(config, make_step):
    def operations(text):
        step, arguments = make_step(config, text)
        return step.lower(*arguments).compile().cost_analysis()["flops"]

    without, with_unused = operations(""), operations(f"{HERE}:unused")
    assert abs(with_unused - without) < 1e-3 * without


@pytest.mark.parametrize("field", ["vae.terms", "gan.penalties", "gan.generator_terms"])
@pytest.mark.parametrize(
    ("text", "details"),
    [("scalar", ["float32[2]", "float32[]"]), ("broken", ["out of luck"]), ("noise", ["'scale'"])],
)
def test_terms_of_another_form_are_refused_before_compilation(config, field, text, details):
    config.update_from_flattened_dict({field: f"{HERE}:{text}"})
    with pytest.raises(UserError) as caught:
        stages.check_terms(config, SHAPE)
    assert all(detail in str(caught.value) for detail in [f"{HERE}:{text}", *details])


def test_a_name_stands_for_one_term():
    config = configuration.default_config()
    config.gan.penalties, config.gan.generator_terms = "r1, a.b:c", "a.b:c(weight=2)"
    with pytest.raises(UserError, match=r"a\.b:c"):
        configuration.check(config)


@pytest.mark.parametrize("kind", registry.TERM_OPTIONS)
def test_terms_without_weight_are_left_out(kind):
    name = next(iter(registry.BUILT_IN[kind]))
    assert terms.make_terms(kind, f"{name}(weight=0)") == ()
    (term,) = terms.make_terms(kind, name)
    assert (term.name, term.weight, term.every) == (name, 1, 1)
