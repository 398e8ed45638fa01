"""Many runs: groups, means, tests and ranking against SciPy, on runs made by hand."""

import dataclasses
import pathlib

import numpy as np
import pytest
import scipy.stats

from tests.comparing import made
from vaegan_jax.comparing import many, tables
from vaegan_jax.comparing.many import Quantity
from vaegan_jax.comparing.runs import Run
from vaegan_jax.errors import UserError

MAIN = Quantity("evaluation", "gan_samples", "held_out", "fd_pixels")
PRECISION = Quantity("evaluation", "gan_samples", "held_out", "precision")
WARM = {0: 20.0, 1: 22.5, 2: 21.0}
COLD = {0: 30.0, 1: 31.0, 2: 32.5, 5: 90.0}
NEAR = {0: 20.5, 1: 21.5, 2: 21.5}


def run(name, seed, distance, seconds=1.0, **config):
    curve = [
        made.curve_line("vae", 3, 3 * seconds, distance + 5),
        made.curve_line("vae", 6, 6 * seconds, distance + 3),
        made.curve_line("gan", 3, 3 * seconds, distance + 1),
        made.curve_line("gan", 6, 6 * seconds, distance),
    ]
    return Run(
        path=pathlib.Path(f"{name}{seed}"),
        config={"seed": seed, "vae.steps": 6, "gan.steps": 6, "evaluation.samples": 100} | config,
        data={"digest": "d" * 64},
        metrics=made.metrics(),
        curve=curve,
        evaluation=made.evaluation(distance),
    )


def group(name, distances, **config):
    return [run(name, seed, distance, 1.0 + seed, **config) for seed, distance in distances.items()]


def three_groups():
    cold = group("cold", COLD, **{"transfer.generator": "scratch"})
    near = group("near", NEAR, **{"transfer.generator": "near", "gan.old": "hinge"})
    warm = group("warm", WARM, **{"transfer.generator": "vae"})
    return many.compare([*cold, *near, *warm])


def summary(found, quantity, letter):
    return next(s for s in found.summaries if (s.quantity, s.group) == (quantity, letter))


def contrast(found, quantity, a, b):
    return next(c for c in found.contrasts if (c.quantity, c.a, c.b) == (quantity, a, b))


def test_runs_are_grouped_by_their_config_without_the_seed():
    found = three_groups()
    assert [(g.letter, g.seeds) for g in found.groups] == [
        ("A", [0, 1, 2, 5]),
        ("B", [0, 1, 2]),
        ("C", [0, 1, 2]),
    ]
    assert found.groups[0].fields == {"gan.old": None, "transfer.generator": "scratch"}
    assert found.groups[1].text == "gan.old=hinge, transfer.generator=near"
    assert found.groups[2].runs == ["warm0", "warm1", "warm2"]


def test_fields_that_nothing_trained_depends_on_and_folders_make_no_group():
    runs = [run("a", 0, 1.0), run("b", 1, 2.0, **{"data.workers": 9, "evaluation.size": 128})]
    (only,) = many.compare(runs).groups
    assert (only.seeds, only.fields, only.text) == ([0, 1], {}, "all runs")


def test_other_images_make_another_group():
    other = dataclasses.replace(run("b", 1, 2.0), data={"digest": "e" * 64})
    found = many.compare([run("a", 0, 1.0), other])
    assert [g.fields["images"] for g in found.groups] == ["d" * 12, "e" * 12]


def test_means_and_intervals_are_scipys():
    found = three_groups()
    for letter, distances in (("A", COLD), ("B", NEAR), ("C", WARM)):
        values = list(distances.values())
        expected = scipy.stats.t.interval(
            0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values)
        )
        end = Quantity("curve", "gan_samples", "held_out", "fd_pixels")
        for quantity in (MAIN, end):
            got = summary(found, quantity, letter)
            assert got.values == {str(seed): x for seed, x in distances.items()}
            np.testing.assert_allclose((got.mean.low, got.mean.high), expected, rtol=1e-12)
        vae = summary(found, Quantity("curve", "vae_samples", "held_out", "fd_pixels"), letter)
        np.testing.assert_allclose(vae.mean.mean, np.mean(values) + 3, rtol=1e-12)


def test_differences_are_tested_over_the_seeds_that_match():
    found = three_groups()
    seeds = [0, 1, 2]  # and not 5, which only one group has
    for letters, a, b in (("AB", COLD, NEAR), ("AC", COLD, WARM), ("BC", NEAR, WARM)):
        got = contrast(found, MAIN, *letters)
        expected = scipy.stats.ttest_rel([b[s] for s in seeds], [a[s] for s in seeds])
        assert got.seeds == ["0", "1", "2"]
        np.testing.assert_allclose(got.difference.p, expected.pvalue, rtol=1e-9)
        interval = expected.confidence_interval(0.95)
        got = got.difference
        np.testing.assert_allclose((got.low, got.high), (interval.low, interval.high), rtol=1e-9)
    # What is the same everywhere has no p.
    assert contrast(found, PRECISION, "A", "B").difference == (3, 0, 0, 0, None)


def test_pairs_are_matched_by_seed_whatever_the_order():
    runs = [
        *group("a", WARM),
        *group("b", dict(reversed(COLD.items())), **{"gan.old": "hinge"}),
    ]
    difference = contrast(many.compare(runs), MAIN, "A", "B").difference
    expected = scipy.stats.ttest_rel([COLD[s] for s in range(3)], [WARM[s] for s in range(3)])
    np.testing.assert_allclose(difference.p, expected.pvalue, rtol=1e-9)


