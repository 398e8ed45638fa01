"""Final numbers of groups of runs: means over seeds, and paired differences with their tests."""

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
POWER = 0.8

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
    """A mean over pairs with its paired t test; None where there is no test.

    Attributes:
      p: two-sided p value.
      adjusted_p: adjusted for the number of tests, see `table`.
      resolved: whether `adjusted_p` is at most 1 - `CONFIDENCE`.
      detectable: see `detectable`, at the level that p had to reach.
    """

    p: float | None = None
    adjusted_p: float | None = None
    resolved: bool = False
    detectable: float | None = None


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
        half_width = float(_quantile((1 + CONFIDENCE) / 2, n) * scipy.stats.sem(finite))
    return Interval(n, n, float(np.mean(finite)), half_width)


def difference(values: Sequence[float | None]) -> Difference:
    """Returns the mean of paired differences with its t test, not yet adjusted."""
    found = Difference(**vars(interval(values)))
    # Coarse metrics may have equal differences but for rounding, which no t test describes.
    if found.mean is None or not (found.half_width or 0.0) > 1e-9 * abs(found.mean):
        return found
    return dataclasses.replace(found, p=float(scipy.stats.ttest_1samp(values, 0.0).pvalue))


def detectable(standard_error: float, n: int, level: float) -> float:
    """Returns the true mean difference that a paired t test finds with probability `POWER`.

    ``(t_{1 - level / 2} + t_POWER) * s / sqrt(n)`` with n - 1 degrees of freedom: Cohen 1988,
    Statistical Power Analysis for the Behavioral Sciences, chapter 2, with Student's t in place of
    the noncentral t distribution. This is optimistic for few pairs: for 3, the power is 0.77 at a
    level of 0.05 and 0.65 at 0.0003; for 10, it is 0.80 and 0.74. The estimated s is taken as the
    true one.

    Args:
      standard_error: s / sqrt(n), of the mean difference.
      n: number of pairs, at least 2.
      level: of the two-sided test.
    """
    return (_quantile(1 - level / 2, n) + _quantile(POWER, n)) * standard_error


def holm(p: np.ndarray) -> np.ndarray:
    """Returns adjusted p values of one family: Holm 1979, Scand. J. Statist. 6, 65-70.

    They control the probability of any false rejection under any dependence. NaN is no test.
    """
    order = np.argsort(p, axis=None)  # NaN last
    factors = np.isfinite(p).sum() - np.arange(p.size)
    adjusted = np.empty(p.size)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p.ravel()[order] * factors))
    return adjusted.reshape(p.shape)


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
    of both (fixed sequence). With several groups, these are adjusted for the differences from the
    first group, and the p values of all other rows for all rows and differences (`holm`).

    Args:
      groups: for each group, runs by a key; runs with the same key are paired.
    """
    runs = [run for of in groups for run in of.values()]
    values = {run.name: final_values(run) for run in runs}
    dubious = Counter(x.name for run in runs for x in run.records if not x.informative)
    names = [*dict.fromkeys(name for of_run in values.values() for name in of_run)]
    primary = _primary(names)
    rows = []
    for name in dict.fromkeys(primary + names):
        first, *others = of_groups = [
            {key: values[run.name].get(name) for key, run in of.items()} for of in groups
        ]
        pairs = [[_minus(of[key], first[key]) for key in of if key in first] for of in others]
        means = [interval([*of.values()]) for of in of_groups]
        differences = [difference(each) for each in pairs]
        rows.append(Row(name, name in primary, dubious[name], means, differences))
    return _adjusted(rows, len(primary))


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


def _adjusted(rows: Sequence[Row], primary: int) -> list[Row]:
    """Returns rows with adjusted p values; the first `primary` ones are primary."""
    p = np.array([[each.p for each in row.differences] for row in rows], np.float64)  # None is NaN
    result: list[Row] = []
    for family in [*np.maximum.accumulate(p[:primary])[:, None], p[primary:]]:
        adjusted = holm(family)
        level = (1 - CONFIDENCE) / max(1, int(np.sum(adjusted > 1 - CONFIDENCE)))
        for row, values in zip(rows[len(result) :], adjusted.tolist(), strict=False):
            differences = [_test(*x, level) for x in zip(row.differences, values, strict=True)]
            result.append(dataclasses.replace(row, differences=differences))
    return result


def _test(found: Difference, adjusted: float, level: float) -> Difference:
    """Returns a difference with its adjusted p value; `level` is the one that p had to reach."""
    if math.isnan(adjusted) or found.half_width is None:
        return found
    error = found.half_width / _quantile((1 + CONFIDENCE) / 2, found.n)
    return dataclasses.replace(
        found,
        adjusted_p=adjusted,
        resolved=adjusted <= 1 - CONFIDENCE,
        detectable=detectable(error, found.n, level),
    )


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _quantile(probability: float, n: int) -> float:
    return float(scipy.stats.t.ppf(probability, n - 1))


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
