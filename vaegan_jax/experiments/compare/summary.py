"""The comparison of two or more runs as text, JSON and sections of a page."""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from vaegan_jax.errors import UserError
from vaegan_jax.experiments.compare import identity, records, statistics
from vaegan_jax.experiments.compare.identity import Identity
from vaegan_jax.experiments.compare.records import FactDifference, Run
from vaegan_jax.experiments.compare.statistics import Difference, Group, Interval, Row
from vaegan_jax.report.tables import SUBJECTS, Table, lay_out

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
_AGAINST = {
    "test": "against test images",
    "held_out": "against held-out images",
    "train": "against training images",
    "statistics": "against the statistics file",
    "alone": "alone",
    "curve": "at the end of the curve",
}
_MAX_NAMED = 5
_MAX_CHARACTERS = 60


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of runs.

    Attributes:
      groups: each of two runs, or groups of more runs that differ in the seed only.
      identity: of two runs, else None.
      facts: in which the runs differ; for more than two, without the inputs of training.
      rows: final numbers.
      better: see `statistics.better`.
      warnings: sentences on few seeds and unequal cost.
      notes: sentences on missing, omitted and non-finite data.
    """

    groups: list[Group]
    identity: Identity | None
    facts: list[FactDifference]
    rows: list[Row]
    better: list[str | None]
    warnings: list[str]
    notes: list[str]

    @property
    def runs(self) -> dict[str, str]:
        """The folders by short name: the group's label, with the seed if it has several runs."""
        return {
            f"{group.label}/{seed}" if len(group.runs) > 1 else group.label: run
            for group in self.groups
            for seed, run in zip(group.seeds, group.runs, strict=True)
        }

    @property
    def exit_code(self) -> int:
        """1 for two runs that are not identical, otherwise 0."""
        return int(self.identity is not None and self.identity.verdict != identity.IDENTICAL)


class Section(NamedTuple):
    """A section: paragraphs, and tables of text or of numbers."""

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    is_numeric: bool = False


def compare(runs: Sequence[Run]) -> Comparison:
    """Compares the final numbers of runs, and two runs bit for bit.

    Raises:
      UserError: if a checkpoint is damaged, or there is nothing to compare.
    """
    notes = [note for run in runs for note in run.notes]
    verdict = result = None
    if len(runs) == 2:
        result = identity.compare_bits(*runs)
        verdict = result.verdict
        groups = [[run] for run in runs]
        rows = statistics.table([{"": run} for run in runs])
        facts = records.differing_facts(runs)
    else:
        groups, repeats = statistics.group(runs)
        for run, again in repeats:
            repeated = identity.compare_bits(run, again).verdict
            notes.append(f"{again.name} repeats {run.name} ({repeated}) and is omitted.")
        runs = [run for members in groups for run in members]
        rows = statistics.table([{run.config["seed"]: run for run in of} for of in groups])
        facts = [fact for fact in records.differing_facts(runs) if not identity.is_cause(fact)]
    if verdict == identity.NOTHING_SHARED or (verdict is None and not rows):
        raise UserError(
            "These runs share no values: train them further, or evaluate each with `vaegan "
            "evaluate RUN`."
        )
    for run in runs:
        bad = [name for name, x in statistics.final_values(run).items() if not math.isfinite(x)]
        notes += [f"{run.name}: not finite: {_named(bad)}."] if bad else []
    described = statistics.describe(groups)
    better = statistics.better(described, rows)
    warnings = list(_warnings(described, is_pair=result is not None))
    return Comparison(described, result, facts, rows, better, warnings, notes)


def as_json(comparison: Comparison) -> str:
    """Returns a comparison as JSON, with non-finite values as strings such as "NaN"."""
    plain = json.dumps(dataclasses.asdict(comparison))
    return json.dumps(json.loads(plain, parse_constant=str), indent=1)


def as_text(comparison: Comparison) -> str:
    """Returns a comparison for a terminal."""
    lines: list[str] = []
    for section in sections(comparison):
        lines += section.lines
        lines += [line for table in section.tables for line in lay_out(table)]
    return "\n".join(lines)


