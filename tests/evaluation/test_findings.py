"""Every trouble, at both sides of the numbers that name it."""

import json
import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax.evaluation import findings
from vaegan_jax.evaluation.number import number

DISTANCE = "fd_pixels"
LATENT_SIZE = 100
SETS = {
    "vae_samples": "VAE's samples",
    "gan_samples": "GAN's samples",
    "vae_reconstructions": "VAE's reconstructions",
}
SAMPLES = [name for name in SETS if name.endswith("samples")]

# A run without a trouble, whose GAN is better: value, error, floor.
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
    """What is found where some numbers are others than those of the healthy run, or are none."""
    numbers = [
        number(*place, *values, 100, 200)
        for place, values in (HEALTHY | changes).items()
        if values is not None
    ]
    found = findings.find(numbers, DISTANCE, LATENT_SIZE)
    for finding in found:
        assert finding.text.endswith(".")
        assert "\n" not in finding.name + finding.text
    return found


def names(changes):
    """The names of what is found beside how the two stages compare."""
    return [f.name for f in find(changes) if f.name != "Progress"]


def text_of(changes, name):
    """The sentence of a trouble that is the only one."""
    assert names(changes) == ([] if name == "Progress" else [name])
    return next(f.text for f in find(changes) if f.name == name)


def test_a_healthy_run_has_no_trouble():
    assert [f.name for f in find({})] == ["Progress"]


def test_nothing_is_said_of_nothing():
    assert findings.find([], DISTANCE, LATENT_SIZE) == []
    assert find(dict.fromkeys(HEALTHY)) == []
    assert find(dict.fromkeys(HEALTHY, (None, None, None))) == []


# Their errors, 0.3 and 0.4, make 0.5 together, of which three are 1.5.
@pytest.mark.parametrize(
    ("gan", "name", "how"),
    [
        (8.4, "Progress", "nearer to real images than the VAE's"),
        (8.6, "No change", "as far from real images as the VAE's"),
        (10.0, "No change", "as far from real images as the VAE's"),
        (11.4, "No change", "as far from real images as the VAE's"),
        (11.6, "No convergence", "further from real images than the VAE's"),
    ],
)
def test_the_stages_are_compared_by_their_errors(gan, name, how):
    (found,) = find({("gan_samples", "held_out", DISTANCE): (gan, 0.4, 2.25)})
    assert found.name == name
    assert how in found.text
    figures = f"{DISTANCE} to held-out images is {gan:.3g} after 10; 2.25 for as many real images."
    assert found.text.endswith(figures)


@pytest.mark.parametrize("error", [0.0, None])
def test_equal_distances_are_no_change_and_no_error_is_no_certainty(error):
    same = {
        (f"{name}_samples", "held_out", DISTANCE): (10.0, error, 2.0) for name in ("vae", "gan")
    }
    assert [found.name for found in find(same)] == ["No change"]
    nearly = same | {("gan_samples", "held_out", DISTANCE): (10.001, None, 2.0)}
    assert [found.name for found in find(nearly)] == ["No change"]


def test_the_stages_are_compared_without_a_floor_too():
    (found,) = find({("gan_samples", "held_out", DISTANCE): (5.0, 0.4, None)})
    assert found.text.endswith("is 5 after 10.")


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("values", [None, (None, 0.3, 2.0)])
def test_one_stage_is_not_compared(name, values):
    assert find({(name, "held_out", DISTANCE): values}) == []


def test_another_distance_compares_nothing():
    numbers = [number(*place, *values, 100) for place, values in HEALTHY.items()]
    assert findings.find(numbers, "fid_clean", LATENT_SIZE) == []


@pytest.mark.parametrize("active", [0, 2])
def test_posterior_collapse_is_named(active):
    text = text_of({("vae", "", "active_units"): (active, 0.5, None)}, "Posterior collapse")
    assert text.startswith(f"{active} of 100 latent dimensions")
    assert "vae.kl_weight" in text


@pytest.mark.parametrize("values", [(3, 0.5, None), (100, 0, None), (None, None, None), None])
def test_posterior_collapse_is_not_named(values):
    assert names({("vae", "", "active_units"): values}) == []


def test_in_a_small_latent_one_active_unit_is_no_collapse():
    def found(active):
        return findings.find([number("vae", "", "active_units", active, 0, None, 9)], DISTANCE, 8)

    assert found(1) == []
    assert [finding.name for finding in found(0)] == ["Posterior collapse"]


@pytest.mark.parametrize("name", SETS)
def test_blur_is_named_below_three_fifths(name):
    text = text_of({(name, "", "sharpness"): (0.00598, 0.001, 0.01)}, "Blur")
    assert SETS[name] in text
    assert "60%" in text
    assert "45%" in text_of({(name, "", "sharpness"): (0.0045, 0.001, 0.01)}, "Blur")
    for values in ((0.00602, 0.001, 0.01), (0.02, 0.001, 0.01), (0.001, 0.1, None), None):
        assert names({(name, "", "sharpness"): values}) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_low_precision_is_named_below_a_tenth(name):
    precision = (name, "held_out", "precision")
    text = text_of({precision: (0.0449, 0.001, 0.45)}, "Low precision")
    assert text.startswith(f"4.5% of the {SETS[name]}")
    assert "45%" in text
    for values in ((0.0451, 0.001, 0.45), (0.01, 0.001, None), (None, None, 0.9), None):
        assert names({precision: values}) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_little_variety_is_named_for_a_recall_below_half(name):
    recall = (name, "held_out", "recall")
    text = text_of({recall: (0.39, 0.01, 0.8)}, "Little variety")
    assert SETS[name] in text
    assert "recall is 0.39, and 0.80 for real images" in text
    for values in ((0.41, 0.01, 0.8), (0.1, 0.01, None), (None, None, 0.8), None):
        assert names({recall: values}) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_unlike_all_real_images_says_nothing_by_its_recall(name):
    changes = {
        (name, "held_out", "recall"): (0.0, 0.0, 0.8),
        (name, "held_out", "precision"): (0.01, 0.001, 0.9),
    }
    assert names(changes) == ["Low precision"]
    changes[name, "held_out", "precision"] = None
    assert names(changes) == []
    changes[name, "held_out", "precision"] = (0.1, 0.001, 0.9)
    assert names(changes) == ["Little variety"]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(("floor", "threshold"), [(0.01, 0.1), (0.02, 0.1), (0.04, 0.2)])
