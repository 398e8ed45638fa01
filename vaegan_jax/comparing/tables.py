"""Comparisons as tables, for the terminal and for the page."""

import math
from collections.abc import Iterable

from vaegan_jax.comparing import many, student, two
from vaegan_jax.comparing.leaves import LeafDifference
from vaegan_jax.evaluation.number import text
from vaegan_jax.report.tables import SUBJECTS, Table, with_error

_AGAINST = {
    "held_out": "held-out images",
    "train": "training images",
    "statistics": "the statistics file",
}
_SHORT = 12
_LEAST_P = 0.001


def of_config(found: two.Comparison) -> list[Table]:
    """Returns which fields and facts differ between two runs."""
    differing = (
        ("Config", found.config),
        ("Config, fields on which nothing that is trained depends", found.free),
        ("Environment (run.json)", found.environment),
        ("Images (data.json)", found.data),
        ("What the evaluations were made with", found.evaluation.conditions),
        ("Troubles that only one run had", found.troubles),
    )
    return [
        Table(title, ["", "A", "B"], [[name, two.value(a), two.value(b)] for name, a, b in pairs])
        for title, pairs in differing
        if pairs
    ]


def of_bits(found: two.Comparison, most: int | None = None) -> list[Table]:
    """Returns where the bits of two runs differ: first lines, checkpoints, leaves.

    Args:
      found: the comparison.
      most: of the leaves, those that differ most; all if not given.
    """
    tables = []
    for lines, name in ((found.metrics, "metrics"), (found.curve, "curve")):
        if lines.first and lines.first.scalars:
            title = f"First line of {name} that differs: {lines.first.stage} {lines.first.step}"
            rows = [[name, two.value(a), two.value(b)] for name, a, b in lines.first.scalars]
            tables.append(Table(title, ["", "A", "B"], rows))
    saved = found.checkpoints
    if saved.compared:
        rows = [
            [f"{c.stage} {c.step}", c.a[:_SHORT], c.b[:_SHORT], "yes" if c.a == c.b else "no"]
            for c in saved.compared
        ]
        tables.append(Table("Checkpoints, by digest", ["", "A", "B", "same"], rows))
    if saved.first:
        shown = sorted(saved.leaves, key=_by_size)[:most]
        title = "Leaves that differ in the checkpoint {} {}".format(*saved.first)
        if len(shown) < len(saved.leaves):
            title += f", the {len(shown)} that differ most of {len(saved.leaves)}"
        columns = ["", "", "differing", "of", "largest difference", "in ulps", "not finite"]
        tables.append(Table(title, columns, [_leaf(leaf) for leaf in shown]))
    return tables


def of_numbers(found: two.Comparison) -> list[Table]:
    """Returns the numbers of two evaluations side by side."""
    tables = []
    numbers = found.evaluation.numbers
    for place in dict.fromkeys((n.subject, n.against) for n in numbers):
        rows = []
        for n in numbers:
            if (n.subject, n.against) == place:
                apart = "same" if n.same else ""
                if not n.same and n.a is not None and n.b is not None:
                    apart = f"{n.b - n.a:+.3g}"
                a = with_error({"value": n.a, "error": n.a_error})
                b = with_error({"value": n.b, "error": n.b_error})
                rows.append([n.metric, a, b, apart])
        tables.append(Table(_title(*place), ["", "A", "B", "B - A"], rows))
    return tables


def of_groups(found: many.Comparison) -> list[Table]:
    """Returns what is compared, and the ranking."""
    rows = [
        [group.letter, group.text, str(len(group.runs)), " ".join(map(str, group.seeds))]
        for group in found.groups
    ]
    tables = [Table("What is compared", ["", "what sets it apart", "runs", "seeds"], rows)]
    if found.main is not None:
        ranking = [
            [f"{i}. {place.group}", _mean(place.mean), _difference(place.from_best), place.text]
            for i, place in enumerate(found.ranking, 1)
        ]
        title = f"Ranking by {found.main.text}, lower is nearer"
        tables.append(Table(title, ["", "mean", "from the best", ""], ranking))
    return tables


