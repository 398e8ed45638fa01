"""Curves of several runs in one plot, as SVG."""

import math
from collections.abc import Sequence

from vaegan_jax.comparing.many import COSTS, Curve
from vaegan_jax.comparing.runs import STAGES, Line
from vaegan_jax.report import plots

_UNITS = {"images": "images seen, both stages", "seconds": "seconds of training, both stages"}


def learning(a: Sequence[Line], b: Sequence[Line]) -> list[str]:
    """Returns a plot of each scalar of metrics.jsonl that the report shows, of A and of B.

    B has gaps, so that A shows through where the two are the same.
    """
    drawn = []
    for stage in STAGES:
        for _, unit, names, log in plots.LEARNING[stage]:
            for name in names:
                lines = []
                for label, metrics in (("A", a), ("B", b)):
                    of_run = [x for x in metrics if x["stage"] == stage and name in x]
                    steps, values = [x["step"] for x in of_run], [x[name] for x in of_run]
                    lines.append(plots.Line(label, steps, values, broken=label == "B"))
                if any(line.x for line in lines):
                    title = f"{name.replace('_', ' ')}, {stage.upper()}"
                    drawn.append(plots.svg(lines, title, "steps", unit, log))
    return drawn


def distances(curves: Sequence[Curve], broken: Sequence[str] = ()) -> list[str]:
    """Returns a plot of each distance against each cost, a line and its band for each group.

    Args:
      curves: of all groups; the VAE's comes before the GAN's, with a gap between them.
      broken: the groups whose lines have gaps, for others to show through.
    """
    drawn = []
    for metric in dict.fromkeys(curve.metric for curve in curves):
        of_metric = [curve for curve in curves if curve.metric == metric]
        for cost in COSTS:
            lines = [
                _line(group, [c for c in of_metric if c.group == group], cost, group in broken)
                for group in dict.fromkeys(curve.group for curve in of_metric)
            ]
            title = f"{metric} to held-out images"
            drawn.append(plots.svg(lines, title, _UNITS[cost], metric))
    return drawn


def _line(group: str, curves: Sequence[Curve], cost: str, broken: bool) -> plots.Line:
    """Joins the stages of a group, with a gap where one ends."""
    gap = [math.nan]
    x: list[float] = []
    y: list[float] = []
    low: list[float] = []
    high: list[float] = []
    for curve in curves:
        x += [*(curve.images if cost == "images" else curve.seconds), *gap]
        y += [*curve.means, *gap]
        low += [*(curve.low or ()), *(gap if curve.low else ())]
        high += [*(curve.high or ()), *(gap if curve.high else ())]
    return plots.Line(group, x, y, False, low, high, broken)
