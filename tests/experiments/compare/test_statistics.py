"""Groups, means and paired differences against SciPy and closed forms."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from tests.experiments.compare import made
from vaegan_jax.experiments.compare import records, statistics
from vaegan_jax.experiments.compare.statistics import Difference, Interval, interval

MAIN = "gan_samples/test/pixels fd_n100"
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
    assert interval([2.0, 2.0, 2.0]) == Interval(3, 3, 2.0, 0.0)
    assert interval([3.5]) == Interval(1, 1, 3.5, None)
    assert interval([]) == interval([None, None]) == Interval(0, 0, None, None)


def test_a_mean_without_all_values_is_not_given():
    assert interval([math.nan, 3.5, math.inf]) == Interval(1, 3, None, None)
    assert interval([None, 3.5, 4.5]) == Interval(2, 3, None, None)
    assert interval([math.nan]) == Interval(0, 1, None, None)


def test_p_values_equal_scipy_and_need_spread():
    a, b = np.random.default_rng(0).normal(size=(2, 5))
    expected = scipy.stats.ttest_rel(a, b).pvalue
    assert statistics.paired_p((a - b).tolist()) == pytest.approx(expected)
    for values in ([], [1.0], [0.0, 0.0], [0.51 - 0.5, 0.62 - 0.61], [1.0, 2.0, None]):
        assert math.isnan(statistics.paired_p(values))


def test_groups_differ_in_config_not_seed(group):
    cold = group(COLD, "cold", **{"transfer.generator": "scratch", "data.workers": 9})
    hinge = group({0: 1.0}, "hinge", **{"gan.old": "hinge"})
    groups, repeats = statistics.group([*cold, *hinge, *group(WARM, "warm")])
    assert repeats == []
    found = statistics.describe(groups)
    assert [(g.label, g.seeds) for g in found] == [
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


def test_differences_are_paired_by_seed(group):
    cold = group(dict(reversed(COLD.items())), "cold")
    found = rows(group(WARM, "warm"), cold)
    for name in (MAIN, "gan_samples/curve/fd_pixels"):
        means = [interval([*WARM.values()]), interval([*COLD.values()][::-1])]
        assert found[name].means == means
        (difference,) = found[name].differences
        expected = scipy.stats.ttest_rel([COLD[s] for s in range(3)], [WARM[s] for s in range(3)])
        low, high = expected.confidence_interval(0.95)
        assert (difference.n, difference.of) == (3, 3)
        assert difference.p == (pytest.approx(expected.pvalue) if name == MAIN else None)
        np.testing.assert_allclose(difference.mean - difference.half_width, low, rtol=1e-9)
        np.testing.assert_allclose(difference.mean + difference.half_width, high, rtol=1e-9)
    assert found["vae_samples/curve/fd_pixels"].means[0].mean == pytest.approx(21.1666666 + 3)
    (precision,) = found["gan_samples/test/pixels precision"].differences
    assert (precision.mean, precision.p) == (0.0, None)


def test_a_group_of_one_run_has_no_interval(group):
    row = rows(group({0: 5.0}, "one"), group(WARM))[MAIN]
    assert row.means[0] == Interval(1, 1, 5.0, None)
    assert row.differences == [Difference(1, 1, 15.0, None)]


def test_missing_and_non_finite_values_hide_the_mean(group, tmp_path):
    runs = group(WARM | {3: 1.0, 4: 1.0})
    made.edit_number(tmp_path / "a3", 1, value=None)
    (tmp_path / "a4" / "evaluation/numbers.json").unlink()
    runs[3:] = [records.read(tmp_path / f"a{seed}") for seed in (3, 4)]
    found = rows(runs)
    assert found[MAIN].means == [Interval(3, 5, None, None)]
    assert found["gan_samples/alone/pixels vendi"].means == [Interval(0, 5, None, None)]
    assert found["gan_samples/curve/fd_pixels"].means[0].mean == pytest.approx(65.5 / 5)


def test_groups_differ_in_evaluation_settings(group):
    other = group({3: 1.0}, "other", **{"evaluation.samples": 500})
    elsewhere = group({4: 23.0}, "elsewhere", **{"evaluation.weights": "/elsewhere"})
    groups, _ = statistics.group([*group(WARM), *other, *elsewhere])
    found = statistics.describe(groups)
    assert [of.seeds for of in found] == [[0, 1, 2, 4], [3]]
    assert [of.fields for of in found] == [{"evaluation.samples": n} for n in (100, 500)]


def test_groups_are_labelled_by_variant_if_all_have_one(group, tmp_path):
    groups = [group(WARM, "a"), group(COLD, "b", **{"gan.old": "x"})]

    def labels(*variants):
        named = [
            [dataclasses.replace(run, variant=variant) for run in runs]
            for runs, variant in zip(groups, variants, strict=True)
        ]
        return [of.label for of in statistics.describe(named)]

    assert labels("warm", "scratch") == ["warm", "scratch"]
    assert labels("warm", "") == labels("warm", "warm") == ["A", "B"]


def test_groups_have_costs_and_problems(group):
    warm = group(WARM, "warm", seconds=2.0)
    scratch = group({0: 1.0, 1: 1.0}, "scratch", **{"transfer.generator": "scratch"})
    scratch[1] = dataclasses.replace(scratch[1], problems=["collapsed", "ended early"])
    found = statistics.describe([warm, scratch])
    assert found[0].seconds == {"vae": 12.0, "gan": 12.0, "total": 24.0}
    assert found[1].seconds == {"gan": 6.0, "total": 6.0}
    assert [of.cost_ratio for of in found] == [1.0, 0.25]
    assert [of.problems for of in found] == [{}, {"collapsed": 1, "ended early": 1}]


@pytest.fixture
def compared(tmp_path):
    """Compares groups of runs given by values of two embeddings, one list per group and number."""

    def make(*groups, **changes):
        read = []
        for index, values in enumerate(groups):
            read.append({})
            for seed, (first, second, other) in enumerate(zip(*values, strict=True)):
                path = made.run(tmp_path / f"{index}_{seed}", seed=seed, **{"gan.old": index})
                numbers = [
                    made.number("gan_samples", "test", "fd_n100", first, **changes),
                    made.number("gan_samples", "test", "precision", other),
                    made.number("gan_samples", "test", "fd_n100", second, embedding="dino"),
                ]
                made.edit(path / "evaluation/numbers.json", numbers=numbers)
                (path / "curve.jsonl").unlink()
                read[-1][seed] = records.read(path)
        table = statistics.table(read)
        described = statistics.describe([[*of.values()] for of in read])
        return table, statistics.better(described, table)

    return make


BASE = [20.0, 21.0, 22.0, 20.5]
LOWER = [15.1, 15.9, 17.2, 15.5]
SAME = [20.1, 20.9, 22.2, 20.2]


@pytest.mark.parametrize(
    ("second", "better"), [(LOWER, "B"), (SAME, None), ([25.0, 26.0, 27.5, 26.0], None)]
)
def test_a_group_is_better_only_if_both_embeddings_agree(compared, second, better):
    table, found = compared((BASE, BASE, BASE), (LOWER, second, SAME))
    assert [row.name for row in table if row.is_primary] == [
        "gan_samples/test/pixels fd_n100",
        "gan_samples/test/dino fd_n100",
    ]
    assert found == [better]
    first, confirming, other = (row.differences[0] for row in table)
    assert first.p == pytest.approx(scipy.stats.ttest_rel(LOWER, BASE).pvalue)
    second_p = scipy.stats.ttest_rel(second, BASE).pvalue
    assert confirming.p == pytest.approx(max(first.p, second_p))
    assert other.p is None


def test_p_values_are_multiplied_by_the_number_of_differences(compared):
    higher = [x + y for x, y in zip(BASE, (5.0, 5.1, 5.3, 5.2), strict=True)]
    table, found = compared((BASE,) * 3, (SAME,) * 3, (higher,) * 3)
    p = [scipy.stats.ttest_rel(values, BASE).pvalue for values in (SAME, higher)]
    found_p = [each.p for each in table[0].differences]
    np.testing.assert_allclose(found_p, np.minimum(1, 2 * np.array(p)))
    assert found == [None, "A"]


def test_uninformative_numbers_show_nothing(compared):
    table, found = compared((BASE,) * 3, (LOWER,) * 3, informative=False)
    assert found == [None]
    assert [row.uninformative for row in table] == [8, 0, 0]


def test_the_primary_row_falls_back_to_the_curve_and_to_the_first_number(group):
    runs = group(WARM)
    without = [
        dataclasses.replace(run, records=[r for r in run.records if "fd_n100" not in r.name])
        for run in runs
    ]
    assert next(iter(rows(without))) == "gan_samples/curve/fd_pixels"
    without = [
        dataclasses.replace(run, records=[r for r in run.records if "precision" in r.name])
        for run in runs
    ]
    assert next(iter(rows(without))) == "gan_samples/test/pixels precision"
    old = [
        dataclasses.replace(
            run,
            records=[
                r._replace(name=r.name.replace("test/pixels fd_n100", "held_out/fd_pixels"))
                for r in run.records
            ],
        )
        for run in runs
    ]
    assert next(iter(rows(old))) == "gan_samples/held_out/fd_pixels"
