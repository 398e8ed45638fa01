"""The comparison of two or more runs, as sections of text and tables."""

import collections
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from vaegan_jax import workdir
from vaegan_jax.config import resume
from vaegan_jax.errors import UserError
from vaegan_jax.experiments.compare import identity, records, statistics
from vaegan_jax.experiments.compare.identity import Identity
from vaegan_jax.experiments.compare.records import Run
from vaegan_jax.experiments.compare.statistics import Estimate, Row
from vaegan_jax.report.plots import is_distance
from vaegan_jax.report.tables import SUBJECTS, Table, lay_out, rounded

_MAX_COST_RATIO = 1.05
_MIN_SEEDS = 3
_EXPLANATION = (
    f"Brackets: {statistics.CONFIDENCE:.0%} t interval of the mean over seeds, which does not "
    "include the sampling error of an evaluation. Differences are paired by seed. p is of a paired "
    "t test; below the primary comparison, it is adjusted for the number of tests (Holm). A "
    f"difference is resolved if p is at most {1 - statistics.CONFIDENCE:.2g}; the comparison could "
    f"show, with a probability of about {statistics.POWER:.0%}, the one in parentheses."
)
_ONE_RUN_EACH = "One run each: differences may be no larger than those between two seeds."
_MAX_NAMED = 5
_MAX_CHARACTERS = 60

# Fields of the config that do not distinguish groups.
_FREE = ("seed", "evaluation.curve_every", "evaluation.weights")


class Group(NamedTuple):
    """Runs that differ in the seed only: same config, evaluation settings and images.

    The keys of `runs` are the seeds, or "" for each of two runs. The label is the variant's name if
    all groups have different ones.
    """

    label: str
    runs: dict[Any, Run]

    @property
    def heading(self) -> str:
        """The label, the number of runs and of those with a problem."""
        found = collections.Counter(x for run in self.runs.values() for x in run.problems)
        counts = [f"{count} {problem}" for problem, count in found.items()]
        return ", ".join([self.label, f"n={len(self.runs)}", *counts])


class Comparison(NamedTuple):
    """The comparison of runs: of two, each is a group.

    The sections have paragraphs and tables by title. `is_different` says whether they are two runs
    that are not identical.
    """

    groups: list[Group]
    sections: dict[str, Sequence[str | Table]]
    is_different: bool

    def __str__(self) -> str:
        parts = [part for section in self.sections.values() for part in section]
        lines = [[part] if isinstance(part, str) else lay_out(part) for part in parts]
        return "\n".join(itertools.chain(*lines))


def compare(runs: Sequence[Run]) -> Comparison:
    """Compares the final numbers of runs, and two runs bit for bit.

    Raises:
      UserError: if a checkpoint is damaged, more than two runs contain the same run twice, or
        there is nothing to compare.
    """
    result = identity.compare_bits(*runs) if len(runs) == 2 else None
    groups = _labelled([{"": run} for run in runs] if result else _by_config(runs))
    rows = statistics.table(
        [{key: _final_values(run) for key, run in group.runs.items()} for group in groups]
    )
    if not (result.numbers[1] + result.leaves[1] if result else rows):
        raise UserError(
            "These runs share no values: train them further, or evaluate each with `vaegan "
            "evaluate RUN`."
        )
    names = run_names(groups)
    is_different = result is not None and result.verdict != identity.IDENTICAL
    shows_numbers = rows and (result is None or is_different)
    sections: dict[str, Sequence[str | Table]] = {
        "Runs": [_runs_table(names)],
        "Verdict": [*_verdict(result, [*names])] if result else [],
        "Facts": _facts(names, result),
        "Notes": [*_notes(runs)],
        "Final numbers": _final_numbers(groups, rows) if shows_numbers else [],
    }
    return Comparison(groups, {x: parts for x, parts in sections.items() if parts}, is_different)


def run_names(groups: Sequence[Group]) -> dict[str, Run]:
    """Returns the runs by short name: the group's label, with the seed if it has several runs."""
    return {
        f"{label}/{seed}" if len(runs) > 1 else label: run
        for label, runs in groups
        for seed, run in runs.items()
    }


def _by_config(runs: Sequence[Run]) -> list[dict[Any, Run]]:
    """Returns the groups of runs, each by seed."""
    groups: dict[str, dict[Any, Run]] = {}
    for run in runs:
        of_seed = groups.setdefault(json.dumps(_fields(run), sort_keys=True), {})
        first = of_seed.setdefault(run.config["seed"], run)
        if first is not run:
            raise UserError(
                f"{run.folder.path} has the config and the seed of {first.folder.path}: compare "
                "these two alone, or omit one."
            )
    return [*groups.values()]


