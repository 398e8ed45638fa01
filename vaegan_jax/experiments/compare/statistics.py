"""Final numbers of groups of runs: means over seeds, and paired differences."""

import dataclasses
import json
import math
import re
import string
from collections import Counter
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
_FRECHET = re.compile(r"gan_samples/(?:test|held_out)/(?:(.+) )?fi?d_\S+")
_CURVE = "gan_samples/curve/"


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in the seed only: same config, evaluation settings and images.

    Attributes:
      label: the variant's name if all groups have different ones, otherwise a letter.
      fields: those in which groups differ; "images" is the digest of the data.
      runs: folders.
      seeds: one per run.
      problems: number of runs by problem (`records.PROBLEMS`), without zeros.
      seconds: mean training time by stage and in "total", see `Run.seconds`.
      cost_ratio: total relative to the first group's.
    """

    label: str
    fields: dict[str, Any]
    runs: list[str]
    seeds: list[Any]
    problems: dict[str, int]
    seconds: dict[str, float]
    cost_ratio: float


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over runs, or over pairs of runs, with its confidence interval.

    Attributes:
      n: number of finite values.
      of: number of runs or pairs, 0 if none has the number.
      mean: None unless all values are finite: the rest would not represent the group.
      half_width: half the width of the interval; None for fewer than two values.
    """

    n: int
    of: int
    mean: float | None
    half_width: float | None


@dataclasses.dataclass(frozen=True)
class Difference(Interval):
    """A mean over pairs.

    Attributes:
      p: p value of the primary comparison, see `table`; None in other rows and without a test.
    """

    p: float | None = None

    @property
    def resolved(self) -> bool:
        """Whether p is at most 1 - `CONFIDENCE`."""
        return self.p is not None and self.p <= 1 - CONFIDENCE


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of all groups.

    Attributes:
      name: such as "gan_samples/test/pixels fd_n100", or "gan_samples/curve/fd_pixels" for the last
        value of a curve.
      is_primary: see `table`.
      uninformative: number of runs whose evaluation says that the value is not informative.
      means: one per group.
      differences: for each group after the first: its values minus those of the first group, over
        runs of the same seed.
    """

    name: str
    is_primary: bool
    uninformative: int
    means: list[Interval]
    differences: list[Difference]


def interval(values: Sequence[float | None]) -> Interval:
    """Returns the mean with its two-sided t interval at `CONFIDENCE`; None is a missing value."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    n = len(finite)
    if n < len(values) or not n:
        return Interval(n, 0 if all(x is None for x in values) else len(values), None, None)
    half_width = None
    if n > 1:
        quantile = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
        half_width = float(quantile * scipy.stats.sem(finite))
    return Interval(n, n, float(np.mean(finite)), half_width)


def paired_p(values: Sequence[float | None]) -> float:
    """Returns the two-sided p value of a t test of paired differences; NaN without a test.

    There is no test of missing values or fewer than two pairs, nor of differences that are equal
    but for rounding, as those of coarse metrics may be.
    """
    found = interval(values)
    if found.mean is None or not (found.half_width or 0.0) > 1e-9 * abs(found.mean):
        return math.nan
    return float(scipy.stats.ttest_1samp(values, 0.0).pvalue)


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
    """Labels groups, and finds the fields in which they differ, their problems and costs."""
    identities = [_identity(runs[0]) for runs in groups]
    names = sorted({name for identity in identities for name in identity})
    differing = [n for n in names if len({json.dumps(each.get(n)) for each in identities}) > 1]
    seconds = [
        {name: float(np.mean([run.seconds[name] for run in runs])) for name in runs[0].seconds}
        for runs in groups
    ]
    result = []
    for label, runs, fields, cost in zip(_labels(groups), groups, identities, seconds, strict=True):
        problems = [problem for run in runs for problem in run.problems]
        result.append(
            Group(
                label,
                fields={name: fields.get(name) for name in differing},
                runs=[run.name for run in runs],
                seeds=[run.config["seed"] for run in runs],
                problems={x: problems.count(x) for x in records.PROBLEMS if x in problems},
                seconds=cost,
                cost_ratio=cost["total"] / (seconds[0]["total"] or math.nan),
            )
        )
    return result


