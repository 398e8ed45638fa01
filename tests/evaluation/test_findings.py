"""Each finding on both sides of its threshold."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax.evaluation import findings
from vaegan_jax.evaluation.number import number
from vaegan_jax.losses import symptoms

DISTANCE = "fd_pixels"
LATENT_SIZE = 100
SETS = ("vae_samples", "gan_samples", "vae_reconstructions")
SAMPLES = SETS[:2]

# Value, error and floor of a run without failures.
HEALTHY = {("vae", "", "active_units"): (60, 1, None)}
for _name in SETS:
    HEALTHY |= {
        (_name, "held_out", DISTANCE): (10.0, 0.3, 2.0),
        (_name, "held_out", "precision"): (0.8, 0.01, 0.9),
        (_name, "held_out", "recall"): (0.7, 0.01, 0.8),
        (_name, "train", "authenticity"): (0.75, 0.01, 0.7),
        (_name, "", "sharpness"): (0.010, 0.001, 0.011),
        (_name, "", "duplicates"): (0.01, 0.001, 0.01),
        (_name, "", "vendi"): (30.0, 1.0, 32.0),
        (_name, "", "nearer_to_training"): (0.52, 0.02, 0.5),
    }
HEALTHY["gan_samples", "held_out", DISTANCE] = (5.0, 0.4, 2.0)


def find(changes):
    """The findings of the healthy run with some numbers replaced, or removed with None."""
    numbers = [
        number(*place, *values, 100, 200)
        for place, values in (HEALTHY | changes).items()
        if values is not None
    ]
    return findings.find(numbers, DISTANCE, LATENT_SIZE)


def failures(changes):
    return [f.name for f in find(changes) if not f.name.startswith("The GAN")]


def text_of(changes, name):
    """The text of a failure that is the only one."""
    assert failures(changes) == [name]
    return next(f.text for f in find(changes) if f.name == name)


def test_missing_numbers_give_no_findings():
    assert [f.name for f in find({})] == ["The GAN is better"]
    assert findings.find([], DISTANCE, LATENT_SIZE) == []
    assert find(dict.fromkeys(HEALTHY, (None, None, None))) == []


# The errors, 0.3 and 0.4, combine to 0.5, so the threshold is a difference of 1.5.
@pytest.mark.parametrize(
    ("gan", "name"),
    [
        (8.4, "The GAN is better"),
        (8.6, "No significant change"),
        (11.4, "No significant change"),
        (11.6, "The GAN is worse"),
    ],
)
def test_stages_are_compared_relative_to_their_errors(gan, name):
    (finding,) = find({("gan_samples", "held_out", DISTANCE): (gan, 0.4, 2.25)})
    assert finding.name == name
    for value in (DISTANCE, f"{gan:.3g}", "10", "2.25"):
        assert value in finding.text


@pytest.mark.parametrize(
    ("active", "size", "names"),
    [
        (2, 100, ["Posterior collapse"]),
        (3, 100, []),
        (None, 100, []),
        (0, 8, ["Posterior collapse"]),
        (1, 8, []),
    ],
)
def test_posterior_collapse(active, size, names):
    numbers = [number("vae", "", "active_units", active, 0, None, 9)]
    assert [f.name for f in findings.find(numbers, DISTANCE, size)] == names


@pytest.mark.parametrize("name", SETS)
def test_blur(name):
    limit = symptoms.MIN_SHARPNESS_IN_EVALUATION * 0.01
    sharpness = (name, "", "sharpness")
    assert "45%" in text_of({sharpness: (0.0045, 0.001, 0.01)}, "Blur")
    text_of({sharpness: (0.99 * limit, 0.001, 0.01)}, "Blur")
    for values in ((1.01 * limit, 0.001, 0.01), (0.001, 0.1, None), None):
        assert failures({sharpness: values}) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_low_precision(name):
    precision, recall = (name, "held_out", "precision"), (name, "held_out", "recall")
    text = text_of({precision: (0.0449, 0.001, 0.45)}, "Low precision")
    assert "4.5%" in text
    assert "45%" in text
    for values in ((0.0451, 0.001, 0.45), (0.01, 0.001, None), (None, None, 0.9), None):
        assert failures({precision: values}) == []
    # Recall is ignored for such images.
    text_of({precision: (0.01, 0.001, 0.9), recall: (0.0, 0.0, 0.8)}, "Low precision")


@pytest.mark.parametrize("name", SAMPLES)
def test_low_diversity_by_recall(name):
    recall = (name, "held_out", "recall")
    text = text_of({recall: (0.39, 0.01, 0.8)}, "Low diversity")
    assert "0.39" in text
    assert "0.80" in text
    for values in ((0.41, 0.01, 0.8), (0.1, 0.01, None), (None, None, 0.8), None):
        assert failures({recall: values}) == []


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(("floor", "threshold"), [(0.01, 0.1), (0.02, 0.1), (0.04, 0.2)])
def test_low_diversity_by_duplicates(name, floor, threshold):
    duplicates, vendi = (name, "", "duplicates"), (name, "", "vendi")
    many = {duplicates: (threshold + 0.01, 0.01, floor), vendi: (28.7, 1.0, 32.0)}
    assert f"{threshold + 0.01:.0%}" in text_of(many, "Low diversity")
    assert failures(many | {duplicates: (threshold - 0.01, 0.01, floor)}) == []
    for values in ((28.9, 1.0, 32.0), (1.0, 1.0, None), (None, None, 32.0), None):
        assert failures(many | {vendi: values}) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_mode_collapse_by_recall_and_duplicates(name):
    changes = {
        (name, "", "duplicates"): (0.93, 0.01, 0.01),
        (name, "", "vendi"): (1.5, 1.0, 32.0),
        (name, "held_out", "recall"): (0.02, 0.01, 0.8),
    }
    text = text_of(changes, "Mode collapse")
    for value in ("0.02", "0.80", "93%"):
        assert value in text


# The threshold is three errors above 0.5, and at least 0.6.
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(("error", "threshold"), [(0.0, 0.6), (0.02, 0.6), (0.05, 0.65)])
def test_memorisation(name, error, threshold):
    nearer, authenticity = (name, "", "nearer_to_training"), (name, "train", "authenticity")
    copies = {nearer: (threshold + 0.01, error, 0.5), authenticity: (0.69, 0.01, 0.7)}
    text = text_of(copies, "Memorisation")
    for value in (f"{threshold + 0.01:.0%}", "69%", "70%"):
        assert value in text
    for values in ((threshold - 0.01, error, 0.5), None):
        assert failures(copies | {nearer: values}) == []
    for values in ((0.7, 0.01, 0.7), (0.0, 0.01, None), (None, None, 0.7), None):
        assert failures(copies | {authenticity: values}) == []


def test_reconstructions_are_checked_for_blur_only():
    changes = {
        ("vae_reconstructions", "held_out", "precision"): (0.0, 0.0, 0.9),
        ("vae_reconstructions", "held_out", "recall"): (0.0, 0.0, 0.8),
        ("vae_reconstructions", "train", "authenticity"): (0.0, 0.0, 0.7),
        ("vae_reconstructions", "", "duplicates"): (1.0, 0.0, 0.01),
        ("vae_reconstructions", "", "vendi"): (1.0, 0.0, 32.0),
        ("vae_reconstructions", "", "nearer_to_training"): (1.0, 0.0, 0.5),
    }
    assert failures(changes) == []


_VALUE = st.none() | st.floats(0, 1) | st.sampled_from([0, 0.5, 1, 100, 1e6])
_CHANGES = st.dictionaries(
    st.sampled_from(sorted(HEALTHY)), st.none() | st.tuples(_VALUE, _VALUE, _VALUE)
)


@given(_CHANGES)
def test_no_text_contains_missing_values(changes):
    for finding in find(changes):
        assert not re.search(r"\b(nan|None|inf)\b", finding.text)
