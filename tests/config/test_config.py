import itertools
import json
import re
import runpy

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from tests.conftest import ROOT
from vaegan_jax import config as configuration
from vaegan_jax import randomness
from vaegan_jax.config import set_field
from vaegan_jax.config.removed import REMOVED
from vaegan_jax.errors import UserError

CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def load(path, *overrides):
    config = runpy.run_path(str(path))["get_config"]()
    for each in overrides:
        set_field(config, each)
    return config


def refusal(config):
    """The message of the check, None if it passes."""
    try:
        configuration.check(config)
    except UserError as error:
        return str(error)
    return None


def override(config, name, value):
    section, _, last = name.rpartition(".")
    with config.ignore_type():
        setattr(config[section] if section else config, last, value)
    return config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_pass_and_override_fields(path):
    config = load(path)
    if config.data.name == "folder":
        with pytest.raises(UserError, match=r"data\.path"):
            configuration.check(config)
        config.data.path = "pictures"
    configuration.check(config)
    assert configuration.flatten(config).keys() == configuration.FIELDS.keys()
    assert configuration.flatten(config) != configuration.flatten(configuration.default_config())


def test_every_field_can_be_set_and_is_written_as_json():
    for name, field in configuration.FIELDS.items():
        assert name in configuration.flatten(load(CONFIGS[0], f"{name}={field.default}"))
    text = "r1(weight=3, every=4), a.b:c(d='e')"
    config = load(CONFIGS[0], f"gan.penalties={text}")
    configuration.check(config)
    assert config.gan.penalties == text
    config = load(CONFIGS[0], "gan.steps=2000", "data.image_size=(32, 48)")
    flat = configuration.flatten(config)
    assert (flat["gan.steps"], flat["data.image_size"]) == (2000, [32, 48])
    assert json.loads(configuration.to_json(config)) == flat


NAN, INF = float("nan"), float("inf")

BAD = {
    "gan.steps": [-1, 1.5, "8"],
    "gan.discriminator_steps": [0, -1, 1.5, "8"],
    "data.held_out_one_in": [1, 0, 8.0],
    "evaluation.samples": [-1, 1, 39],
    "vae.learning_rate": [0, -1.0, NAN, INF, "fast"],
    "vae.b1": [1.0, -0.1, NAN],
    "vae.kl_weight": [-0.5, NAN, INF],
    "data.flip": [1, "yes"],
    "data.path": [3],
    "data.fit": ["other", 3],
    "vae.reconstruction": ["other", 3],
    "seeds": [3, (0, -1), (0.5,), "01", {0: 1}, {}, {0, 1}, ((0, 1),), range(3)],
    "variants": ["warm", ("",), (": gan.steps=3",), (3,), {"a": "vae.steps=1"}, {}, (("a",),)],
    "seed": [-1, 1.5, 2**32, True],
    "data.name": ["", "two words", "/mnist", 3],
    "data.split": ["", " ", 3],
    "data.image_size": [0, 60, -16, (64,), (64, 60), (64, 64, 3), "64", 64.0, True],
    "data.channels": [0, 2, 4, "3", True, 3.0],
    "data.background": ["", "no colour", "#12345", "#11223344", 7],
    "data.max_bad_fraction": [-0.1, 1.1, NAN],
    "model.dtype": ["float16"],
    "gan.objective": ["", "hinge!", "hinge, minimax", 3],
    "vae.terms": ["auto", "r1", "mmd(weight=-1)", "mmd(deviation=x)", "a.b:c, a.b:c", 3],
    "gan.generator_terms": ["auto", "mmd", "mode_seeking(weight='2')", "mode_seeking,", 3],
    "gan.penalties": ["r3", "a.b:", "r1(weight=-1)", "r1(every=0)", "r1(every=2.5)", "r1, r1",
                      "r1(weight=1e999)", "r1(weight=True)", 3],
    "gan.augmentations": ["color", "colour,", "colour;cutout", 3],
    "gan.ema_half_life_images": [-1.0, INF],
    "evaluation.embeddings": ["", "resnet", "a.b:", 3, "pixels,", "none,pixels", "pixels,pixels"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, v) for name in configuration.FIELDS for v in (None, *BAD.get(name, ()))],
)
def test_invalid_value_is_refused_by_name(name, value):
    message = refusal(override(configuration.default_config(), name, value))
    assert message.startswith(f"{name} must be ")
    assert repr(value) in message or str(list(value)) in message


@pytest.mark.parametrize(
    ("name", "near"),
    [("gan.stepz", "gan.steps"), ("gan.kl_weight", "vae.kl_weight"), ("sead", "seed")],
)
def test_unknown_field_is_refused_with_the_closest_name(name, near):
    config = configuration.default_config()
    with config.unlocked():
        override(config, name, 3)
    assert re.search(f"{name}.*{near}", refusal(config))


