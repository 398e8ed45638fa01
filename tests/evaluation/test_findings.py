"""Each finding on both sides of its threshold."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan_jax.evaluation import findings
from vaegan_jax.evaluation.number import Number
from vaegan_jax.losses import symptoms

LATENT_SIZE = 100
EMBEDDINGS = ("first", "second")
SAMPLES = ("vae_samples", "gan_samples")
SETS = (*SAMPLES, "vae_reconstructions")
PROGRESS = "Progress"

# Value, error and floor of a run without failures, by (subject, embedding, metric).
HEALTHY = {("vae", "", "active_units"): (60, 1, None)}
for _name in (*SETS, "matched_samples", "gan_raw_samples"):
    HEALTHY[_name, "", "sharpness"] = (0.010, 0.0001, 0.011)
    HEALTHY[_name, "", "lattice"] = (2e-5, 1e-7, 2e-5)
    for _embedding in EMBEDDINGS:
        HEALTHY |= {
            (_name, _embedding, "fd_n100"): (10.0, 0.3, 2.0),
            (_name, _embedding, "precision"): (0.8, 0.01, 0.9),
            (_name, _embedding, "recall"): (0.7, 0.01, 0.8),
            (_name, _embedding, "vendi"): (31.0, 0.1, 32.0),
            (_name, _embedding, "authenticity"): (0.72, 0.01, 0.7),
            (_name, _embedding, "data_copying"): (0.5, 0.4, 0.0),
        }
for _embedding in EMBEDDINGS:
    for _name in ("gan_samples", "gan_raw_samples"):
        HEALTHY[_name, _embedding, "fd_n100"] = (5.0, 0.4, 2.0)


def find(changes):
    """The findings of the healthy run with some numbers replaced, or removed with None."""
    numbers = [
        Number(subject, "test", embedding, metric, *values, 100, 200)
        for (subject, embedding, metric), values in (HEALTHY | changes).items()
        if values is not None
    ]
    return findings.find(numbers, LATENT_SIZE)


def failures(changes):
    """The names of all findings but the first, the comparison of the stages."""
    first, *others = find(changes)
    assert first.name == PROGRESS
    return [finding.name for finding in others]


def in_both(subject, metric, *values):
    return {(subject, embedding, metric): values for embedding in EMBEDDINGS}


def test_missing_numbers_give_no_findings():
    assert [finding.name for finding in find({})] == [PROGRESS]
    assert findings.find([], LATENT_SIZE) == []
    assert find(dict.fromkeys(HEALTHY, (None, None, None))) == []


# The errors, 0.3 and 0.4, combine to 0.5, so the threshold is a difference of 1.5.
@pytest.mark.parametrize(
    ("gan", "name"),
    [
        ((8.4, 8.4), PROGRESS),
        ((8.4, 8.6), "Progress is not resolved"),
        ((8.6, 11.4), "Progress is not resolved"),
        ((11.6, 11.4), "Progress is not resolved"),
        ((11.6, 11.6), "The GAN is worse"),
        ((8.4, 11.6), "The embeddings disagree"),
    ],
)
@pytest.mark.parametrize("start", ["matched_samples", "vae_samples"])
def test_progress_is_measured_from_the_start_of_the_gan_in_both_embeddings(gan, name, start):
    changes = {
        (subject, embedding, "fd_n100"): (value, 0.4, 2.25)
        for subject in ("gan_samples", "gan_raw_samples")
        for embedding, value in zip(EMBEDDINGS, gan, strict=True)
    }
    other = {"matched_samples": "vae_samples", "vae_samples": "matched_samples"}[start]
    for embedding in EMBEDDINGS:
        # The VAE's samples do not count if there is a matched decoder.
        changes[other, embedding, "fd_n100"] = (1.0, 0.1, 2.25) if other == "vae_samples" else None
    (finding,) = find(changes)
    assert finding.name == name
    for value in (f"{gan[0]:.3g}", "10", "2.25"):
        assert value in finding.text


def test_an_inception_distance_is_compared_too():
    numbers = [
        Number(subject, "test", "inception", "fid_n50", value, 0.1, 1.0, 50)
        for subject, value in (("matched_samples", 30.0), ("gan_samples", 10.0))
    ]
    assert [finding.name for finding in findings.find(numbers, 8)] == [PROGRESS]


@pytest.mark.parametrize(("raw", "lags"), [((3.0, 3.0), True), ((3.0, 4.9), False)])
def test_a_lagging_average(raw, lags):
    changes = {
        ("gan_raw_samples", embedding, "fd_n100"): (value, 0.4, 2.0)
        for embedding, value in zip(EMBEDDINGS, raw, strict=True)
    }
    assert failures(changes) == (["The EMA lags"] if lags else [])


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
    numbers = [Number("vae", "", "", "active_units", active, 0, None, 9)]
    assert [f.name for f in findings.find(numbers, size)] == names


BLUR = symptoms.MIN_SHARPNESS_IN_EVALUATION * 0.010


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("sharpness", "error", "lattice", "found"),
    [
        (0.99 * BLUR, 1e-6, 1e-5, ["Blur"]),
        (0.99 * BLUR, 1e-3, 1e-5, []),
        (1.01 * BLUR, 1e-6, 1e-5, []),
        (0.0124, 1e-6, 1e-5, []),
        (0.0126, 1e-6, 1e-5, ["Noise"]),
        (0.0126, 1e-3, 1e-5, []),
        # A lattice is compared with real images of equal sharpness, or of a tenth.
        (0.010, 1e-6, 6.1e-5, ["Lattice"]),
        (0.010, 1e-6, 5.8e-5, []),
        (0.005, 1e-6, 3.1e-5, ["Blur", "Lattice"]),
        (0.005, 1e-6, 2.9e-5, ["Blur"]),
        (0.0001, 1e-6, 6.4e-6, ["Blur", "Lattice"]),
        (0.0001, 1e-6, 5.9e-6, ["Blur"]),
        (0.020, 1e-6, 6.1e-5, ["Noise", "Lattice"]),
        (0.020, 1e-6, 5.8e-5, ["Noise"]),
    ],
)
def test_blur_noise_and_lattice(name, sharpness, error, lattice, found):
    changes = {
        (name, "", "sharpness"): (sharpness, error, 0.010),
        (name, "", "lattice"): (lattice, 1e-7, 2e-5),
    }
    assert failures(changes) == found
    assert failures({(name, "", "sharpness"): (0.001, 1e-6, None)}) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_low_precision_in_both_embeddings(name):
    low = in_both(name, "precision", 0.0449, 0.00001, 0.45)
    assert failures(low) == ["Low precision"]
    for values in ((0.0451, 0.00001, 0.45), (0.03, 0.01, 0.45), (0.01, 0.001, None), None):
        assert failures(low | {(name, "second", "precision"): values}) == []
    # Recall is ignored for such images, but not a very low number of different ones.
    low |= in_both(name, "recall", 0.0, 0.0, 0.8) | in_both(name, "vendi", 20.0, 0.1, 32.0)
    assert failures(low) == ["Low precision"]
    low |= in_both(name, "vendi", 2.0, 0.1, 32.0)
    assert failures(low) == ["Low precision", "Mode collapse"]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(
    ("metric", "below", "above", "uncertain"),
    [
        ("recall", (0.36, 0.01, 0.8), (0.41, 0.01, 0.8), (0.36, 0.02, 0.8)),
        ("vendi", (28.0, 0.1, 32.0), (29.0, 0.1, 32.0), (28.0, 0.5, 32.0)),
    ],
)
def test_low_diversity(name, metric, below, above, uncertain):
    low = in_both(name, metric, *below)
    assert failures(low) == ["Low diversity"]
    for values in (above, uncertain, (below[0], 0.01, None), (None, None, 0.8), None):
        assert failures(low | {(name, "second", metric): values}) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_mode_collapse_by_recall_and_vendi(name):
    changes = in_both(name, "recall", 0.02, 0.01, 0.8) | in_both(name, "vendi", 25.0, 0.1, 32.0)
    assert failures(changes) == ["Mode collapse"]
    changes = in_both(name, "vendi", 5.0, 0.1, 32.0)
    assert failures(changes) == ["Mode collapse"]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_memorisation_in_any_embedding(name, embedding):
    copying, authenticity = (name, embedding, "data_copying"), (name, embedding, "authenticity")
    copies = {copying: (-4.0, 1.0, 0.0), authenticity: (0.6, 0.01, 0.7)}
    assert failures(copies) == ["Memorisation"]
    for values in ((-2.9, 1.0, 0.0), (4.0, 1.0, 0.0), (None, None, 0.0), None):
        assert failures(copies | {copying: values}) == []
    for values in ((0.68, 0.01, 0.7), (0.0, 0.01, None), (None, None, 0.7), None):
        assert failures(copies | {authenticity: values}) == []


_VALUE = st.none() | st.floats(0, 1) | st.sampled_from([0, 0.5, 1, 100, 1e6])
_CHANGES = st.dictionaries(
    st.sampled_from(sorted(HEALTHY)), st.none() | st.tuples(_VALUE, _VALUE, _VALUE)
)


@given(_CHANGES)
def test_no_text_contains_missing_values(changes):
    for finding in find(changes):
        assert not re.search(r"\b(nan|None|inf)\b", finding.text)
