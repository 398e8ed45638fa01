"""The HTML page of a comparison, in one file."""

import pathlib
from collections.abc import Sequence

from vaegan_jax.experiments.compare import records, summary
from vaegan_jax.experiments.compare.records import CURVE, TRAINED, Run
from vaegan_jax.experiments.compare.summary import Comparison
from vaegan_jax.report import page, plots
from vaegan_jax.report.page import Picture, as_uri
from vaegan_jax.workdir import pictures_by_step

Values = dict[tuple[str, str], dict[int, float]]
"""Values of one run by (stage, name), then by step."""

_PICTURES = (
    ("gan", "samples", "Samples of the GAN (EMA of the generator)"),
    ("vae", "samples", "Samples of the VAE's decoder"),
    ("vae", "reconstructions", "Held-out images, with reconstructions below"),
)


def render(runs: Sequence[Run], comparison: Comparison) -> str:
    """Returns the page, with the pictures of the runs.

    Raises:
      OSError: if a picture cannot be read.
    """
    by_name = {run.name: records.series(run.records) for run in runs}
    groups = {group.label: [by_name[name] for name in group.runs] for group in comparison.groups}
    return page.render(
        pathlib.Path(__file__).with_name("comparison.html.jinja"),
        title=f"{len(comparison.runs)} runs compared",
        sections=summary.sections(comparison),
        pictures=_pictures(comparison.runs),
        plots=_plots(groups),
    )


def _pictures(runs: dict[str, str]) -> list[tuple[str, list[Picture]]]:
    """Returns the newest pictures of each run, by caption."""
    shown = []
    for stage, name, caption in _PICTURES:
        pictures = []
        for label, run in runs.items():
            steps = pictures_by_step(pathlib.Path(run), stage, name)
            if steps:
                last = max(steps)
                pictures.append(Picture(as_uri(steps[last]), f"{label}, step {last}"))
        shown += [(caption, pictures)] if pictures else []
    return shown


def _plots(groups: dict[str, list[Values]]) -> list[str]:
    """Returns plots of the distances of the curve and of the learning curves."""
    drawn = []
    names = dict.fromkeys(name for runs in groups.values() for run in runs for _, name in run)
    for name in filter(records.is_distance, names):
        metric = name.removeprefix(CURVE)
        lines = _lines(groups, TRAINED, name, f"{CURVE}images")
        title = f"{metric} to validation images"
        drawn.append(plots.svg(lines, title, "images, both stages", metric))
    for stage in TRAINED:
        for _, unit, scalars, log in plots.LEARNING[stage]:
            for name in scalars:
                if lines := _lines(groups, (stage,), name):
                    title = f"{name.replace('_', ' ')}, {stage.upper()}"
                    drawn.append(plots.svg(lines, title, "steps", unit, log))
    return drawn


def _lines(
    groups: dict[str, list[Values]], stages: Sequence[str], name: str, cost: str = ""
) -> list[plots.Line]:
    """Returns one line per run and stage over steps or a `cost`, in the colour of the group."""
    lines: list[plots.Line] = []
    for index, (name_of_group, runs) in enumerate(groups.items()):
        label = name_of_group  # only the first line of a group has a label
        # Every second group is dashed, so that equal lines are both visible.
        dashed = (index + index // len(plots.COLOURS)) % 2 == 1
        for run in runs:
            spent = 0.0  # cost of the previous stages
            for stage in stages:
                values = run.get((stage, name), {})
                costs = run.get((stage, cost), {}) if cost else {x: x for x in values}
                x = [spent + costs[step] for step in values if step in costs]
                y = [values[step] for step in values if step in costs]
                if x:
                    lines.append(plots.Line(label, x, y, dashed, index))
                    label, spent = "", x[-1]
    return lines
