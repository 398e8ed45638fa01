import pytest

from vaegan_jax import config as configuration
from vaegan_jax.errors import UserError
from vaegan_jax.experiments import sweep
from vaegan_jax.pipeline import run


@pytest.fixture
def swept():
    config = configuration.default_config()
    config.seeds = (3, 1)
    config.variants = (
        "warm",
        "scratch: transfer.generator=scratch; gan.steps = 900; gan.noise=uniform",
        "size: data.image_size=(32, 48); vae.learning_rate=1e-4; data.flip=True",
    )
    return config


def test_every_variant_comes_with_every_seed(swept):
    members = sweep.members(swept)
    assert [member.name for member in members] == [
        "warm_seed_3", "warm_seed_1", "scratch_seed_3", "scratch_seed_1", "size_seed_3",
        "size_seed_1",
    ]  # fmt: skip
    alone = configuration.default_config()
    alone.seed = 1
    assert configuration.flatten(members[1].config) == configuration.flatten(alone)
    alone.transfer.generator, alone.gan.steps, alone.gan.noise = "scratch", 900, "uniform"
    assert configuration.flatten(members[3].config) == configuration.flatten(alone)
    last = members[5].config
    assert (last.data.image_size, last.vae.learning_rate, last.data.flip) == ((32, 48), 1e-4, True)
    assert swept.seeds == (3, 1)  # the sweep's own config is as it was


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
    ("variants", "message"),
    [
        (("a: gan.stepz=3",), "no field gan.stepz: did you mean gan.steps"),
        (("a: gan.steps",), "The variant 'a' has 'gan.steps', which is no override"),
        (("a: gan.steps=many",), "sets gan.steps to 'many': it must be a whole number of at least"),
        (("a: gan.steps=0",), "gan.steps must be a whole number of at least 1, and is 0"),
        (("a: seeds=(1,)",), "no field seeds"),
        (("a", "a: gan.steps=900"), "seeds and variants name a twice"),
        (("same",), "fine and same"),
        (("a: gan.steps=9e2", "b: gan.steps=9e2"), "gan.steps"),
        (("a: gan.steps=900", "b: gan.steps = 900"), "a and b"),
        (("a: gan.steps=900; vae.steps=9; gan.steps=800",), "gan.steps"),
        (("a/b",), "which is to be a folder's"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(variants, message, tmp_path):
    config = configuration.default_config()
    config.variants = ("fine", *variants)
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace(")", r"\)")):
        sweep.run_all(config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_variant_has_a_seed_or_the_sweep_has_seeds():
    config = configuration.default_config()
    config.variants = ("a: seed=5", "b")
    assert [member.config.seed for member in sweep.members(config)] == [5, 0]
    config.seeds = (3,)
    with pytest.raises(UserError, match="'a' sets seed"):
        sweep.members(config)


def test_each_is_run_in_a_folder_of_its_own(swept, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(run, "train_and_evaluate", lambda *arguments: seen.append(arguments))
    sweep.run_all(swept, tmp_path, ("vae",))
    members = sweep.members(swept)
    assert [path for _, path, *_ in seen] == [tmp_path / member.name for member in members]
    assert [config.seed for config, *_ in seen] == [member.config.seed for member in members]
    assert {stages for _, _, stages, _ in seen} == {("vae",)}
    said = capsys.readouterr().out
    assert "Run 2 of 6: warm_seed_1" in said
    assert f"vaegan compare {tmp_path / 'warm_seed_3'} " in said
