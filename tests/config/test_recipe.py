import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax import config as configuration
from vaegan_jax.config import recipe, resume
from vaegan_jax.errors import UserError
from vaegan_jax.losses.terms import make_terms

SHAPE = (64, 64, 3)


def automatic(config):
    flat = configuration.flatten(config)
    return {name for name in flat if recipe.is_automatic(name, flat[name])}


def test_the_default_config_leaves_every_automatic_field_to_the_recipe():
    assert automatic(configuration.default_config()) == set(recipe.AUTOMATIC)


@pytest.mark.parametrize(
    ("count", "shown", "is_augmented"),
    [
        (500, 100_000, True),  # the minimum, 200 views of each image
        (1_000, 100_000, False),  # exactly 100 views, plus the warm-up: see below
        (4_000, 100_000, False),
        (4_001, 100_025, False),
        (40_000, 1_000_000, False),
        (100_000, 1_000_000, False),
    ],
)
def test_steps_and_augmentation_at_the_edges(count, shown, is_augmented):
    config = configuration.default_config()
    config.gan.discriminator_warmup_steps = 0
    config = recipe.resolve(config, count, SHAPE)
    configuration.check(config)
    assert config.gan.steps * config.gan.batch_size == shown // 8 * 8
    assert config.vae.steps == max(config.gan.steps // 12, 600)
    assert (config.gan.augmentations == "colour,translation") == is_augmented
    assert config.gan.ema_half_life_images == min(max(shown // 8 * 8 / 20, 1_000), 10_000)


@pytest.mark.parametrize(("shape", "weight"), [((32, 32, 1), 0.75), ((64, 96, 3), 4.5)])
def test_r1_grows_with_the_number_of_pixels(shape, weight):
    config = recipe.resolve(configuration.default_config(), 5_000, shape)
    assert config.gan.penalties == f"r1(weight={weight}, every=4)"


@given(
    count=st.integers(1, 10**6),
    side=st.sampled_from([16, 32, 64, 128, 256]),
    batch_size=st.sampled_from([0, 1, 64]),
    steps=st.sampled_from([0, 1_000]),
)
def test_resolved_configs_are_valid_and_explicit_fields_are_kept(count, side, batch_size, steps):
    config = configuration.default_config()
    config.gan.batch_size, config.gan.steps = batch_size, steps
    resolved = recipe.resolve(config, count, (side, side, 3))
    configuration.check(resolved)
    assert not automatic(resolved)
    assert resolved.gan.batch_size == (batch_size or min(8, count))
    assert steps in (0, resolved.gan.steps)
    assert max(resolved.vae.batch_size, resolved.gan.batch_size if not batch_size else 1) <= count
    assert automatic(config)  # a copy was resolved
    assert recipe.resolve(resolved, 7, (16, 16, 1)) == resolved


def test_resuming_keeps_what_was_chosen():
    config = configuration.default_config()
    saved = configuration.flatten(recipe.resolve(config, 5_000, SHAPE))
    assert resume.differences(saved, configuration.flatten(config)) == []
    config.gan.batch_size = 16
    changes = resume.differences(saved, configuration.flatten(config))
    assert [change.name for change in changes] == ["gan.batch_size"]
    kept = recipe.keep(config, saved)
    assert kept.gan.batch_size == 16
    assert configuration.flatten(kept) == saved | {"gan.batch_size": 16}


def test_an_automatic_penalty_is_refused_where_the_data_is_unknown():
    with pytest.raises(UserError, match="auto"):
        make_terms("penalty", configuration.default_config().gan.penalties)
