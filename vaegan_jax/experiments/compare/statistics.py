"""Final numbers of groups of runs: means over seeds and paired differences, with t intervals."""

import dataclasses
import json
import math
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from vaegan_jax import resume, workdir
from vaegan_jax.experiments.compare import records
from vaegan_jax.experiments.compare.records import Run

CONFIDENCE = 0.95

# Fields that do not distinguish groups.
_FREE = ("seed", "evaluation.curve_every", "evaluation.weights")


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in the seed only: same config, evaluation settings and images.

    Attributes:
      letter: short name.
      fields: those in which groups differ; "images" is the digest of the data.
      runs: folders.
      seeds: one per run.
    """

    letter: str
    fields: dict[str, Any]
    runs: list[str]
    seeds: list[Any]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over runs, or over pairs of runs, with its confidence interval.

    Attributes:
      n: number of finite values; others are ignored.
      mean: of the finite values, None if there are none.
      half_width: half the width of the interval; None for fewer than two values.
    """

    n: int
    mean: float | None
    half_width: float | None


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of all groups.

    Attributes:
      name: such as "gan_samples/held_out/fd_pixels", or "gan_samples/curve/fd_pixels" for the last
        value of a curve.
      means: one per group.
      differences: for each group after the first: its values minus those of the first group, over
        runs of the same seed.
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
    return Interval(n, float(np.mean(finite)) if n else None, half_width)


def group(runs: Sequence[Run]) -> tuple[list[list[Run]], list[tuple[Run, Run]]]:
    """Groups runs that differ in the seed only.

    Returns:
      The groups, with one run per seed, and pairs (run in a group, omitted run of the same seed).
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
    """Names groups by letters, and finds the fields in which they differ."""
    letters = [*string.ascii_uppercase, *(f"G{i + 1}" for i in range(26, len(groups)))]
    identities = [_identity(runs[0]) for runs in groups]
    names = sorted({name for identity in identities for name in identity})
    differing = [n for n in names if len({json.dumps(each.get(n)) for each in identities}) > 1]
    result = []
    for letter, runs, identity in zip(letters, groups, identities, strict=False):
        fields = {name: identity.get(name) for name in differing}
        seeds = [run.config["seed"] for run in runs]
        result.append(Group(letter, fields, [run.name for run in runs], seeds))
    return result


def table(groups: Sequence[Mapping[Any, Run]]) -> list[Row]:
    """Compares the final numbers of groups of runs.

    Args:
      groups: for each group, runs by a key; runs with the same key are paired.
    """
    values = {run.name: final_values(run) for members in groups for run in members.values()}
    rows = []
    for name in dict.fromkeys(name for of_run in values.values() for name in of_run):
        by_group = [
            {key: values[run.name][name] for key, run in of.items() if name in values[run.name]}
            for of in groups
        ]
        first, *others = by_group
        differences = [
            interval([other[key] - first[key] for key in other if key in first]) for other in others
        ]
        means = [interval(list(members.values())) for members in by_group]
        rows.append(Row(name, means, differences))
    return rows


def final_values(run: Run) -> dict[str, float]:
    """Returns the numbers of the evaluation and the last distances of the curve, by name."""
    values = {}
    for record in run.records:
        if record.stage == records.EVALUATION:
            values[record.name] = record.value
        elif records.is_distance(record.name):
            values[f"{record.stage}_samples/{record.name}"] = record.value
    return values


def _identity(run: Run) -> dict[str, Any]:
    """Returns what all runs of a group share: the inputs of their numbers except the seed."""
    fields = {
        name: value
        for name, value in run.config.items()
        if (resume.affects_training(name) or name.startswith("evaluation.")) and name not in _FREE
    }
    data = run.facts.get(workdir.DATA, {})
    digest = data.get("digest")
    return fields | {"images": digest and digest[:12], "training images": data.get("train")}
