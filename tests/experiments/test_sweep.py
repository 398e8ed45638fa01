import json

import pytest

from configs import unbalanced
from vaegan_jax import config as configuration
from vaegan_jax.config import set_field
from vaegan_jax.errors import UserError
from vaegan_jax.experiments import sweep
from vaegan_jax.pipeline import run


@pytest.fixture
def swept():
    config = configuration.default_config()
    config.seeds = (3, 1)
    config.variants = (
        "warm",
        "scratch: transfer.generator=scratch; gan.steps = 900; gan.penalties=r1(every=3), r2",
        "size: data.image_size=(32, 48); vae.learning_rate=1e-4; data.flip=True",
    )
    return config


def test_members_are_all_pairs_of_variants_and_seeds(swept):
    members = sweep.members(swept)
    assert [member.name for member in members] == [
        "warm_seed_3", "warm_seed_1", "scratch_seed_3", "scratch_seed_1", "size_seed_3",
        "size_seed_1",
    ]  # fmt: skip
    alone = configuration.default_config()
    alone.seed = 1
    assert configuration.flatten(members[1].config) == configuration.flatten(alone)
    alone.transfer.generator, alone.gan.steps = "scratch", 900
    alone.gan.penalties = "r1(every=3), r2"
    assert configuration.flatten(members[3].config) == configuration.flatten(alone)
    last = members[5].config
    assert (last.data.image_size, last.vae.learning_rate, last.data.flip) == ((32, 48), 1e-4, True)
    assert swept.seeds == (3, 1)


@pytest.mark.parametrize(
    ("seeds", "variants", "names"),
    [
        ((), ("a", "b: gan.steps=900"), ["a", "b"]),
        ((7, 8), (), ["seed_7", "seed_8"]),
        ((4,), ("a",), ["a_seed_4"]),
    ],
)
def test_seeds_or_variants_alone(seeds, variants, names):
    config = configuration.default_config()
    assert not sweep.is_sweep(config)
    config.seed, config.seeds, config.variants = 5, seeds, variants
    assert sweep.is_sweep(config)
    members = sweep.members(config)
    assert [member.name for member in members] == names
    assert [member.config.seed for member in members] == list(seeds or [5] * len(variants))
    assert not any(sweep.is_sweep(member.config) for member in members)


@pytest.mark.parametrize(
    ("variants", "named"),
    [
        (("a: gan.stepz=3",), "gan.steps"),
        (("a: gan.steps",), "FIELD=VALUE"),
        (("a: gan.steps=many",), "gan.steps"),
        (("a: gan.steps=9e2",), "gan.steps"),
        (("a: gan.steps=-1",), "gan.steps"),
        (("a: seeds=(1,)",), "seeds"),
        (("a", "a: gan.steps=900"), "name a"),
        (("same",), "fine and same"),
        (("a: gan.steps=900", "b: gan.steps = 900"), "a and b"),
        (("a/b",), "a/b"),
    ],
)
def test_invalid_variants_are_refused_before_any_run(variants, named, tmp_path):
    config = configuration.default_config()
    config.variants = ("fine", *variants)
    with pytest.raises(UserError, match=named):
        sweep.run_all(config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("gan.noise=uniform", "uniform"),
        ("gan.noise = 'uniform'", "uniform"),
        ("vae.kl_weight=2", 2.0),
        ("data.image_size=(32, 48)", (32, 48)),
        ("data.flip=True", True),
        ("data.flip=true", True),
        ("data.path=12", "12"),
        ("data.path=a=b", "a=b"),
    ],
)
def test_set_field(override, value):
    config = configuration.default_config()
    section, name = set_field(config, override).split(".")
    assert config[section][name] == value
    assert type(config[section][name]) is type(value)


def test_seed_and_seeds_are_exclusive():
    config = configuration.default_config()
    config.variants = ("a: seed=5", "b")
    assert [member.config.seed for member in sweep.members(config)] == [5, 0]
    config.seeds = (3,)
    with pytest.raises(UserError, match="seeds"):
        sweep.members(config)


def test_run_all_trains_each_member_in_a_subfolder(swept, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(run, "train_and_evaluate", lambda *arguments: calls.append(arguments))
    sweep.run_all(swept, tmp_path, ("vae",))
    members = sweep.members(swept)
    assert [variant for *_, variant in calls] == ["warm"] * 2 + ["scratch"] * 2 + ["size"] * 2
    assert [path for _, path, *_ in calls] == [tmp_path / member.name for member in members]
    assert [config.seed for config, *_ in calls] == [member.config.seed for member in members]
    assert {stages for _, _, stages, *_ in calls} == {("vae",)}


def test_a_run_that_is_not_finite_does_not_stop_the_others(swept, tmp_path, monkeypatch):
    began = []

    def train(config, path, *_):
        path.mkdir(parents=True)
        began.append(path.name)
        if path.name == "warm_seed_1":
            trouble = {"stage": "gan", "step": 4, "trouble": "not_finite"}
            (path / "metrics.jsonl").write_text(f"{json.dumps(trouble)}\n")
            raise UserError("Not finite.")
        if path.name == "size_seed_3":
            raise UserError("No space left.")

    monkeypatch.setattr(run, "train_and_evaluate", train)
    with pytest.raises(UserError, match="space"):
        sweep.run_all(swept, tmp_path / "all")
    names = [member.name for member in sweep.members(swept)]
    assert began == names[:5]
    swept.variants = swept.variants[:2]
    with pytest.raises(UserError, match="warm_seed_1"):
        sweep.run_all(swept, tmp_path / "two")
    assert began[5:] == names[:4]


def test_the_equal_cost_config_differs_in_the_start_and_the_steps_of_the_gan():
    warm, scratch = (
        configuration.flatten(member.config) for member in sweep.members(unbalanced.get_config())
    )
    differing = {name for name in warm if warm[name] != scratch[name]}
    assert differing == {"transfer.generator", "gan.steps"}
    # The order of magnitude; the exact ratio depends on the machine.
    extra = scratch["gan.steps"] - warm["gan.steps"]
    assert 0.5 < extra / warm["vae.steps"] < 2.0
