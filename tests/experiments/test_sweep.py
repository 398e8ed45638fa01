import json

import pytest

from configs import unbalanced
from vaegan_jax import config as configuration
from vaegan_jax.config import set_field
from vaegan_jax.errors import UserError
from vaegan_jax.experiments import sweep
from vaegan_jax.experiments.compare import identity, records
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
        ((), ("a", "b: gan.steps=900"), {"a": 5, "b": 5}),
        ((), ("a: seed=6", "b"), {"a": 6, "b": 5}),
        ((7, 8), (), {"seed_7": 7, "seed_8": 8}),
        ((4,), ("a",), {"a_seed_4": 4}),
    ],
)
def test_seeds_or_variants_alone(seeds, variants, names):
    config = configuration.default_config()
    assert not sweep.is_sweep(config)
    config.seed, config.seeds, config.variants = 5, seeds, variants
    assert sweep.is_sweep(config)
    members = sweep.members(config)
    assert {member.name: member.config.seed for member in members} == names
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
        (("a: seed=5",), "seed,"),
        (("a: gan.steps=800", "a: gan.steps=900"), "a_seed_3 and a_seed_3"),
        (("a: gan.steps=900", "b: gan.steps = 900"), "a_seed_3 and b_seed_3"),
        (("a/b",), "a/b"),
    ],
)
def test_invalid_variants_are_refused_before_any_run(variants, named, tmp_path):
    config = configuration.default_config()
    config.seeds, config.variants = (3,), ("fine", *variants)
    with pytest.raises(UserError, match=named):
        sweep.run_all(config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("gan.noise = 'uniform'", "uniform"),
        ("vae.kl_weight=2", 2.0),
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


def test_members_share_a_vae_with_the_bits_of_runs_alone(config, tmp_path, monkeypatch):
    config.data.image_size = 16
    config.evaluation.update(
        embeddings="pixels", samples=40, max_reference_images=80,
        max_likelihood_images=4, iwae_samples=2, curve_every=7, curve_samples=40,
    )  # fmt: skip
    trained, train = [], run.loop.train

    def counted(stage, images, config, folder, *rest):
        trained.append((folder.path.name, stage.name))
        train(stage, images, config, folder, *rest)

    monkeypatch.setattr(run.loop, "train", counted)
    config.variants = (
        "a", "b: gan.noise=uniform; transfer.match_posterior=False", "c: vae.learning_rate=1e-4"
    )  # fmt: skip
    sweep.run_all(config, tmp_path / "swept")
    assert trained == [("a", "vae"), ("a", "gan"), ("b", "gan"), ("c", "vae"), ("c", "gan")]

    b = sweep.members(config)[1].config
    run.train_and_evaluate(b, tmp_path / "alone")
    alone, shared = tmp_path / "alone", tmp_path / "swept" / "b"
    for name in ("config.json", "latent.json", "data.json"):
        assert (shared / name).read_bytes() == (alone / name).read_bytes()
    for picture in alone.glob("**/*.png"):
        assert (shared / picture.relative_to(alone)).read_bytes() == picture.read_bytes()
    found = identity.compare_bits(records.read(shared), records.read(alone))
    assert found.verdict == identity.IDENTICAL
    assert min(found.numbers[1], found.leaves[1]) > 50
    recorded = [json.loads((path / "run.json").read_text()) for path in (shared, alone)]
    assert {**recorded[0], "variant": ""} == recorded[1]


def test_members_are_trained_in_subfolders_and_a_run_that_is_not_finite_stops_no_others(
    swept, tmp_path, monkeypatch
):
    calls = []

    def train(config, path, stages, profile, variant, others):
        path.mkdir(parents=True)
        calls.append((path, config.seed, variant, stages))
        if path.name == "warm_seed_1":
            trouble = {"stage": "gan", "step": 4, "trouble": "not_finite"}
            (path / "metrics.jsonl").write_text(f"{json.dumps(trouble)}\n")
            raise UserError("Not finite.")
        if path.name == "size_seed_3":
            raise UserError("No space left.")

    monkeypatch.setattr(run, "train_and_evaluate", train)
    with pytest.raises(UserError, match="space"):
        sweep.run_all(swept, tmp_path / "all", ("vae",))
    expected = [
        (tmp_path / "all" / name, config.seed, variant, ("vae",))
        for name, config, variant in sweep.members(swept)
    ]
    assert calls == expected[:5]
    swept.variants = swept.variants[:2]
    with pytest.raises(UserError, match="warm_seed_1"):
        sweep.run_all(swept, tmp_path / "two")
    assert len(calls) == 5 + 4


def test_the_equal_cost_config_differs_in_the_start_and_the_steps_of_the_gan():
    warm, scratch = (
        configuration.flatten(member.config) for member in sweep.members(unbalanced.get_config())
    )
    differing = {name for name in warm if warm[name] != scratch[name]}
    assert differing == {"transfer.generator", "gan.steps"}
    # The order of magnitude; the exact ratio depends on the machine.
    extra = scratch["gan.steps"] - warm["gan.steps"]
    assert 0.5 < extra / warm["vae.steps"] < 2.0
