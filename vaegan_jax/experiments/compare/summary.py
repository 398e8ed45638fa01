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
from vaegan_jax.experiments.compare.statistics import Group, Interval, Row
from vaegan_jax.report.tables import SUBJECTS, Table, lay_out

_EXPLANATION = (
    f"Brackets: {statistics.CONFIDENCE:.0%} t interval of the mean over seeds, which does not "
    "include the sampling error of an evaluation. Differences are paired by seed. A difference is "
    "not resolved if its interval contains 0; the number after ± is the smallest difference that "
    "would be resolved with this spread. There is no correction for multiple comparisons."
)
_ONE_RUN_EACH = "One run each: differences may be no larger than those between two seeds."
_AGAINST = {
    "held_out": "against test images",
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
      notes: sentences on missing, omitted and non-finite data.
    """

    groups: list[Group]
    identity: Identity | None
    facts: list[FactDifference]
    rows: list[Row]
    notes: list[str]

    @property
    def runs(self) -> dict[str, str]:
        """The folders by short name: the group's letter, with the seed if it has several runs."""
        return {
            f"{group.letter}/{seed}" if len(group.runs) > 1 else group.letter: run
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
    return Comparison(statistics.describe(groups), result, facts, rows, notes)


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
        shown.append(Section("Verdict", list(_verdict(comparison.identity))))
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
        line = _ONE_RUN_EACH if verdict else _EXPLANATION
        shown.append(Section("Final numbers", [line], _number_tables(comparison), is_numeric=True))
    return shown


def _verdict(result: Identity) -> Iterator[str]:
    """Yields lines on the identity of two runs."""
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
    for letter, names in zip("AB", result.only, strict=True):
        if names:
            yield f"Only in {letter}, or for more steps: {_named(names)}"


def _number_tables(comparison: Comparison) -> list[Table]:
    """Returns one table per subject and reference."""
    first, *others = comparison.groups
    sizes = [len(group.runs) for group in comparison.groups]
    is_pair = comparison.identity is not None
    pairs = [1 if is_pair else len({*first.seeds} & {*group.seeds}) for group in others]
    columns = [f"{group.letter}, n={n}" for group, n in zip(comparison.groups, sizes, strict=True)]
    columns += [f"{g.letter} - A, n={n}" for g, n in zip(others, pairs, strict=True)]
    tables: dict[str, list[list[str]]] = {}
    for row in comparison.rows:
        subject, against, metric = row.name.split("/", 2)
        title = f"{SUBJECTS.get(subject, subject.upper())} {_AGAINST.get(against, against)}"
        cells = [_cell(mean, n) for mean, n in zip(row.means, sizes, strict=True)]
        cells += [_cell(mean, n, "+") for mean, n in zip(row.differences, pairs, strict=True)]
        tables.setdefault(title, []).append([metric, *cells])
    return [Table(title, ["", *columns], tables[title]) for title in sorted(tables)]


def _cell(interval: Interval, size: int, sign: str = "") -> str:
    """Returns ``mean [low, high]``, with n if it is not `size`; with a sign for a difference."""
    if interval.mean is None:
        return "-"
    half_width = interval.half_width
    cell = _number(interval.mean, half_width, sign)
    if half_width is not None:
        low, high = interval.mean - half_width, interval.mean + half_width
        cell += f" [{_number(low, half_width)}, {_number(high, half_width)}]"
    if sign and not interval.mean and not half_width:
        cell = "equal"
    elif sign and half_width is not None and abs(interval.mean) <= half_width:
        cell += f" not resolved (±{_number(half_width)})"
    return cell + ("" if interval.n == size else f" (n={interval.n})")


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
