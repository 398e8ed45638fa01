"""The comparison of two or more runs, as text, as JSON and as the sections of a page."""

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
    f"Brackets hold the {statistics.CONFIDENCE:.0%} t interval of a mean over seeds: how far it "
    "may move with other seeds, not the sampling error of one evaluation. Differences are paired "
    "by seed. A difference is not resolved where its interval contains 0; after ± stands how large "
    "it would have to be, given this spread over this many seeds. There is no correction for the "
    "number of rows."
)
_ONE_RUN_EACH = "One run each: a difference may be no larger than between two seeds."
_AGAINST = {
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
    """How runs compare.

    Attributes:
      groups: of two runs, each is one; more are grouped if they differ in the seed alone.
      identity: of two runs.
      facts: in which the runs differ; of more than two, without what distinguishes the groups.
      rows: the final numbers.
      notes: what is missing, left out or not finite, a sentence each.
    """

    groups: list[Group]
    identity: Identity | None
    facts: list[FactDifference]
    rows: list[Row]
    notes: list[str]

    @property
    def runs(self) -> dict[str, str]:
        """The folders by a short name: the letter of the group, and the seed if it has several."""
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
    """A part of the text and of the page: paragraphs, and tables of words or of numbers."""

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    is_numeric: bool = False


def compare(runs: Sequence[Run]) -> Comparison:
    """Compares two runs bit for bit, or more by groups; both by their final numbers.

    Raises:
      UserError: where a checkpoint is damaged, or there is nothing to compare.
    """
    notes = [note for run in runs for note in run.notes]
    found = None
    if len(runs) == 2:
        found = identity.compare_bits(*runs)
        groups = [[run] for run in runs]
        rows = statistics.table([{"": run} for run in runs])
        facts = records.differing_facts(runs)
    else:
        groups, repeats = statistics.group(runs)
        for run, again in repeats:
            verdict = identity.compare_bits(run, again).verdict
            notes.append(f"{again.name} repeats {run.name} ({verdict}) and is left out.")
        runs = [run for members in groups for run in members]
        rows = statistics.table([{run.config["seed"]: run for run in of} for of in groups])
        facts = [fact for fact in records.differing_facts(runs) if not identity.is_cause(fact)]
    if not rows if found is None else found.verdict == identity.NOTHING_SHARED:
        raise UserError(
            "These runs share nothing to compare: train them further, or evaluate each with "
            "`vaegan evaluate RUN`."
        )
    for run in runs:
        bad = [name for name, x in statistics.final_values(run).items() if not math.isfinite(x)]
        notes += [f"{run.name}: not finite: {_named(bad)}."] if bad else []
    return Comparison(statistics.describe(groups), found, facts, rows, notes)


def as_json(found: Comparison) -> str:
    """Returns all of a comparison as JSON; values that are not finite are texts such as "NaN"."""
    plain = json.dumps(dataclasses.asdict(found))
    return json.dumps(json.loads(plain, parse_constant=str), indent=1)


def as_text(found: Comparison) -> str:
    """Returns a comparison for a terminal."""
    lines: list[str] = []
    for section in sections(found):
        lines += section.lines
        lines += [line for table in section.tables for line in lay_out(table)]
    return "\n".join(lines)


def sections(found: Comparison) -> list[Section]:
    """Returns the parts of a comparison in the order in which they are shown."""
    configs = [{"seed": seed} | group.fields for group in found.groups for seed in group.seeds]
    rows = [
        [*item, ", ".join(f"{name}={_value(value)}" for name, value in config.items())]
        for item, config in zip(found.runs.items(), configs, strict=True)
    ]
    shown = [Section("Runs", tables=[Table("Groups", ["", "folder", "config"], rows)])]
    verdict = found.identity.verdict if found.identity else None
    if found.identity is not None:
        shown.append(Section("Verdict", list(_verdict(found.identity))))
    if found.facts:
        title = "Likely reasons" if verdict == identity.DIFFERENT else "Recorded facts that differ"
        rows = [[each.file, each.name, _spread(each.values, [*found.runs])] for each in found.facts]
        tables = [Table(title, ["file", "fact", "values"], rows)]
        shown.append(Section("Facts", tables=tables))
    elif verdict == identity.DIFFERENT:
        shown.append(Section("Facts", ["No recorded fact differs, so the reason is not known."]))
    if found.notes:
        shown.append(Section("Notes", found.notes))
    if found.rows and verdict != identity.IDENTICAL:
        line = _ONE_RUN_EACH if verdict else _EXPLANATION
        shown.append(Section("Final numbers", [line], _number_tables(found), is_numeric=True))
    return shown


def _verdict(found: Identity) -> Iterator[str]:
    """Yields the result of a comparison of two runs in a few lines."""
    yield (
        f"Verdict: {found.verdict}; {found.equal} of {found.numbers} numbers are equal to the last "
        "bit."
    )
    if found.first:
        first, *others = found.first
        also = f"; also {_named([value.name for value in others])}" if others else ""
        values = " and ".join(map(_value, first.values))
        yield f"First difference: {first.stage} step {first.step}, {first.name}: {values}{also}"
    elif found.verdict == identity.DIFFERENT:
        yield "Only the config or the images differ."
    for saved in found.checkpoints:
        yield f"Checkpoint {saved.stage} {saved.step}: {saved.equal} of {saved.leaves} leaves equal"
    for letter, names in zip("AB", found.only, strict=True):
        if names:
            yield f"Only in {letter}, or further there: {_named(names)}"


def _number_tables(found: Comparison) -> list[Table]:
    """Returns the final numbers, a table for each subject and what it is compared with."""
    first, *others = found.groups
    sizes = [len(group.runs) for group in found.groups]
    is_pair = found.identity is not None
    pairs = [1 if is_pair else len({*first.seeds} & {*group.seeds}) for group in others]
    columns = [f"{group.letter}, n={n}" for group, n in zip(found.groups, sizes, strict=True)]
    columns += [f"{g.letter} - A, n={n}" for g, n in zip(others, pairs, strict=True)]
    tables: dict[str, list[list[str]]] = {}
    for row in found.rows:
        subject, against, metric = row.name.split("/", 2)
        title = f"{SUBJECTS.get(subject, subject.upper())} {_AGAINST.get(against, against)}"
        cells = [_cell(mean, n) for mean, n in zip(row.means, sizes, strict=True)]
        cells += [_cell(mean, n, "+") for mean, n in zip(row.differences, pairs, strict=True)]
        tables.setdefault(title, []).append([metric, *cells])
    return [Table(title, ["", *columns], tables[title]) for title in sorted(tables)]


def _cell(found: Interval, size: int, sign: str = "") -> str:
    """Returns ``mean [low, high]``, and n where it is not `size`; with a sign, of a difference."""
    if found.mean is None:
        return "not finite" if found.not_finite else "-"
    half_width = found.half_width
    cell = _number(found.mean, half_width, sign)
    if half_width is not None:
        low, high = found.mean - half_width, found.mean + half_width
        cell += f" [{_number(low, half_width)}, {_number(high, half_width)}]"
    if sign and not found.mean and not half_width:
        cell = "equal"
    elif sign and half_width is not None and abs(found.mean) <= half_width:
        cell += f" not resolved (±{_number(half_width)})"
    return cell + ("" if found.n == size else f" (n={found.n})")


def _number(value: float, half_width: float | None = None, sign: str = "") -> str:
    """Returns a number to two digits of the half width of its interval, or to three digits."""
    decimals = 1 - math.floor(math.log10(half_width)) if half_width else 9
    if decimals < 9:
        return f"{value:{sign}z.{max(0, decimals)}f}"
    return f"{value:{sign}.0f}" if abs(value) >= 999.5 else f"{value:{sign}.3g}"


def _spread(values: Sequence[Any], labels: Sequence[str]) -> str:
    """Returns the different values, each with the runs that have it."""
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
