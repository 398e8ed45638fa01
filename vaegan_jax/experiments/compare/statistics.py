"""A table of final numbers: means over seeds, and differences paired by seed, with t intervals."""

import dataclasses
import json
import math
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from vaegan_jax import workdir
from vaegan_jax.experiments.compare import records
from vaegan_jax.experiments.compare.records import Run

CONFIDENCE = 0.95

# The numbers do not depend on how often the curve is measured, nor on where a file lies.
_FREE = ("seed", "evaluation.curve_every", "evaluation.weights")


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one config, evaluation included, and one set of images, which differ in the seed.

    Attributes:
      letter: its short name.
      fields: in which it differs from other groups, with "images" for their digest.
      runs: the folders.
      seeds: one for each run.
    """

    letter: str
    fields: dict[str, Any]
    runs: list[str]
    seeds: list[Any]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over runs, or over pairs of runs, with its confidence interval.

    Attributes:
      n: how many values are finite.
      not_finite: how many are not, and do not count.
      mean: of the finite values, None where there are none.
      half_width: the interval is `mean` ± this; None for fewer than two values.
    """

    n: int
    not_finite: int
    mean: float | None
    half_width: float | None


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of all groups.

    Attributes:
      name: "gan_samples/held_out/fd_pixels", or for a curve's last value
        "gan_samples/curve/fd_pixels".
      means: one for each group.
      differences: one for each group but the first: its values minus the first group's, over the
        pairs of runs of one seed.
    """

    name: str
    means: list[Interval]
    differences: list[Interval]


def interval(values: Sequence[float]) -> Interval:
    """Returns the mean of the finite values and its two-sided t interval at `CONFIDENCE`."""
    finite = [value for value in values if math.isfinite(value)]
    n = len(finite)
    half_width = None
    if n > 1:
        quantile = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
        half_width = float(quantile * scipy.stats.sem(finite))
    return Interval(n, len(values) - n, float(np.mean(finite)) if n else None, half_width)


def group(runs: Sequence[Run]) -> tuple[list[list[Run]], list[tuple[Run, Run]]]:
    """Groups runs that differ in the seed alone.

    Returns:
      The groups, each with one run for each seed, and the pairs (run in a group, run left out
      because it has the same seed).
    """
    groups: dict[str, dict[Any, Run]] = {}
    repeats = []
    for run in runs:
        seeds = groups.setdefault(json.dumps(_identity(run), sort_keys=True), {})
        first = seeds.setdefault(run.config["seed"], run)
        if first is not run:
            repeats.append((first, run))
    return [list(seeds.values()) for seeds in groups.values()], repeats


def describe(groups: Sequence[Sequence[Run]]) -> list[Group]:
    """Names groups of runs by letters, and finds the fields in which they differ."""
    letters = [*string.ascii_uppercase, *(f"G{i + 1}" for i in range(26, len(groups)))]
    identities = [_identity(runs[0]) for runs in groups]
    names = sorted({name for identity in identities for name in identity})
    apart = [n for n in names if len({json.dumps(each.get(n)) for each in identities}) > 1]
    found = []
    for letter, runs, identity in zip(letters, groups, identities, strict=False):
        fields = {name: identity.get(name) for name in apart}
        seeds = [run.config["seed"] for run in runs]
        found.append(Group(letter, fields, [run.name for run in runs], seeds))
    return found


def table(groups: Sequence[Mapping[Any, Run]]) -> list[Row]:
    """Compares the final numbers of groups of runs.

    Args:
      groups: the runs of each by a key; the runs of two groups that have the same key are a pair.
    """
    values = {run.name: final_values(run) for members in groups for run in members.values()}
    rows = []
    for name in dict.fromkeys(name for of_run in values.values() for name in of_run):
        found = [
            {key: values[run.name][name] for key, run in of.items() if name in values[run.name]}
            for of in groups
        ]
        first, *others = found
        differences = [
            interval([other[key] - first[key] for key in other if key in first]) for other in others
        ]
        means = [interval(list(members.values())) for members in found]
        rows.append(Row(name, means, differences))
    return rows


def final_values(run: Run) -> dict[str, float]:
    """Returns the numbers of the evaluation and the last distances of the curve, by name."""
    found = {}
    for record in run.records:
        if record.stage == records.EVALUATION:
            found[record.name] = record.value
        elif records.is_distance(record.name):
            found[f"{record.stage}_samples/{record.name}"] = record.value
    return found


def _identity(run: Run) -> dict[str, Any]:
    """Returns what the runs of a group have in common: all that their numbers depend on."""
    fields = {
        name: value
        for name, value in run.config.items()
        if (records.is_trained_by(name) or name.startswith("evaluation.")) and name not in _FREE
    }
    digest = run.facts.get(workdir.DATA, {}).get("digest")
    return fields | {"images": digest and digest[:12]}
