"""Curves of a run as SVG, for light and dark pages."""

import html
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cycler import cycler

from vaegan_jax import registry

_INK = "#123456"  # placeholder for the text colour of the page
COLOURS = ("#2f88d0", "#e0742f", "#2f9e6b", "#b85cae", "#b0902f", "#888888")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vaegan_jax",
    "font.family": "sans-serif",
    "font.size": 11,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), _INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLOURS),
}


class Line(NamedTuple):
    """One line of a plot; lines may share a label.

    `colour` is an index into `COLOURS`, modulo their number. Without it, the line has the next
    colour, and is a floor without markers if it is dashed.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    colour: int | None = None


def svg(lines: Sequence[Line], title: str, x_label: str, y_label: str, log: bool = False) -> str:
    """Returns a plot as a deterministic SVG element with the text colour of the page.

    With `log` the y axis is logarithmic if all values are positive.
    """
    # Imported lazily: the import takes most of a second.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            is_floor = line.dashed and line.colour is None
            few = len(line.x) < 30 and not is_floor
            axes.plot(
                line.x,
                line.y,
                label=line.label,
                linestyle="--" if line.dashed else "-",
                color=None if line.colour is None else COLOURS[line.colour % len(COLOURS)],
                marker="o" if few else None,
                markersize=4,
                linewidth=1.6,
            )
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        if log and all(value > 0 for line in lines for value in line.y):
            axes.set_yscale("log")
        handles, labels = axes.get_legend_handles_labels()
        if len(lines) > 1:
            shown = dict(zip(labels, handles, strict=True))  # one of each label
            axes.legend(shown.values(), shown.keys())
        buffer = io.StringIO()
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=none)
    element = buffer.getvalue()
    element = element[element.index("<svg") :].replace(_INK, "currentColor")
    # The page sets the width.
    element = re.sub(r' (?:width|height)="[\d.]+pt"', "", element, count=2)
    return element.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def distance_names(curve: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the names of the Frechet distances in the lines of curve.jsonl."""
    return list(filter(is_distance, dict.fromkeys(name for line in curve for name in line)))


def is_distance(name: str) -> bool:
    """Whether a number of curve.jsonl is a Frechet distance."""
    return name.startswith(("fd_", "fid_")) and not name.endswith("_floor")


def points(
    lines: Sequence[dict[str, Any]], stage: str, name: str, x: str = "step"
) -> tuple[list[float], list[float]]:
    """Returns the steps, or another x, and the values of a scalar of a stage from JSONL lines."""
    found = [line for line in lines if line["stage"] == stage and name in line]
    return [line[x] for line in found], [line[name] for line in found]


def distances(
    curve: Sequence[dict[str, Any]], name: str, cost: str
) -> Iterator[tuple[str, list[float], list[float]]]:
    """Yields the stage, costs and distances of each stage; the GAN's cost includes the VAE's."""
    spent = 0.0
    for stage in ("vae", "gan"):
        costs, values = points(curve, stage, name, cost)
        if costs:
            yield stage, [spent + cost for cost in costs], values
            spent += costs[-1]


def distance_plots(curve: Sequence[dict[str, Any]]) -> list[str]:
    """Plots Frechet distances to validation images against images seen and against seconds.

    The GAN's line starts where the VAE's ends. Its first point, at step 0, is the matched decoder.
    """
    plots = []
    for name in distance_names(curve):
        for cost, unit in (("images", "images seen"), ("seconds", "seconds of training")):
            lines = [Line(f"{stage.upper()} samples", x, y)
                     for stage, x, y in distances(curve, name, cost)]  # fmt: skip
            floors = [line[f"{name}_floor"] for line in curve if f"{name}_floor" in line]
            if floors:
                lines.append(Line("real images", [0, lines[-1].x[-1]], [floors[-1]] * 2, True))
            plots.append(svg(lines, f"{name} to validation images", f"{unit}, both stages", name))
    return plots


LEARNING: dict[str, tuple[tuple[str, str, tuple[str, ...], bool], ...]] = {
    "vae": (
        ("Loss of the VAE", "nats per image", ("loss", "reconstruction", "kl"), True),
        ("Gradient of the VAE", "norm", ("gradient_norm",), True),
        ("Active units per batch", "latent dimensions", ("active_units",), False),
        ("Sharpness of reconstructions", "relative to real images", ("sharpness",), True),
    ),
    "gan": (
        ("Losses of the GAN", "nats", ("discriminator_loss", "generator_loss"), False),
        ("Discriminator's AUC", "fraction of pairs", ("discriminator_auc",), False),
        ("Discriminator's logits", "mean logit", ("real_logit", "fake_logit"), False),
        ("Gradients", "norm", ("discriminator_gradient_norm", "generator_gradient_norm"), True),
        ("Diversity", "relative to real images", ("diversity", "feature_diversity"), False),
        ("Sharpness of fakes", "relative to real images", ("sharpness",), True),
    ),
}
"""Learning curves by stage: (title, y label, scalars, logarithmic y axis)."""


def learning_plots(metrics: Sequence[dict[str, Any]], stage: str) -> list[str]:
    """Returns the curves of a stage from the lines of metrics.jsonl, those of terms last."""
    built_in = [name for kind in registry.TERM_OPTIONS for name in registry.BUILT_IN[kind]]
    names = dict.fromkeys(name for line in metrics if line["stage"] == stage for name in line)
    terms = [
        (f"Term {name}", "mean over the batch", (name,), True)
        for name in names
        if name in built_in or registry.is_path(name)
    ]
    plots = []
    for title, unit, scalars, log in (*LEARNING[stage], *terms):
        lines = [
            Line(name.replace("_", " "), *points(metrics, stage, name))
            for name in scalars
            if name in names
        ]
        plots += [svg(lines, title, "steps", unit, log)] if lines else []
    return plots