def test_the_ranking_says_what_is_within_noise():
    found = three_groups()
    assert found.main == MAIN
    assert [(place.group, place.text) for place in found.ranking] == [
        ("B", "the nearest on average"),
        ("C", "within noise of B"),
        ("A", "further than B"),
    ]
    assert found.ranking[0].from_best is None
    np.testing.assert_allclose(found.ranking[1].from_best.mean, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.ranking[2].from_best.mean, 10.0, rtol=1e-12)


def test_a_seed_of_one_group_alone_moves_the_mean_and_not_the_difference():
    more = group("b", {0: 5.0, 1: 5.1, 2: 5.3, 3: 90.0}, **{"gan.old": "hinge"})
    runs = [*group("a", {0: 9.0, 1: 9.1, 2: 9.2}), *more]
    best, other = many.compare(runs).ranking
    assert (best.group, other.group) == ("A", "B")
    assert other.from_best.mean < 0
    assert other.text == "nearer, over the seeds in common, than A"


def test_a_group_of_one_has_no_interval_and_says_so():
    found = many.compare([*group("a", WARM), run("b", 0, 5.0, **{"gan.old": "hinge"})])
    assert summary(found, MAIN, "B").mean == (1, 5.0, None, None)
    assert tables.lonely(found.groups) == ["B is one run, so that it has no interval."]
    assert [place.text for place in found.ranking] == [
        "the nearest on average",
        "fewer than two seeds in common with B: no telling from noise",
    ]
    assert contrast(found, MAIN, "A", "B").difference is None
    (said,) = tables.unpaired(found)
    assert said.startswith("A and B have fewer than two seeds in common")
    alone = next(curve for curve in found.curves if curve.group == "B")
    assert (alone.low, alone.high) == (None, None)


def test_a_seed_counts_once():
    again = dataclasses.replace(run("a", 0, 20.0), path=pathlib.Path("again"))
    found = many.compare([*group("a", WARM), again])
    assert summary(found, MAIN, "A").mean.n == 3
    assert found.notes == ["again: left out, since a0 has the same config and seed 0."]


def test_evaluations_under_other_conditions_are_left_out():
    odd = dataclasses.replace(run("a", 3, 1.0), evaluation=made.evaluation(1.0, samples=500))
    elsewhere = run("a", 4, 23.0)
    elsewhere.evaluation["settings"]["evaluation.weights"] = "/elsewhere"
    found = many.compare([odd, *group("a", WARM), elsewhere])
    assert sorted(summary(found, MAIN, "A").values) == ["0", "1", "2", "4"]
    assert summary(found, MAIN, "A").missing == 1
    assert found.notes == ["a3: its evaluation is left out, made with other evaluation.samples."]
    # Its curve is as good as any.
    end = Quantity("curve", "gan_samples", "held_out", "fd_pixels")
    assert summary(found, end, "A").mean.n == 5


def test_what_is_not_finite_is_left_out_and_counted():
    found = three_groups()
    got = summary(found, Quantity("evaluation", "gan_samples", "", "vendi"), "A")
    assert (got.values, got.missing, got.mean) == ({}, 4, None)
    one = run("a", 3, 1.0)
    one.evaluation["numbers"][1]["value"] = None
    found = many.compare([*group("a", WARM), one])
    assert (summary(found, MAIN, "A").mean.n, summary(found, MAIN, "A").missing) == (3, 1)
    cells = [row for table in tables.of_means(found) for row in table.rows]
    assert any("(3 of 4 runs)" in cell for row in cells for cell in row)


def test_a_run_that_stopped_on_the_way_is_noted():
    short = dataclasses.replace(run("a", 3, 1.0), metrics=made.metrics()[:5])
    found = many.compare([*group("a", WARM), short])
    assert found.notes == ["a3: gan stands at step 4 of 6."]


def test_curves_are_means_over_the_seeds_at_what_they_cost():
    found = many.compare(group("a", WARM))
    vae, gan = found.curves
    assert (vae.stage, gan.stage, vae.steps) == ("vae", "gan", [3, 6])
    distances = np.array(list(WARM.values()))
    np.testing.assert_allclose(vae.means, [distances.mean() + 5, distances.mean() + 3])
    np.testing.assert_allclose(gan.means, [distances.mean() + 1, distances.mean()])
    low, high = scipy.stats.t.interval(0.95, 2, distances.mean(), scipy.stats.sem(distances))
    np.testing.assert_allclose((gan.low[1], gan.high[1]), (low, high))
    # Seed s takes 1 + s seconds a step, 2 on average; what the VAE took counts for the GAN.
    np.testing.assert_allclose(vae.seconds, [6, 12])
    np.testing.assert_allclose(gan.seconds, [18, 24])
    assert (vae.images, gan.images) == ([12, 24], [36, 48])


def test_curves_stand_where_all_runs_have_a_line():
    short = run("a", 3, 1.0)
    del short.curve[1]
    vae, gan = many.compare([*group("a", WARM), short]).curves
    assert (vae.steps, gan.steps) == ([3], [3, 6])


def test_runs_without_an_evaluation_have_no_ranking():
    bare = [dataclasses.replace(x, evaluation=None) for x in group("a", WARM)]
    found = many.compare(bare)
    assert (found.main, found.ranking) == (None, [])
    assert found.summaries
    with pytest.raises(UserError, match="no evaluation and no curve"):
        many.compare([dataclasses.replace(x, curve=[]) for x in bare])


def test_letters_go_on_beyond_z():
    runs = [run("a", 0, 1.0, **{"vae.steps": n}) for n in range(28)]
    letters = [group.letter for group in many.compare(runs).groups]
    assert letters[:2] == ["A", "B"]
    assert letters[24:] == ["Y", "Z", "A2", "B2"]