def test_missing_field_is_refused_by_name():
    config = configuration.default_config()
    with config.unlocked():
        del config.gan.noise
    assert "gan.noise" in refusal(config)
    assert "seed" in refusal(ConfigDict())


@pytest.mark.parametrize("name", [*REMOVED, "monitor.window"])
def test_removed_field_is_refused_with_an_alternative(name):
    assert name not in configuration.FIELDS
    section, _, last = name.rpartition(".")
    # ml_collections reports the section or the last part alone, where a config file sets a field.
    missing = last if section in configuration.default_config() else section or name
    for part in (name, missing):
        assert REMOVED.get(name, REMOVED["monitor"]) in str(configuration.unknown_field(part))


@pytest.mark.parametrize(
    ("name", "text"),
    [("variants", "{'a', 'b'}"), ("seeds", "{0: 1}"), ("data.image_size", "((16, 16),)")],
)
def test_flag_of_another_type_is_refused_not_converted(name, text):
    config = load(ROOT / "configs/smoke.py", f"{name}={text}")
    assert (refusal(config) or "").startswith(f"{name} must be ")


def test_config_is_refused_iff_its_generator_is_never_updated():
    config = configuration.default_config()
    for steps, warmup, every in itertools.product(range(1, 9), range(9), range(1, 10)):
        config.gan.steps, config.gan.discriminator_warmup_steps = steps, warmup
        config.gan.discriminator_steps = every
        # The condition of gan.make_train_step.
        trains = any(s > warmup and s % every == 0 for s in range(1, steps + 1))
        message = refusal(config)
        assert message is None if trains else "gan.discriminator_" in message


ENCODER = {"transfer.discriminator": "encoder"}
LINEAR, CYCLICAL = {"vae.kl_schedule": "linear"}, {"vae.kl_schedule": "cyclical"}
FOLDER = {"data.name": "folder", "data.path": "pictures"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"vae.decoder_variance": "learned"}, ["vae.reconstruction=gaussian"]),
        (ENCODER | {"transfer.generator": "scratch"}, ["transfer.generator=scratch"]),
        (ENCODER, ["model.discriminator_norm (none)", "model.norm (group)"]),
        ({"transfer.discriminator": "start"}, ["gan.start"]),
        ({"gan.start": "a"}, ["gan.start='a'", "transfer.generator=scratch"]),
        ({"transfer.vae": "a", "transfer.generator": "scratch"}, ["transfer.vae='a'"]),
        ({"gan.penalties": "a.b:c", "gan.generator_terms": "a.b:c(d=3)"}, ["both name a.b:c"]),
        (LINEAR, ["vae.kl_warmup_steps"]),
        (LINEAR | {"vae.kl_warmup_steps": 20}, ["vae.kl_warmup_steps"]),
        (LINEAR | {"vae.kl_warmup_steps": 19}, None),
        ({"vae.kl_warmup_steps": 5}, ["vae.kl_schedule"]),
        ({"vae.kl_cycles": 2}, ["vae.kl_schedule"]),
        (CYCLICAL | {"vae.kl_cycles": 2}, None),
        (CYCLICAL | {"vae.kl_cycles": 11}, ["vae.kl_cycles"]),
        ({"data.path": "a"}, ["data.path='a'", "data.name=folder", "comic_faces"]),
        ({"data.split": "test"}, ["data.split='test'", "comic_faces"]),
        (FOLDER | {"data.feature": "image"}, ["data.feature='image'", "folder"]),
    ],
)
def test_inconsistent_fields_are_refused_by_name(fields, named):
    config = configuration.default_config()
    config.vae.steps = 20
    config.update_from_flattened_dict(fields)
    message = refusal(config)
    assert (message is None) == (named is None)
    assert all(part in message for part in named or ())


@given(
    st.dictionaries(
        st.sampled_from(sorted(configuration.FIELDS)),
        st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none()),
        max_size=4,
    )
)
def test_any_value_passes_or_is_refused_by_name_in_one_line(values):
    config = configuration.default_config()
    for name, value in values.items():
        override(config, name, value)
    message = refusal(config)
    assert message is None or any(name in message for name in values)
    assert message is None or "\n" not in message


def test_enumerated_values_are_those_implemented():
    def allowed(name):
        return set(configuration.FIELDS[name].rule.text.removeprefix("one of ").split(", "))

    assert allowed("model.norm") == allowed("model.discriminator_norm") == {"group", "none"}
    draws = [randomness.latents(jax.random.key(0), (9,), name) for name in allowed("gan.noise")]
    assert len({draw.tobytes() for draw in map(np.asarray, draws)}) == 3
