import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.test_distances import frechet
from vaegan_jax.evaluation import number
from vaegan_jax.randomness import Purpose, Stage


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, None, jnp.inf, np.float32("nan")])
def test_non_finite_values_become_none(value):
    made = number.Number("gan_samples", "test", "x", "recall", value, value, value, 5, 7)
    assert (made.value, made.error, made.floor) == (None, None, None)


def test_number_survives_json():
    arrays = jnp.float32(0.5), np.float64(0.25), jnp.asarray(3)
    made = number.Number("vae", "", "", "active_units", *arrays, 5, 7)
    assert made == number.Number("vae", "", "", "active_units", 0.5, 0.25, 3.0, 5, 7)
    assert number.Number(**json.loads(json.dumps(dataclasses.asdict(made)))) == made


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mean_has_the_standard_error_of_scipy(dtype):
    values = np.random.default_rng(0).normal(3, 2, 50).astype(dtype)
    made = number.mean("gan_samples", "sharpness", values, 2.5)
    np.testing.assert_allclose(made.value, np.mean(values, dtype=np.float64), rtol=1e-12)
    error = scipy.stats.sem(values.astype(np.float64))
    np.testing.assert_allclose(made.error, error, rtol=1e-12)
    assert (made.subject, made.against, made.metric) == ("gan_samples", "", "sharpness")
    assert (made.floor, made.count, made.reference_count) == (2.5, 50, 0)


def test_jackknife_error_of_frechet_matches_resampling():
    rng = np.random.default_rng(1)
    real = rng.normal(0, 1, (500, 4)).astype(np.float32)

    def draw():
        return rng.normal(0.5, 1, (500, 4)).astype(np.float32)

    def statistic(fake):
        return float(frechet(real, fake))

    spread = np.std([statistic(draw()) for _ in range(60)])
    errors = [number.jackknife_error(k, 0, draw(), statistic) for k in range(10)]
    # Four deviations, of a spread of 60 values and of errors with 90 degrees of freedom.
    tolerance = 4 * np.sqrt(1 / 120 + 1 / 180)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors))), spread, rtol=tolerance)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (0, "0"),
        (0.5, "0.5"),
        (-12.3456, "-12.3"),
        (999.7, "1000"),
        (-1234.4, "-1234"),
        (0.0000123456, "1.23e-05"),
    ],
)
def test_format_value(value, expected):
    assert number.format_value(value) == expected


@given(size=st.integers(1, 60), count=st.integers(1, 70), seed=st.integers(0, 9))
def test_random_subset_is_ascending_and_distinct(size, count, seed):
    subset = number.random_subset(seed, 0, size, count)
    assert len(subset) == min(size, count)
    assert (np.diff(subset) > 0).all()
    assert 0 <= subset.min() <= subset.max() < size


def test_evaluation_keys_are_folded_from_seed_stage_index_and_purpose():
    key = jax.random.key(5, impl="threefry2x32")
    for data in (Stage.EVALUATION, 9, Purpose.DEALING):
        key = jax.random.fold_in(key, int(data))
    actual = number.evaluation_key(5, 9, Purpose.DEALING)
    np.testing.assert_array_equal(jax.random.key_data(actual), jax.random.key_data(key))
    arguments = list(itertools.product((0, 2**32 - 1), range(4), Purpose))
    keys = {tuple(jax.random.key_data(number.evaluation_key(*of)).tolist()) for of in arguments}
    assert len(keys) == len(arguments)


@pytest.mark.parametrize(
    ("metric", "value", "error", "expected"),
    [
        ("recall", 0.0, 0.0, False),
        ("recall", 1.0, 0.0, False),
        ("recall", 0.03, 0.04, False),
        ("recall", 0.97, 0.04, False),
        ("recall", 0.03, 0.01, True),
        ("precision", 0.01, 0.0, False),  # a single image of 100
        ("precision", 0.5, None, True),
        ("density", 1.2, 0.1, True),
        ("density", 0.05, 0.1, False),
        ("fd_n100", 0.01, 0.1, True),  # not a share
        ("recall", None, None, True),
    ],
)
def test_saturated_shares_are_not_informative(metric, value, error, expected):
    made = number.Number("gan_samples", "test", "x", metric, value, error, None, 100)
    assert made.is_informative == expected
