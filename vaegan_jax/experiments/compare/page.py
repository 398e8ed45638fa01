"""The HTML page of a comparison, in one file."""

from collections.abc import Sequence

from vaegan_jax.experiments.compare.summary import Comparison, Group, run_names
from vaegan_jax.report import page, plots


def render(comparison: Comparison) -> str:
    """Returns the page, with the newest pictures and the curves of the runs.

    Raises:
      OSError: if a picture cannot be read.
    """
    runs = run_names(comparison.groups)
    pictures: dict[str, dict[str, page.Picture]] = {}
    for stage, name in (("gan", "samples"), ("vae", "samples"), ("vae", "reconstructions")):
        for label, run in runs.items():
            if picture := page.newest(run.folder.path, stage, name):
                pictures.setdefault(f"{stage}/{name}", {})[label] = picture
    return page.render(
        "comparison.html.jinja",
        title=f"{len(runs)} runs compared",
        sections=comparison.sections,
        pictures=pictures,
        plots=_plots(comparison.groups),
    )


def _plots(groups: Sequence[Group]) -> list[str]:
    """Returns plots of distances and of learning curves, with the lines of all runs."""
    runs = []
    for index, (label, members) in enumerate(groups):
        # Every second group is dashed, so that equal lines are both visible.
        dashed = (index + index // len(plots.COLOURS)) % 2 == 1
        style = plots.Line(label, (), (), dashed, index)
        for run in members.values():
            runs.append((style, run.folder.curve(), run.folder.metrics()))
    drawn = []
    for name in plots.distance_names([line for _, curve, _ in runs for line in curve]):
        lines = [
            style._replace(x=x, y=y)
            for style, curve, _ in runs
            for _, x, y in plots.distances(curve, name, "images")
        ]
        title = f"{name} to validation images"
        drawn.append(plots.svg(lines, title, "images, both stages", name))
    for stage, shown in plots.LEARNING.items():
        for _, unit, scalars, log in shown:
            for name in scalars:
                points = [(style, plots.points(metrics, stage, name)) for style, _, metrics in runs]
                lines = [style._replace(x=x, y=y) for style, (x, y) in points if x]
                title = f"{name.replace('_', ' ')}, {stage.upper()}"
                drawn += [plots.svg(lines, title, "steps", unit, log)] if lines else []
    return drawn