def sections(comparison: Comparison) -> list[Section]:
    """Returns the sections of a comparison."""
    configs = [{"seed": seed} | group.fields for group in comparison.groups for seed in group.seeds]
    rows = [
        [*item, ", ".join(f"{name}={_value(value)}" for name, value in config.items())]
        for item, config in zip(comparison.runs.items(), configs, strict=True)
    ]
    shown = [Section("Runs", tables=[Table("Groups", ["", "folder", "config"], rows)])]
    verdict = comparison.identity.verdict if comparison.identity else None
    if comparison.identity is not None:
        shown.append(Section("Verdict", list(_verdict(comparison))))
    if comparison.facts:
        title = "Likely causes" if verdict == identity.DIFFERENT else "Recorded facts that differ"
        rows = [
            [each.file, each.name, _spread(each.values, [*comparison.runs])]
            for each in comparison.facts
        ]
        tables = [Table(title, ["file", "fact", "values"], rows)]
        shown.append(Section("Facts", tables=tables))
    elif verdict == identity.DIFFERENT:
        shown.append(Section("Facts", ["No recorded fact differs: the cause is unknown."]))
    if comparison.notes:
        shown.append(Section("Notes", comparison.notes))
    if comparison.rows and verdict != identity.IDENTICAL:
        lines = [_ONE_RUN_EACH] if verdict else [*_conclusions(comparison), _EXPLANATION]
        tables = [_cost_table(comparison.groups), *_number_tables(comparison)]
        shown.append(Section("Final numbers", comparison.warnings + lines, tables, is_numeric=True))
    return shown


def _warnings(groups: Sequence[Group], is_pair: bool) -> Iterator[str]:
    """Yields sentences on few seeds and unequal cost."""
    few = [f"{each.label} ({len(each.runs)})" for each in groups if len(each.runs) < _MIN_SEEDS]
    if few and not is_pair:
        yield f"Warning: fewer than {_MIN_SEEDS} seeds: {_named(few)}."
    for each in groups:
        if _is_unequal(each):
            yield (
                f"Warning: unequal cost: training {each.label} took {each.cost_ratio:.2f} times as "
                f"long as {groups[0].label}."
            )


def _is_unequal(group: Group) -> bool:
    return group.cost_ratio > _MAX_COST_RATIO or group.cost_ratio < 1 / _MAX_COST_RATIO


def _conclusions(comparison: Comparison) -> Iterator[str]:
    """Yields a line on the primary comparison for each group after the first."""
    first, *others = comparison.groups
    primary = [row for row in comparison.rows if row.is_primary]
    for index, (group, better) in enumerate(zip(others, comparison.better, strict=True)):
        test, *confirming = [row.differences[index] for row in primary]
        if better is not None:
            worse = group.label if better == first.label else first.label
            result = f"{better} is better than {worse}" + ", in both embeddings" * bool(confirming)
        elif test.adjusted_p is None:
            result = "no test, which needs two or more pairs of finite values with some spread"
        elif not test.resolved:
            result = "not resolved"
        else:
            result = "neither is called better: the embeddings disagree, or are not informative"
        p = "" if test.adjusted_p is None else f" (p={test.adjusted_p:.2g})"
        cost = ", at unequal cost" if _is_unequal(group) else ""
        yield f"Primary comparison, {group.label} - {first.label}: {result}{p}{cost}."


def _verdict(comparison: Comparison) -> Iterator[str]:
    """Yields lines on the identity of two runs."""
    result = comparison.identity
    assert result is not None
    equal = f"{result.equal} of {result.numbers} numbers are bit-identical"
    yield f"Verdict: {result.verdict}; {equal}."
    if result.first:
        first, *others = result.first
        also = f"; also {_named([value.name for value in others])}" if others else ""
        values = " and ".join(map(_value, first.values))
        yield f"First difference: {first.stage} step {first.step}, {first.name}: {values}{also}"
    elif result.verdict == identity.DIFFERENT:
        yield "Only the config or the images differ."
    for saved in result.checkpoints:
        yield f"Checkpoint {saved.stage} {saved.step}: {saved.equal} of {saved.leaves} leaves equal"
    for label, names in zip(comparison.runs, result.only, strict=True):
        if names:
            yield f"Only in {label}, or for more steps: {_named(names)}"