def table(groups: Sequence[Mapping[Any, Run]]) -> list[Row]:
    """Compares the final numbers of groups of runs, those of the primary comparison first.

    The primary comparison is fixed: the Frechet distance of the GAN's samples to the test images in
    the first embedding, or else the last value of the GAN's curve, or else the first number. The
    same distance in another embedding is tested only to confirm it: its p value is the larger one
    of both (fixed sequence). The p values are multiplied by the number of differences from the
    first group (Bonferroni). Other rows are not tested.

    Args:
      groups: for each group, runs by a key; runs with the same key are paired.
    """
    runs = [run for of in groups for run in of.values()]
    values = {run.name: final_values(run) for run in runs}
    dubious = Counter(x.name for run in runs for x in run.records if not x.informative)
    names = [*dict.fromkeys(name for of_run in values.values() for name in of_run)]
    primary = _primary(names)
    rows = []
    p = np.zeros(len(groups) - 1)
    for name in dict.fromkeys(primary + names):
        first, *others = of_groups = [
            {key: values[run.name].get(name) for key, run in of.items()} for of in groups
        ]
        pairs = [[_minus(of[key], first[key]) for key in of if key in first] for of in others]
        differences = [Difference(**vars(interval(each))) for each in pairs]
        if name in primary:
            p = np.maximum(p, [paired_p(each) for each in pairs])  # NaN if one of both is
            adjusted = [None if math.isnan(x) else min(1.0, x * len(p)) for x in p.tolist()]
            tested = zip(differences, adjusted, strict=True)
            differences = [dataclasses.replace(each, p=x) for each, x in tested]
        means = [interval([*of.values()]) for of in of_groups]
        rows.append(Row(name, name in primary, dubious[name], means, differences))
    return rows


def better(groups: Sequence[Group], rows: Sequence[Row]) -> list[str | None]:
    """Returns the label of the better group for each group after the first, None if none is.

    A group is better if its primary distance is smaller, resolved and informative, in every
    embedding.
    """
    primary = [row for row in rows if row.is_primary]
    is_clear = all(_is_distance(row.name) and not row.uninformative for row in primary)
    result = []
    for index, group in enumerate(groups[1:]):
        found = [row.differences[index] for row in primary]
        increases = {each.resolved and (each.mean or 0.0) > 0 for each in found}
        decreases = {each.resolved and (each.mean or 0.0) < 0 for each in found}
        winner = groups[0] if increases == {True} else group if decreases == {True} else None
        result.append(winner.label if winner and is_clear else None)
    return result


def final_values(run: Run) -> dict[str, float]:
    """Returns the numbers of the evaluation and the last distances of the curve, by name."""
    values = {}
    for record in run.records:
        if record.stage == records.EVALUATION:
            values[record.name] = record.value
        elif records.is_distance(record.name):
            values[f"{record.stage}_samples/{record.name}"] = record.value
    return values


def _primary(names: Sequence[str]) -> list[str]:
    """Returns the row of the primary comparison, followed by its twins in other embeddings."""
    by_embedding: dict[str | None, str] = {}
    for name in names:
        if match := _FRECHET.fullmatch(name):
            by_embedding.setdefault(match[1], name)
    curve = [name for name in names if name.startswith(_CURVE)]
    return list(by_embedding.values()) or curve[:1] or list(names)[:1]


def _is_distance(name: str) -> bool:
    return name.startswith(_CURVE) or _FRECHET.fullmatch(name) is not None


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    variants = [{run.variant for run in runs} for runs in groups]
    names = {name for of_group in variants for name in of_group}
    if "" not in names and len(names) == len(groups) == sum(map(len, variants)):
        return [name for (name,) in variants]
    return [*string.ascii_uppercase, *(f"G{i + 1}" for i in range(26, len(groups)))][: len(groups)]


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
