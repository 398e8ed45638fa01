"""The report: one HTML file, made of what a run's folder holds, that opens anywhere."""

import base64
import pathlib
from typing import Any, NamedTuple

import jinja2

from vaegan_jax import config as configuration
from vaegan_jax.evaluation import latent_use
from vaegan_jax.report import plots, tables
from vaegan_jax.workdir import DATA, ENVIRONMENT, LATENT, Workdir, pictures_by_step

_TEMPLATE = "report.html.jinja"
_STAGES = {"vae": "VAE", "gan": "GAN"}


class Picture(NamedTuple):
    """A picture on the page.

    Attributes:
      source: it, as a data URI.
      caption: what it shows.
    """

    source: str
    caption: str


def make(folder: Workdir) -> str:
    """Returns the report of a run as HTML, whatever of the run is there yet.

    It reads files alone: the same folder gives the same page.

    Raises:
      UserError: where one of these files is damaged.
    """
    config = folder.config()
    defaults = {name: field.default for name, field in configuration.FIELDS.items()}
    metrics, curve = folder.metrics(), folder.curve()
    evaluation, latent = folder.evaluation(), folder.read_json(LATENT)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(_TEMPLATE).render(
        name=folder.path.absolute().name,
        title=f"{folder.path.absolute().name}: VAE and GAN",
        stages=[
            facts for stage in _STAGES if (facts := _stage(stage, config, metrics)) is not None
        ],
        evaluation=evaluation,
        troubles=folder.troubles(),
        latent=latent_use.advice(latent) if latent else "",
        tables=tables.make(evaluation) if evaluation else [],
        meanings=tables.MEANINGS.items(),
        samples=_samples(folder),
        nearest=_evaluated(
            folder,
            "nearest",
            "Rows of three: samples, the training image nearest to each, the held-out image "
            "nearest to each, of those compared with. The upper three rows are the samples that "
            "lie nearest to a training image, for how near that one is to its own neighbours.",
        ),
        pictures=_pictures(folder),
        distances=plots.distance_plots(curve),
        learning={stage: plots.learning_plots(metrics, stage) for stage in _STAGES},
        differences=[
            (name, config[name], defaults[name])
            for name in sorted(config)
            if name in defaults and config[name] != defaults[name]
        ],
        config=sorted(config.items()),
        data=folder.read_json(DATA),
        environment=folder.read_json(ENVIRONMENT),
        events=folder.events(),
    )
    return page


def _stage(
    stage: str, config: dict[str, Any], metrics: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Returns what is to be said of a stage in a line, or None where it has not begun."""
    lines = [line for line in metrics if line["stage"] == stage]
    if not lines:
        return None
    last = lines[-1]
    return {
        "name": _STAGES[stage],
        "step": last["step"],
        "steps": config[f"{stage}.steps"],
        "seconds": f"{last['seconds']:.0f}",
        "images_per_second": f"{last['images_per_second']:.0f}",
    }


def _samples(folder: Workdir) -> list[Picture]:
    """Returns decoder beside generator for the same latents, or what there is of the two."""
    beside = _evaluated(
        folder,
        "side_by_side",
        "Matching latents through both: each row of the VAE's decoder stands above the row of the "
        "GAN's generator (its running average), which began as that decoder.",
    )
    if beside:
        return beside
    return _newest(folder, "vae", "samples", "Samples of the VAE's decoder") + _newest(
        folder, "gan", "samples", "Samples of the GAN's generator (its running average)"
    )


def _pictures(folder: Workdir) -> list[Picture]:
    shown = _newest(
        folder,
        "vae",
        "reconstructions",
        "Held-out images, each row above the row of what the decoder makes of their posterior "
        "means",
    )
    for stage, label in (("vae", "the VAE's decoder"), ("gan", "the GAN's generator")):
        shown += _newest(
            folder,
            stage,
            "interpolations",
            f"From one latent to another through {label}, a pair a row",
        )
        shown += _evaluated(
            folder,
            f"traversals_{stage}",
            "The most active latent dimensions, one a row, from three standard deviations below "
            f"the mean to three above, through {label}",
        )
    return shown


def _newest(folder: Workdir, stage: str, name: str, caption: str) -> list[Picture]:
    """Returns the last picture of a name that a stage has drawn, if any."""
    steps = pictures_by_step(folder.path, stage, name)
    if not steps:
        return []
    last = max(steps)
    return [Picture(as_uri(steps[last]), f"{caption}; step {last}.")]


def _evaluated(folder: Workdir, name: str, caption: str) -> list[Picture]:
    """Returns a picture of the newest evaluation, if there is one."""
    path = folder.evaluation_folder / f"{name}.png"
    return [Picture(as_uri(path), caption)] if path.exists() else []


def as_uri(path: pathlib.Path) -> str:
    """Returns a PNG picture as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
