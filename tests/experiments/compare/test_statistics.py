"""Groups, means and paired differences against SciPy and closed forms."""

import math

import numpy as np
import pytest
import scipy.stats

from tests.experiments.compare import made
from vaegan_jax.experiments.compare import records, statistics
from vaegan_jax.experiments.compare.statistics import Interval, interval

MAIN = "gan_samples/held_out/fd_pixels"
WARM = {0: 20.0, 1: 22.5, 2: 21.0}
COLD = {0: 30.0, 1: 31.0, 2: 32.5, 5: 90.0}


@pytest.fixture
def group(tmp_path):
    """Writes and reads one run per seed."""

    def make(distances, name="a", **config):
        paths = {seed: tmp_path / f"{name}{seed}" for seed in distances}
        return [
            records.read(made.run(paths[seed], seed=seed, distance=distance, **config))
            for seed, distance in distances.items()
        ]

    return make


def rows(*groups):
    table = statistics.table([{run.config["seed"]: run for run in runs} for runs in groups])
    return {row.name: row for row in table}


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_intervals_equal_scipy(n):
    values = np.random.default_rng(n).normal(200, 7, n)
    found = interval(values.tolist())
    low, high = scipy.stats.t.interval(0.95, n - 1, np.mean(values), scipy.stats.sem(values))
    assert found.n == n
    np.testing.assert_allclose(found.mean - found.half_width, low, rtol=1e-12)
    np.testing.assert_allclose(found.mean + found.half_width, high, rtol=1e-12)


def test_intervals_in_closed_form():
    # With one degree of freedom the quantile is tan(0.475 pi).
    assert interval([1.0, 4.0]).half_width == pytest.approx(1.5 * math.tan(0.475 * math.pi))
    assert interval([2.0, 2.0, 2.0]) == Interval(3, 2.0, 0.0)
    assert interval([3.5]) == Interval(1, 3.5, None)
    assert interval([]) == Interval(0, None, None)
    assert interval([math.nan, 3.5, math.inf]) == Interval(1, 3.5, None)


def test_groups_differ_in_config_not_seed(group):
    cold = group(COLD, "cold", **{"transfer.generator": "scratch", "data.workers": 9})
    hinge = group({0: 1.0}, "hinge", **{"gan.old": "hinge"})
    groups, repeats = statistics.group([*cold, *hinge, *group(WARM, "warm")])
    assert repeats == []
    found = statistics.describe(groups)
    assert [(g.letter, g.seeds) for g in found] == [
        ("A", [0, 1, 2, 5]),
        ("B", [0]),
        ("C", [0, 1, 2]),
    ]
    assert found[0].fields == {"gan.old": None, "transfer.generator": "scratch"}
    assert found[2].runs[1].endswith("warm1")


@pytest.mark.parametrize(
    ("change", "field", "values"),
    [
        ({"digest": "e" * 64}, "images", ["d" * 12, "e" * 12]),
        ({"train": 950}, "training images", [900, 950]),
    ],
)
def test_groups_differ_in_images(group, tmp_path, change, field, values):
    runs = group(WARM)
    made.edit(tmp_path / "a0" / "data.json", **change)
    groups, _ = statistics.group([*runs[1:], records.read(tmp_path / "a0")])
    fields = [of.fields for of in statistics.describe(groups)]
    assert fields == [{field: value} for value in values]


def test_a_repeated_seed_is_omitted(group):
    (again,) = group({0: 20.0}, "again")
    groups, repeats = statistics.group([*group(WARM), again])
    assert [len(runs) for runs in groups] == [3]
    assert [(first.config["seed"], second) for first, second in repeats] == [(0, again)]


def test_many_groups_have_different_letters(group):
    runs = [group({0: 1.0}, f"g{n}_", **{"vae.steps": n})[0] for n in range(28)]
    found = statistics.describe([[run] for run in runs])
    assert [of.letter for of in found[:2]] == ["A", "B"]
    assert len({of.letter for of in found}) == 28


def test_differences_are_paired_by_seed(group):
    cold = group(dict(reversed(COLD.items())), "cold")
    found = rows(group(WARM, "warm"), cold)
    for name in (MAIN, "gan_samples/curve/fd_pixels"):
        assert found[name].means == [interval([*WARM.values()]), interval([*COLD.values()][::-1])]
        (difference,) = found[name].differences
        expected = scipy.stats.ttest_rel([COLD[s] for s in range(3)], [WARM[s] for s in range(3)])
        low, high = expected.confidence_interval(0.95)
        assert difference.n == 3
        np.testing.assert_allclose(difference.mean - difference.half_width, low, rtol=1e-9)
        np.testing.assert_allclose(difference.mean + difference.half_width, high, rtol=1e-9)
    assert found["vae_samples/curve/fd_pixels"].means[0].mean == pytest.approx(21.1666666 + 3)
    assert found["gan_samples/held_out/precision"].differences == [Interval(3, 0.0, 0.0)]


def test_a_group_of_one_run_has_no_interval(group):
    row = rows(group({0: 5.0}, "one"), group(WARM))[MAIN]
    assert (row.means[0], row.differences) == (Interval(1, 5.0, None), [Interval(1, 15.0, None)])


def test_missing_and_non_finite_values_are_ignored(group, tmp_path):
    runs = group(WARM | {3: 1.0, 4: 1.0})
    made.edit_number(tmp_path / "a3", 1, value=None)
    (tmp_path / "a4" / "evaluation/numbers.json").unlink()
    runs[3:] = [records.read(tmp_path / f"a{seed}") for seed in (3, 4)]
    found = rows(runs)
    assert found[MAIN].means == [interval([*WARM.values()])]
    assert found["gan_samples/alone/vendi"].means == [Interval(0, None, None)]


def test_groups_differ_in_evaluation_settings(group):
    other = group({3: 1.0}, "other", **{"evaluation.samples": 500})
    elsewhere = group({4: 23.0}, "elsewhere", **{"evaluation.weights": "/elsewhere"})
    groups, _ = statistics.group([*group(WARM), *other, *elsewhere])
    found = statistics.describe(groups)
    assert [of.seeds for of in found] == [[0, 1, 2, 4], [3]]
    assert [of.fields for of in found] == [{"evaluation.samples": n} for n in (100, 500)]