def _labelled(groups: Sequence[dict[Any, Run]]) -> list[Group]:
    """Names groups by their variants if these are different, otherwise by letters."""
    key = workdir.ENVIRONMENT, "variant"
    labels = [next(iter(runs.values())).facts.get(key, "") for runs in groups]
    if not all(labels) or len({*labels}) < len(labels):
        labels = [chr(ord("A") + i) if i < 26 else f"G{i + 1}" for i in range(len(groups))]
    return [Group(*each) for each in zip(labels, groups, strict=True)]


def _fields(run: Run) -> dict[str, Any]:
    """Returns what all runs of a group share: the inputs of their numbers except the seed."""
    fields = {
        name: value
        for name, value in run.config.items()
        if (resume.affects_training(name) or name.startswith("evaluation.")) and name not in _FREE
    }
    digest, train = (run.facts.get((workdir.DATA, name), "absent") for name in ("digest", "train"))
    return fields | {"images": digest[:12], "training images": train}


def _final_values(run: Run) -> dict[str, float]:
    """Returns the numbers of the evaluation and the last distances of the curve, by name."""
    values = {}
    for record in run.records:
        if record.stage == records.EVALUATION:
            values[record.name] = record.value
        elif is_distance(record.name.removeprefix(records.CURVE)):
            values[f"{record.stage}_samples/{record.name}"] = record.value
    return values


def _runs_table(runs: dict[str, Run]) -> Table:
    """Returns the folders, seeds and the fields in which groups differ."""
    configs = [_fields(run) for run in runs.values()]
    names = sorted({name for config in configs for name in config})
    names = [x for x in names if any(each.get(x) != configs[0].get(x) for each in configs)]
    rows = []
    for (label, run), config in zip(runs.items(), configs, strict=True):
        shown = {"seed": run.config["seed"]} | {x: config.get(x, "absent") for x in names}
        text = ", ".join(f"{name}={_short(value)}" for name, value in shown.items())
        rows.append([label, str(run.folder.path), text])
    return Table("Groups", ["", "folder", "config"], rows)


def _verdict(result: Identity, labels: Sequence[str]) -> Iterator[str]:
    """Yields lines on the identity of two runs."""
    equal = "{} of {} numbers and {} of {} leaves of checkpoints are bit-identical"
    yield f"Verdict: {result.verdict}; {equal.format(*result.numbers, *result.leaves)}."
    if result.first:
        first, *others = result.first
        also = f"; also {_named([value.name for value in others])}" if others else ""
        values = " and ".join(map(_short, first.values))
        yield f"First difference: {first.stage} step {first.step}, {first.name}: {values}{also}"
    elif result.verdict == identity.DIFFERENT:
        yield "Only the config or the images differ."
    for label, names in zip(labels, result.only, strict=True):
        if names:
            yield f"Only in {label}, or for more steps: {_named(names)}"


def _facts(runs: dict[str, Run], result: Identity | None) -> list[str | Table]:
    """Returns the facts in which runs differ; those that separate groups are in their table."""
    is_caused = result is not None and result.verdict == identity.DIFFERENT
    facts = records.differing_facts([*runs.values()])
    if result is None:
        facts = [fact for fact in facts if not fact.is_cause]
    if not facts:
        return ["No recorded fact differs: the cause is unknown."] if is_caused else []
    cells = [[fact.file, fact.name, _spread(fact.values, [*runs])] for fact in facts]
    title = "Likely causes" if is_caused else "Recorded facts that differ"
    return [Table(title, ["file", "fact", "values"], cells)]


def _notes(runs: Sequence[Run]) -> Iterator[str]:
    """Yields sentences on problems of runs, and on VAEs that were trained elsewhere."""
    for run in runs:
        for problem, why in run.problems.items():
            yield f"{run.folder.path}: {problem} ({why})."
        if source := run.facts.get((workdir.ENVIRONMENT, "vae.source")):
            yield f"{run.folder.path}: times do not include the training of the VAE of {source}."


