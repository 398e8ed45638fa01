import pytest

from vaegan_jax.training import monitor

# A line of metrics of a run in good health, for each stage.
VAE = {
    "reconstruction": 300.0,
    "kl": 20.0,
    "largest_kl": 3.0,
    "active_units": 4.0,
    "sharpness": 0.6,
}
GAN = {
    "discriminator_auc": 0.97, "generator_slope": 0.6, "generator_gradient_norm": 2.0,
    "margin": 2.0, "absolute_margin": 2.0, "real_logit": 1.0, "fake_logit": -1.0,
    "diversity": 0.9, "feature_diversity": 0.8, "near_duplicates": 0.0, "sharpness": 0.9,
}  # fmt: skip


def lines(stage, changes, count=5, first=None):
    usual = VAE if stage == "vae" else GAN
    made = [{"stage": stage, "step": 4 * (i + 1)} | usual | changes for i in range(count)]
    return [made[0] | (first or {}), *made[1:]] if made else []


def names(stage, made, config):
    return [trouble.name for trouble in monitor.detect(stage, made, config)]


@pytest.fixture
def watched(config):
    config.gan.discriminator_warmup_steps = 0
    config.gan.batch_size = 64
    return config


@pytest.mark.parametrize("stage", ["vae", "gan"])
def test_healthy_run_has_no_troubles(watched, stage):
    assert names(stage, lines(stage, {}), watched) == []


@pytest.mark.parametrize(
    ("stage", "changes", "near", "name"),
    [
        ("gan", {"discriminator_auc": 0.99995}, {"discriminator_auc": 0.9998},
         "discriminator_overpowering"),
        ("gan", {"generator_slope": 0.019}, {"generator_slope": 0.021}, "vanishing_gradient"),
        ("gan", {"margin": -0.5}, {"margin": -0.7}, "oscillation"),
        ("gan", {"margin": 0.1, "absolute_margin": 1.1}, {"margin": 0.1, "absolute_margin": 0.9},
         "oscillation"),
        ("gan", {"fake_logit": -101.0}, {"fake_logit": -99.0}, "divergence"),
        ("gan", {"diversity": 0.29}, {"diversity": 0.31}, "mode_collapse"),
        ("gan", {"feature_diversity": 0.29}, {"feature_diversity": 0.31}, "mode_collapse"),
        ("gan", {"near_duplicates": 0.11}, {"near_duplicates": 0.09}, "mode_collapse"),
        ("gan", {"sharpness": 0.24}, {"sharpness": 0.26}, "blur"),
        ("vae", {"sharpness": 0.24}, {"sharpness": 0.26}, "blur"),
        ("vae", {"kl": 0.9}, {"kl": 1.1}, "posterior_collapse"),
        ("vae", {"active_units": 0.2}, {"active_units": 0.3}, "ignored_latents"),
    ],
)  # fmt: skip
def test_thresholds(watched, stage, changes, near, name):
    assert names(stage, lines(stage, changes, 6), watched) == [name]
    assert names(stage, lines(stage, near, 6), watched) == []
    (trouble,) = monitor.detect(stage, lines(stage, changes, 6), watched)
    assert trouble.remedy in trouble.sentence
    for key in changes.keys() & trouble.evidence.keys():
        assert trouble.evidence[key] == pytest.approx(changes[key])


def test_a_generator_that_becomes_sharper_is_not_blurred(watched):
    blurred = lines("gan", {"sharpness": 0.1})
    assert names("gan", blurred, watched) == []  # it begins as a decoder
    assert names("gan", blurred + lines("gan", {"sharpness": 0.119}), watched) == ["blur"]
    assert names("gan", blurred + lines("gan", {"sharpness": 0.121}), watched) == []
    assert names("vae", lines("vae", {"sharpness": 0.1}), watched) == ["blur"]


def test_vae_divergence(watched):
    rising = [
        line | {"reconstruction": 300.0 + i} for i, line in enumerate(lines("vae", {}, count=6))
    ]
    assert names("vae", rising, watched) == ["divergence"]
    assert names("vae", rising[::-1], watched) == []


def test_only_the_last_window_counts(watched, monkeypatch):
    bad = {"diversity": 0.1}
    made = lines("gan", bad, 5) + lines("gan", {}, 5)
    assert names("gan", made, watched) == []
    assert names("gan", made[:5], watched) == ["mode_collapse"]
    # 4 of 5 lines are well: the mean is 0.74.
    assert names("gan", made[:9], watched) == []
    assert names("gan", made[:4], watched) == []  # not enough to judge by
    monkeypatch.setattr(monitor, "WINDOW", 2)
    assert names("gan", made[:2], watched) == ["mode_collapse"]


def test_discriminator_warmup_does_not_count(watched):
    watched.gan.discriminator_warmup_steps = 9  # of lines of four steps, the first three
    winning = lines("gan", {"discriminator_auc": 1.0}, 8)
    assert names("gan", winning[:7], watched) == []
    assert names("gan", winning, watched) == ["discriminator_overpowering"]


@pytest.mark.parametrize(("stage", "sick"), [("gan", {"diversity": 0.0}),
                                             ("vae", {"active_units": 0.0})])  # fmt: skip
def test_batches_of_one_image_are_not_judged_by_their_variation(watched, stage, sick):
    assert len(names(stage, lines(stage, sick), watched)) == 1
    watched[stage].batch_size = 1
    assert names(stage, lines(stage, sick), watched) == []


@pytest.mark.parametrize(("batch_size", "log_every"), [(4, 125), (16, 8), (64, 1)])
def test_auc_needs_ten_thousand_pairs(watched, batch_size, log_every):
    watched.gan.batch_size, watched.training.log_every = batch_size, log_every
    made = [
        line | {"step": line["step"] + 1_000} for line in lines("gan", {"discriminator_auc": 1.0})
    ]
    assert names("gan", made, watched) == ["discriminator_overpowering"]
    watched.gan.batch_size = batch_size - 2
    assert (names("gan", made, watched) == []) == (batch_size < 64)


def test_missing_scalars_raise_no_trouble(watched):
    assert names("gan", [{"stage": "gan", "step": 4 * i} for i in range(9)], watched) == []