def test_little_variety_is_named_for_many_duplicates(name, floor, threshold):
    duplicates, vendi = (name, "", "duplicates"), (name, "", "vendi")
    value = threshold + 0.01
    many = {duplicates: (value, 0.01, floor), vendi: (28.7, 1.0, 32.0)}
    text = text_of(many, "Little variety")
    assert f"{value:.0%} of them nearly equal another, and {floor:.0%} of real images" in text
    assert "recall" not in text
    assert names({duplicates: (threshold - 0.01, 0.01, floor)}) == []
    # As many different images as there are real ones make up for it.
    assert names(many | {vendi: (28.7, 1.0, 32.0)}) == ["Little variety"]
    for values in ((28.9, 1.0, 32.0), (1.0, 1.0, None), (None, None, 32.0), None):
        assert names(many | {vendi: values}) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_mode_collapse_is_named_where_both_say_so(name):
    changes = {
        (name, "", "duplicates"): (0.93, 0.01, 0.01),
        (name, "", "vendi"): (1.5, 1.0, 32.0),
        (name, "held_out", "recall"): (0.02, 0.01, 0.8),
    }
    text = text_of(changes, "Mode collapse")
    assert SETS[name] in text
    assert "recall is 0.02, and 0.80 for real images" in text
    assert "93% of them nearly equal another, and 1% of real images" in text


# Three errors above a half, or 0.6 where these are less.
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(("error", "threshold"), [(0.0, 0.6), (0.02, 0.6), (0.05, 0.65)])
def test_memorisation_is_named_beyond_its_error(name, error, threshold):
    nearer, authentic = (name, "", "nearer_to_training"), (name, "train", "authenticity")
    few = {authentic: (0.3, 0.01, 0.7)}
    value = threshold + 0.01
    text = text_of(few | {nearer: (value, error, 0.5)}, "Memorisation")
    assert text.startswith(f"{value:.0%} of the {SETS[name]}")
    assert "30%" in text
    assert "70%" in text
    assert names(few | {nearer: (threshold - 0.01, error, 0.5)}) == []
    assert names(few | {nearer: None}) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_no_copy_is_not_memorised(name):
    nearer, authentic = (name, "", "nearer_to_training"), (name, "train", "authenticity")
    near = {nearer: (1.0, 0.0, 0.5)}
    assert names(near | {authentic: (0.69, 0.01, 0.7)}) == ["Memorisation"]
    for values in ((0.71, 0.01, 0.7), (0.7, 0.01, 0.7), (0.0, 0.01, None), (None, None, 0.7), None):
        assert names(near | {authentic: values}) == []


def test_reconstructions_are_only_judged_by_their_detail():
    changes = {
        ("vae_reconstructions", "held_out", "precision"): (0.0, 0.0, 0.9),
        ("vae_reconstructions", "held_out", "recall"): (0.0, 0.0, 0.8),
        ("vae_reconstructions", "train", "authenticity"): (0.0, 0.0, 0.7),
        ("vae_reconstructions", "", "duplicates"): (1.0, 0.0, 0.01),
        ("vae_reconstructions", "", "vendi"): (1.0, 0.0, 32.0),
        ("vae_reconstructions", "", "nearer_to_training"): (1.0, 0.0, 0.5),
    }
    assert names(changes) == []


def test_every_trouble_is_told_of_every_set_that_has_it():
    changes = {(name, "", "sharpness"): (0.001, 0.0001, 0.011) for name in SETS}
    found = [f for f in find(changes) if f.name == "Blur"]
    assert sorted(re.search("The (.*) have", f.text)[1] for f in found) == sorted(SETS.values())


_VALUE = st.none() | st.floats(0, 1) | st.sampled_from([0, 0.5, 1, 100, 1e6])
_CHANGES = st.dictionaries(
    st.sampled_from(sorted(HEALTHY)), st.none() | st.tuples(_VALUE, _VALUE, _VALUE)
)


@given(_CHANGES)
def test_whatever_is_missing_no_sentence_says_what_is_not_there(changes):
    for finding in find(changes):
        assert not re.search(r"\b(nan|None|inf)\b", finding.text)


def test_the_numbers_of_an_evaluation_in_json_do_as_well(tmp_path):
    path = pathlib.Path(tmp_path / "numbers.json")
    numbers = [number(*place, *values, 100) for place, values in HEALTHY.items()]
    path.write_text(json.dumps([vars(made) for made in numbers], allow_nan=False))
    again = [type(numbers[0])(**read) for read in json.loads(path.read_text())]
    found = findings.find(again, DISTANCE, LATENT_SIZE)
    assert found == findings.find(numbers, DISTANCE, LATENT_SIZE) != []