def _cost_table(groups: Sequence[Group]) -> Table:
    """Returns the training times; "-" where there is no VAE."""
    rows = []
    for group in groups:
        seconds = [group.seconds.get(name) for name in (*records.TRAINED, "total")]
        cells = ["-" if x is None else "unknown" if math.isnan(x) else f"{x:.0f}" for x in seconds]
        flag = " (unequal)" if _is_unequal(group) else ""
        rows.append([_heading(group), *cells, f"{group.cost_ratio:.2f}{flag}"])
    columns = ["", "VAE", "GAN", "total", f"relative to {groups[0].label}"]
    return Table("Training time in seconds, mean over runs", columns, rows)


def _heading(group: Group) -> str:
    counts = [f"n={len(group.runs)}", *(f"{n} {name}" for name, n in group.problems.items())]
    return ", ".join([group.label, *counts])


def _number_tables(comparison: Comparison) -> list[Table]:
    """Returns the table of the primary comparison, and one per subject and reference."""
    first, *others = comparison.groups
    pairs = [max(row.differences[i].of for row in comparison.rows) for i in range(len(others))]
    columns = [_heading(group) for group in comparison.groups]
    columns += [f"{g.label} - {first.label}, n={n}" for g, n in zip(others, pairs, strict=True)]
    tables: dict[str, list[list[str]]] = {}
    for row in sorted(comparison.rows, key=lambda row: (not row.is_primary, _title(row))):
        title = f"Primary comparison: {_title(row)}" if row.is_primary else _title(row)
        metric = row.name.split("/", 2)[2]
        metric += " (not informative)" if row.uninformative else ""
        cells = [*map(_cell, row.means), *map(_difference_cell, row.differences)]
        tables.setdefault(title, []).append([metric, *cells])
    return [Table(title, ["", *columns], rows) for title, rows in tables.items()]


def _title(row: Row) -> str:
    subject, against, _ = row.name.split("/", 2)
    return f"{SUBJECTS.get(subject, subject.upper())} {_AGAINST.get(against, against)}"


def _cell(interval: Interval, sign: str = "") -> str:
    """Returns ``mean [low, high]``, or how many values are finite."""
    if interval.mean is None:
        return f"{interval.n} of {interval.of} finite" if interval.of else "-"
    half_width = interval.half_width
    cell = _number(interval.mean, half_width, sign)
    if half_width is not None:
        low, high = interval.mean - half_width, interval.mean + half_width
        cell += f" [{_number(low, half_width)}, {_number(high, half_width)}]"
    return cell


def _difference_cell(difference: Difference) -> str:
    """Returns a cell with a sign and the result of the test."""
    if difference.mean == 0 and not difference.half_width:
        return "equal"
    cell = _cell(difference, "+")
    if difference.adjusted_p is not None and difference.detectable is not None:
        cell += f" p={difference.adjusted_p:.2g}"
        shown = _number(difference.detectable, difference.half_width)
        cell += "" if difference.resolved else f" not resolved (could show {shown})"
    return cell


def _number(value: float, half_width: float | None = None, sign: str = "") -> str:
    """Rounds to two digits of the half width of the interval, or to three digits."""
    decimals = 1 - math.floor(math.log10(half_width)) if half_width else 9
    if decimals < 9:
        return f"{value:{sign}z.{max(0, decimals)}f}"
    return f"{value:{sign}.0f}" if abs(value) >= 999.5 else f"{value:{sign}.3g}"


def _spread(values: Sequence[Any], labels: Sequence[str]) -> str:
    """Returns the distinct values, each with its runs."""
    runs: dict[str, tuple[Any, list[str]]] = {}
    for value, label in zip(values, labels, strict=True):
        runs.setdefault(repr(value), (value, []))[1].append(label)
    return "; ".join(f"{_value(value)} ({_named(having)})" for value, having in runs.values())


def _value(value: Any) -> str:
    shown = "absent" if value is None else str(value) or "empty"
    return shown if len(shown) <= _MAX_CHARACTERS else f"{shown[:_MAX_CHARACTERS]}..."


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
