import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax import config as configuration
from vaegan_jax.config import resume


@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(201, 10**9), rate=st.floats(1e-30, 1e30))
def test_differences_are_exactly_the_changed_fields(seed, steps, rate):
    before, after = configuration.default_config(), configuration.default_config()
    after.seed, after.gan.steps, after.vae.learning_rate = seed, steps, rate
    configuration.check(after)
    before, after = configuration.flatten(before), configuration.flatten(after)
    changes = resume.differences(before, after)
    assert {change.name for change in changes} == {n for n in before if before[n] != after[n]}
    for change in changes:
        assert (change.before, change.now) == (before[change.name], after[change.name])


def test_fields_without_effect_on_training_are_ignored():
    before = configuration.flatten(configuration.default_config())
    after = {"data.workers": 3, "data.directory": "/a", "data.path": "/b", "transfer.vae": "/c"}
    after |= {"training.seconds_per_call": 1.0, "training.max_checkpoints": 5}
    assert resume.differences(before, after | {"data.max_resident_mb": 0.0}) == []
    assert resume.differences(before, {"evaluation.samples": 50, "evaluation.gone": 3}) == []


def test_field_missing_from_an_older_config_has_its_default():
    now = configuration.flatten(configuration.default_config())
    old = {name: value for name, value in now.items() if name not in ("data.fit", "data.flip")}
    assert resume.differences(old, now) == []
    assert resume.differences(old, now | {"data.flip": True}) == [("data.flip", False, True)]
    assert resume.differences(old | {"data.gone": 1}, now) == [("data.gone", 1, "absent")]


@pytest.mark.parametrize(
    ("fields", "saved", "why"),
    [
        ({"gan.steps": 30_000}, {"vae": 10_000, "gan": 500}, ""),
        ({"gan.steps": 500}, {"gan": 500}, ""),
        ({"gan.steps": 499}, {"gan": 500}, "500"),
        ({"vae.steps": 12_000}, {"vae": 10_000}, ""),
        ({"vae.steps": 12_000}, {"vae": 10_000, "gan": 1}, "GAN"),
        ({"vae.steps": 12_000, "vae.kl_schedule": "cyclical"}, {}, "vae.kl_schedule"),
        ({"training.log_every": 7, "training.picture_every": 7}, {"gan": 500}, ""),
        ({"training.checkpoint_every": 7}, {"gan": 500}, ""),
        ({"vae.learning_rate": 1e-4}, {}, "steps already taken"),
        ({"seed": 1}, {}, "steps already taken"),
        ({"transfer.match_posterior": False}, {"vae": 3}, ""),
        ({"transfer.match_posterior": False}, {"vae": 3, "gan": 0}, "steps already taken"),
        ({"gan.b1": 0.0}, {"vae": 3}, ""),
        ({"gan.b1": 0.0}, {"vae": 3, "gan": 9}, "steps already taken"),
    ],
)
def test_fields_that_may_change_on_resume(fields, saved, why):
    config = configuration.default_config()
    before = configuration.flatten(config)
    config.update_from_flattened_dict(fields)
    objections = [
        resume.objection(change, config, saved)
        for change in resume.differences(before, configuration.flatten(config))
    ]
    assert len(objections) == len(fields)
    assert any(why in objection for objection in objections) if why else not any(objections)
