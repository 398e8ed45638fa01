"""Groups, means and paired differences against SciPy and closed forms."""

import dataclasses
import itertools
import math
import pathlib

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
    assert statistics.difference((a - b).tolist()).p == pytest.approx(expected)
    for values in ([], [1.0], [0.0, 0.0], [0.51 - 0.5, 0.62 - 0.61], [1.0, 2.0, None]):
        assert statistics.difference(values).p is None


@pytest.mark.parametrize(("n", "level", "power"), [
    (2, 0.05, 0.73), (3, 0.05, 0.77), (5, 0.05, 0.79), (10, 0.05, 0.80), (40, 0.05, 0.80),
    (3, 1 / 3000, 0.65), (10, 1 / 3000, 0.74),
])  # fmt: skip
def test_detectable_difference_has_the_documented_power(n, level, power):
    difference = statistics.detectable(1 / math.sqrt(n), n, level)  # in standard deviations
    critical = scipy.stats.t.ppf(1 - level / 2, n - 1)
    if level == 0.05:
        exact = scipy.stats.nct.sf(critical, n - 1, difference * math.sqrt(n))
        assert exact == pytest.approx(power, abs=0.01)
    samples = np.random.default_rng(n).normal(difference, 1.0, (n, 40_000))
    found = scipy.stats.ttest_1samp(samples, 0.0).pvalue <= level
    assert found.mean() == pytest.approx(power, abs=0.015)


def test_detectable_difference_in_closed_form():
    # With one degree of freedom the quantile of p is tan(pi (p - 1/2)).
    expected = 3.0 * (math.tan(math.pi * 0.475) + math.tan(math.pi * 0.3))
    assert statistics.detectable(3.0, 2, 0.05) == pytest.approx(expected)


def test_holm_by_hand():
    np.testing.assert_allclose(
        statistics.holm(np.array([[0.01, 0.04], [0.03, 0.005]])), [[0.03, 0.06], [0.06, 0.02]]
    )
    found = statistics.holm(np.array([0.5, math.nan, 0.02, 0.9]))
    np.testing.assert_allclose(found, [1.0, math.nan, 0.06, 1.0])
    assert statistics.holm(np.empty((0, 2))).shape == (0, 2)


def test_holm_rejects_three_of_the_thrombolysis_study():
    # Benjamini and Hochberg 1995, section 4.1: methods that control the familywise error rate
    # reject the three smallest.
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
         0.5719, 0.6528, 0.7590, 1.0]  # fmt: skip
    assert np.sum(statistics.holm(np.array(p)) <= 0.05) == 3


def test_holm_is_the_closure_of_bonferroni():
    p = np.random.default_rng(0).uniform(0, 0.3, 7)
    subsets = [s for n in range(1, 8) for s in itertools.combinations(range(7), n)]
    bonferroni = {s: min(1.0, len(s) * min(p[i] for i in s)) for s in subsets}
    closed = [max(value for s, value in bonferroni.items() if i in s) for i in range(7)]
    np.testing.assert_allclose(statistics.holm(p), closed)


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


def test_many_groups_have_different_letters(group):
    runs = [group({0: 1.0}, f"g{n}_", **{"vae.steps": n})[0] for n in range(28)]
    found = statistics.describe([[run] for run in runs])
    assert [of.label for of in found[:2]] == ["A", "B"]
    assert len({of.label for of in found}) == 28


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
        assert difference.p == pytest.approx(expected.pvalue)
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


def test_scratch_runs_have_no_numbers_of_a_vae(group, tmp_path):
    scratch = group({0: 30.0, 1: 31.0}, "scratch", **{"transfer.generator": "scratch"})
    for run in scratch:
        numbers = made.evaluation(30.0)["numbers"][1:]
        made.edit(pathlib.Path(run.name) / "evaluation/numbers.json", numbers=numbers)
    scratch = [records.read(pathlib.Path(run.name)) for run in scratch]
    row = rows(group(WARM), scratch)["vae_samples/test/pixels fd_n100"]
    assert [mean.of for mean in row.means] == [3, 0]
    assert row.differences == [Difference(0, 0, None, None)]


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
    assert first.adjusted_p == first.p == pytest.approx(scipy.stats.ttest_rel(LOWER, BASE).pvalue)
    assert confirming.adjusted_p == max(first.p, confirming.p)
    assert (other.adjusted_p, other.resolved) == (other.p, False)


def test_the_first_group_can_be_better(compared):
    assert compared((LOWER, LOWER, LOWER), (BASE, BASE, BASE))[1] == ["A"]


def test_uninformative_numbers_show_nothing(compared):
    table, found = compared((BASE,) * 3, (LOWER,) * 3, informative=False)
    assert found == [None]
    assert [row.uninformative for row in table] == [8, 0, 0]


def test_all_other_rows_of_all_differences_are_one_family(group):
    groups = [group(WARM), group(COLD, "b", **{"gan.old": "x"})]
    groups.append(group({0: 21.0, 1: 22.6, 2: 23.0}, "c", **{"gan.old": "y"}))
    table = statistics.table([{run.config["seed"]: run for run in of} for of in groups])
    assert [row.name for row in table if row.is_primary] == [MAIN]
    for is_primary in (True, False):
        tests = [
            each
            for row in table
            for each in row.differences
            if row.is_primary == is_primary and each.p is not None
        ]
        p = sorted(each.p for each in tests)
        assert len(p) == (2 if is_primary else 6)
        lowest = min(tests, key=lambda each: each.p)
        assert lowest.adjusted_p == pytest.approx(p[0] * len(p))
        assert lowest.resolved == (p[0] * len(p) <= 0.05)
        # All are tested at the level that the smallest one has to reach if it does not.
        if not lowest.resolved:
            error = lowest.half_width / scipy.stats.t.ppf(0.975, 2)
            expected = statistics.detectable(error, 3, 0.05 / len(p))
            assert lowest.detectable == pytest.approx(expected)


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