def of_means(found: many.Comparison) -> list[Table]:
    """Returns the mean of every quantity over the seeds, the groups beside one another."""
    letters = [group.letter for group in found.groups]
    sizes = {group.letter: len(group.runs) for group in found.groups}
    places: dict[tuple[str, str, str], dict[str, dict[str, many.Summary]]] = {}
    for summary in found.summaries:
        source, subject, against, metric = summary.quantity
        by_metric = places.setdefault((source, subject, against), {})
        by_metric.setdefault(metric, {})[summary.group] = summary
    tables = []
    for (source, subject, against), by_metric in places.items():
        rows = [
            [metric, *(_cell(of_group[letter], sizes[letter]) for letter in letters)]
            for metric, of_group in by_metric.items()
        ]
        title = _title(subject, against) + (", end of the curve" if source == "curve" else "")
        tables.append(Table(title, ["", *letters], rows))
    return tables


def of_contrasts(found: many.Comparison) -> list[Table]:
    """Returns the paired t tests, a table for each pair of groups."""
    tables = []
    for a, b in dict.fromkeys((c.a, c.b) for c in found.contrasts):
        rows = [
            [
                contrast.quantity.text,
                _difference(contrast.difference),
                _p(contrast.difference.p),
                str(contrast.difference.n),
                "within noise" if contrast.difference.within_noise else "",
            ]
            for contrast in found.contrasts
            if (contrast.a, contrast.b) == (a, b) and contrast.difference is not None
        ]
        if rows:
            title = f"{b} less {a}, seed by seed"
            tables.append(Table(title, ["", "difference", "p", "seeds", ""], rows))
    return tables


def unpaired(found: many.Comparison) -> list[str]:
    """Says which pairs of groups have too few seeds in common to be tested."""
    tested = {(c.a, c.b) for c in found.contrasts if c.difference is not None}
    return [
        f"{a} and {b} have fewer than two seeds in common: no telling what is noise."
        for a, b in dict.fromkeys((c.a, c.b) for c in found.contrasts)
        if (a, b) not in tested
    ]


def lonely(groups: Iterable[many.Group]) -> list[str]:
    """Says which groups have but one run."""
    return [
        f"{group.letter} is one run, so that it has no interval."
        for group in groups
        if len(group.runs) == 1
    ]


def _title(subject: str, against: str) -> str:
    name = "VAE as a density" if subject == "vae" else SUBJECTS.get(subject, subject)
    if not against:
        return name if subject == "vae" else f"{name} by themselves"
    return f"{name} against {_AGAINST.get(against, against)}"


def _by_size(leaf: LeafDifference) -> tuple[bool, bool, float]:
    """Puts leaves first that cannot be subtracted, and then those that are furthest apart."""
    return leaf.differing is not None, not leaf.not_finite, -(leaf.absolute or 0.0)


def _leaf(leaf: LeafDifference) -> list[str]:
    if leaf.a is None or leaf.b is None:
        only = f"only in A, {leaf.a}" if leaf.b is None else f"only in B, {leaf.b}"
        return [leaf.name, only, *[""] * 5]
    if leaf.differing is None:
        return [leaf.name, f"{leaf.a} in A, {leaf.b} in B", *[""] * 5]
    return [
        leaf.name,
        leaf.a,
        str(leaf.differing),
        str(leaf.size),
        text(leaf.absolute),
        "" if leaf.ulps is None else str(leaf.ulps),
        str(leaf.not_finite or ""),
    ]


def _cell(summary: many.Summary, size: int) -> str:
    if summary.mean is None:
        return "not finite" if summary.missing else ""
    missing = f" ({summary.mean.n} of {size} runs)" if summary.missing else ""
    return _mean(summary.mean) + missing


def _mean(mean: student.Mean) -> str:
    return _interval(mean.mean, mean.low, mean.high)


def _difference(difference: student.Difference | None) -> str:
    if difference is None:
        return ""
    return _interval(difference.mean, difference.low, difference.high, "+")


def _interval(mean: float, low: float | None, high: float | None, sign: str = "") -> str:
    """Returns ``mean [low, high]``, to two digits of half the interval's length."""
    if low is None or high is None:
        return text(mean)
    reach = (high - low) / 2
    if not 0 < reach < math.inf:
        return f"{text(mean)} [{text(low)}, {text(high)}]"
    decimals = 1 - math.floor(math.log10(reach))
    if decimals > 5:
        return f"{mean:{sign}.2e} [{low:.2e}, {high:.2e}]"
    decimals = max(0, decimals)
    return f"{mean:{sign}.{decimals}f} [{low:z.{decimals}f}, {high:z.{decimals}f}]"


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return f"< {_LEAST_P}" if p < _LEAST_P else f"{p:.2g}"
