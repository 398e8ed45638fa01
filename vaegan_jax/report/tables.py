"""Tables of an evaluation's numbers, for the terminal and the report."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from vaegan_jax.evaluation.number import SUBJECTS as SUBJECTS
from vaegan_jax.evaluation.number import format_value


class Table(NamedTuple):
    """A table of strings; the note names the rows that are left out."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


def make(evaluation: dict[str, Any]) -> list[Table]:
    """Returns the tables of the contents of `evaluation/numbers.json`."""
    numbers: list[dict[str, Any]] = evaluation["numbers"]
    tables = []
    for embedding in dict.fromkeys(n["embedding"] for n in numbers if n["embedding"]):
        chosen = [n for n in numbers if n["embedding"] == embedding]
        real = {n["against"]: n["reference_count"] for n in chosen if n["against"]}
        title = f"{embedding}, against {real['test']} test images"
        if "train" in real:
            searched = f"{real['train']} of {evaluation['data']['train']}"
            title += f" and, for copies, {searched} training images"
        tables.append(_subject_table(title, chosen))
    if chosen := [n for n in numbers if not n["embedding"] and n["subject"] in SUBJECTS]:
        tables.append(_subject_table("Pixels", chosen))
    rows = [[n["metric"], with_error(n), str(n["count"])] for n in numbers if n["subject"] == "vae"]
    if rows:
        tables.append(Table("Likelihood and latent space", ["", "value", "count"], rows))
    return tables


def _subject_table(title: str, numbers: Sequence[dict[str, Any]]) -> Table:
    """Returns a table with one column per set and a floor column.

    If the floors of a metric differ between sets, each cell shows its floor instead.
    """
    subjects = [name for name in SUBJECTS if any(n["subject"] == name for n in numbers)]
    by_metric: dict[str, dict[str, dict[str, Any]]] = {}
    for n in numbers:
        by_metric.setdefault(n["metric"], {})[n["subject"]] = n
    counts = sorted({n["count"] for n in numbers})
    title += f", {' and '.join(map(str, counts))} of each"
    rows, omitted = [], []
    for metric, by_subject in by_metric.items():
        if not any(n["informative"] for n in by_subject.values()):
            omitted.append(metric)
            continue
        cells = {name: with_error(n) for name, n in by_subject.items()}
        floors = {name: _floor(n) for name, n in by_subject.items()}
        shared = {*floors.values()}
        if len(shared) > 1:
            cells = {name: f"{cell} (floor: {floors[name]})" for name, cell in cells.items()}
            shared = {"see each"}
        rows.append([metric, *(cells.get(name, "") for name in subjects), *shared])
    note = f"Not informative (at 0 or 1 within the error): {', '.join(omitted)}."
    columns = ["", *(SUBJECTS[name] for name in subjects), "floor"]
    return Table(title, columns, rows, note if omitted else "")


def _floor(number: dict[str, Any]) -> str:
    if number["floor"] is None and number["against"]:
        return "none at this count"
    return format_value(number["floor"])


def with_error(number: dict[str, Any]) -> str:
    """Formats ``value ± standard error``; both are rounded to two digits of the error."""
    value, error = number["value"], number["error"]
    if value is None:
        return "not finite"
    if not number.get("informative", True):
        return "≈ 0" if value < 0.5 else "≈ 1"
    if error is None:
        return rounded(value)
    return f"{rounded(value, error)} ± {rounded(error, error)}"


def rounded(value: float, error: float = 0.0, sign: str = "") -> str:
    """Rounds to two digits of the error, or to three digits if that is 0 or NaN."""
    if error > 0:
        decimals = max(0, 1 - int(f"{error:.1e}".partition("e")[2]))
        return f"{value:{sign}z.{decimals}f}"
    return f"{value:{sign}.0f}" if abs(value) >= 999.5 else f"{value:{sign}.3g}"


def remarks(evaluation: dict[str, Any]) -> str:
    """Returns what the errors of an evaluation cover, and whether its test images are unseen."""
    text = (
        "± is one standard error over other samples of the same weights; another seed or machine "
        "changes the numbers by more."
    )
    if evaluation["data"]["is_test_unseen"]:
        return text
    return (
        f"{text} There are too few images for a validation part, so the test images also served "
        "during training, and the numbers are not of unseen images."
    )


def as_text(evaluation: dict[str, Any]) -> str:
    """Returns the tables for a terminal."""
    names = " and ".join(embedding["name"] for embedding in evaluation["embeddings"])
    lines = [f"evaluated with {names}. {remarks(evaluation)}"]
    for table in make(evaluation):
        lines += lay_out(table)
    return "\n".join(lines)


def lay_out(table: Table) -> list[str]:
    """Returns the lines of a table for a terminal, with the title first."""
    cells = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = [f"  {table.title}"]
    for first, *others in cells:
        padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(("    " + "  ".join([first.ljust(widths[0]), *padded])).rstrip())
    return [*lines, f"    {table.note}"] if table.note else lines