def _final_numbers(groups: Sequence[Group], rows: Sequence[Row]) -> list[str | Table]:
    """Returns the final numbers and times of groups, with warnings and conclusions."""
    first, *others = groups
    lines, times = [], []
    seconds = [np.mean([run.seconds for run in group.runs.values()]) for group in groups]
    for group, mean in zip(groups, seconds, strict=True):
        ratio = mean / (seconds[0] or math.nan)
        times.append([group.heading, f"{mean:.0f}", f"{ratio:.2f}"])
        if abs(math.log(ratio)) > math.log(_MAX_COST_RATIO):
            lines.append(
                f"Warning: unequal cost: training {group.label} took {ratio:.2f} times as long as "
                f"{first.label}."
            )
    if all(len(group.runs) == 1 for group in groups):
        lines.append(_ONE_RUN_EACH)
    else:
        few = [f"{of.label} ({len(of.runs)})" for of in groups if len(of.runs) < _MIN_SEEDS]
        lines += [f"Warning: fewer than {_MIN_SEEDS} seeds: {_named(few)}."] if few else []
        primary = [row.differences for row in rows if row.is_primary]
        for group, *tests in zip(others, *primary, strict=True) if primary else ():
            result = _conclusion(first.label, group.label, tests)
            lines.append(f"Primary comparison, {group.label} - {first.label}: {result}.")
        lines.append(_EXPLANATION)
    columns = ["", "seconds", f"relative to {first.label}"]
    return [*lines, Table("Training time, mean over runs", columns, times), *_tables(groups, rows)]


def _conclusion(first: str, other: str, tests: Sequence[Estimate]) -> str:
    """Returns the result of the primary comparison of two groups: one test per embedding."""
    test = tests[0]
    if math.isnan(test.adjusted_p):
        return "no test, which needs two or more pairs of finite values with some spread"
    if not test.is_resolved:
        result = "not resolved"
    elif len({each.mean > 0 for each in tests}) > 1:
        result = "neither is called better, since the embeddings disagree"
    else:
        better, worse = (first, other) if test.mean > 0 else (other, first)
        result = f"{better} is better than {worse}" + ", in all embeddings" * (len(tests) > 1)
    return f"{result} (p={test.adjusted_p:.2g})"


def _tables(groups: Sequence[Group], rows: Sequence[Row]) -> list[Table]:
    """Returns the table of the primary comparison, and one per subject and reference."""
    first, *others = groups
    columns = ["", *(group.heading for group in groups)]
    for index, group in enumerate(others):
        pairs = max(row.differences[index].of for row in rows)
        columns.append(f"{group.label} - {first.label}, n={pairs}")
    tables: dict[str, list[list[str]]] = {}
    for row in sorted(rows, key=lambda row: (not row.is_primary, _title(row))):
        title = f"Primary comparison: {_title(row)}" if row.is_primary else _title(row)
        metric = row.name.split("/", 2)[2]
        cells = [*map(_cell, row.means), *map(_difference_cell, row.differences)]
        tables.setdefault(title, []).append([metric, *cells])
    return [Table(title, columns, cells) for title, cells in tables.items()]


def _title(row: Row) -> str:
    subject, against, _ = row.name.split("/", 2)
    names = {"alone": "alone", "curve": "at the end of the curve"}
    label = SUBJECTS.get(subject, subject.upper())
    return f"{label} {names.get(against, f'against {against} images')}"


def _cell(found: Estimate, sign: str = "") -> str:
    """Returns ``mean [low, high]``, or how many values are finite."""
    if math.isnan(found.mean):
        return f"{found.n} of {found.of} finite" if found.of else "-"
    half_width = found.half_width
    cell = rounded(found.mean, half_width, sign)
    if not math.isnan(half_width):
        ends = found.mean - half_width, found.mean + half_width
        cell += " [{}, {}]".format(*(rounded(end, half_width) for end in ends))
    return cell


def _difference_cell(found: Estimate) -> str:
    """Returns a cell with a sign and the result of the test."""
    if found.mean == 0 and (found.n == 1 or found.half_width == 0):
        return "equal"
    cell = _cell(found, "+")
    if not math.isnan(found.adjusted_p):
        cell += f" p={found.adjusted_p:.2g}"
        shown = rounded(found.detectable, found.half_width)
        cell += "" if found.is_resolved else f" not resolved (could show {shown})"
    return cell


def _spread(values: Sequence[Any], labels: Sequence[str]) -> str:
    """Returns the distinct values, each with its runs."""
    runs: dict[str, list[str]] = {}
    for value, label in zip(values, labels, strict=True):
        runs.setdefault(str(value), []).append(label)
    return "; ".join(f"{_short(value)} ({_named(having)})" for value, having in runs.items())


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
