import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vaegan_jax.evaluation import number
from vaegan_jax.randomness import Purpose, Stage

KEY = jax.random.key(0)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, None, jnp.inf, np.float32("nan")])
def test_what_is_not_finite_is_none(value):
    made = number.number("gan_samples", "train", "recall", value, value, value, 5, 7)
    assert (made.value, made.error, made.floor) == (None, None, None)
    made = number.number("gan_samples", "train", "recall", 1, jnp.asarray(value or 0.0), 2, 5)
    assert made.error == (0 if value is None else None)


def test_a_number_is_made_of_python_numbers():
    arrays = jnp.float32(0.5), np.float64(0.25), jnp.asarray(3)
    made = number.number("vae", "", "active_units", *arrays, 5, 7)
    assert made == number.Number("vae", "", "active_units", 0.5, 0.25, 3.0, 5, 7)
    assert {type(x) for x in (made.value, made.error, made.floor)} == {float}
    assert number.Number(**json.loads(json.dumps(dataclasses.asdict(made)))) == made


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mean_has_the_standard_error_of_scipy(dtype):
    values = np.random.default_rng(0).normal(3, 2, 50).astype(dtype)
    made = number.mean("gan_samples", "sharpness", values, 2.5)
    np.testing.assert_allclose(made.value, np.mean(values, dtype=np.float64), rtol=1e-12)
    expected = scipy.stats.sem(values.astype(np.float64))
    np.testing.assert_allclose(made.error, expected, rtol=1e-12)
    assert (made.subject, made.against, made.metric) == ("gan_samples", "", "sharpness")
    assert (made.floor, made.count, made.reference_count) == (2.5, 50, 0)


def test_float32_is_summed_in_float64():
    values = np.full(100_001, 0.1, np.float32)
    np.testing.assert_allclose(number.mean("", "", values).value, float(values[0]), rtol=1e-12)


def test_a_mean_of_what_is_not_finite_is_none():
    with np.errstate(invalid="ignore"):  # infinity less infinity
        made = number.mean("vae_reconstructions", "psnr", np.array([1.0, np.inf]))
    assert (made.value, made.error, made.floor) == (None, None, None)


@pytest.mark.parametrize(("size", "count"), [(1, 1), (9, 1), (9, 8), (500, 30)])
def test_as_many_are_chosen_as_are_wanted_none_twice_and_rising(size, count):
    chosen = number.choose(KEY, size, count)
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    assert chosen.min() >= 0
    assert chosen.max() < size


@pytest.mark.parametrize("count", [6, 7, 10_000])
def test_all_are_chosen_where_there_are_no_more(count):
    np.testing.assert_array_equal(number.choose(KEY, 6, count), np.arange(6))


def test_the_choice_follows_the_key_and_misses_none():
    choices = [number.choose(jax.random.key(k), 20, 5) for k in range(40)]
    np.testing.assert_array_equal(choices[0], number.choose(jax.random.key(0), 20, 5))
    assert len({tuple(choice) for choice in choices}) > 35
    # Each is missed by all 40 with probability 0.75^40, 1e-5.
    assert set(np.concatenate(choices)) == set(range(20))


def test_distinct_arguments_have_distinct_keys():
    arguments = list(itertools.product((0, 1, 2**32 - 1), range(13), Purpose))
    keys = {tuple(jax.random.key_data(number.draw_key(*of)).tolist()) for of in arguments}
    assert len(keys) == len(arguments)


def test_a_key_is_folded_from_seed_stage_index_and_purpose():
    key = jax.random.key(5, impl="threefry2x32")
    for folded in (Stage.EVALUATION, 9, Purpose.DEALING):
        key = jax.random.fold_in(key, int(folded))
    ours = number.draw_key(5, 9, Purpose.DEALING)
    np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(key))
