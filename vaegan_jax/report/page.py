"""The report of a run as one self-contained HTML file."""

import base64
import pathlib
from typing import Any, NamedTuple

import jinja2

from vaegan_jax import config as configuration
from vaegan_jax.evaluation import latent_use
from vaegan_jax.report import plots, tables
from vaegan_jax.workdir import DATA, ENVIRONMENT, LATENT, Workdir, pictures_by_step

_NEAREST = (
    "From top to bottom: samples, nearest training images, nearest test images. The top three rows "
    "show the samples nearest to a training image, relative to the distance between that image and "
    "its nearest neighbour."
)
_RECONSTRUCTIONS = "Rows of validation images alternate with rows of their reconstructions"
_INTERPOLATIONS = "Spherical interpolations between two latents per row, through"
_TRAVERSALS = "The most active latent dimensions, one per row, from -3 to 3 deviations, through"


class Picture(NamedTuple):
    """A picture on a page; `source` is a data URI."""

    source: str
    caption: str


def make(folder: Workdir) -> str:
    """Returns the report of a finished or unfinished run as HTML, from the files in its folder.

    Raises:
      UserError: if a file is damaged.
    """
    config = folder.config()
    metrics = folder.metrics()
    evaluation, latent = folder.evaluation(), folder.read_json(LATENT)
    return render(
        pathlib.Path(__file__).with_name("report.html.jinja"),
        name=folder.path.absolute().name,
        title=f"{folder.path.absolute().name}: VAE and GAN",
        stages={
            stage.upper(): (of_stage[-1], config[f"{stage}.steps"])
            for stage in ("vae", "gan")
            if (of_stage := folder.metrics(stage))
        },
        evaluation=evaluation,
        embedding_names=tables.embedding_names(evaluation) if evaluation else "",
        remarks=tables.remarks(evaluation) if evaluation else "",
        troubles=folder.troubles(),
        latent=latent_use.summary(latent) if latent else "",
        vae_source=vae_source(folder),
        best=best(folder),
        tables=tables.make(evaluation) if evaluation else [],
        meanings=tables.MEANINGS.items(),
        samples=_samples(folder, evaluation),
        nearest=_evaluated(folder, "nearest", _NEAREST),
        pictures=_pictures(folder),
        distances=plots.distance_plots(folder.curve()),
        learning=[x for stage in ("vae", "gan") for x in plots.learning_plots(metrics, stage)],
        differences=[
            (name, config[name], field.default)
            for name, field in sorted(configuration.FIELDS.items())
            if name in config and config[name] != field.default
        ],
        config=sorted(config.items()),
        data=folder.read_json(DATA),
        environment=folder.read_json(ENVIRONMENT),
        events=folder.events(),
    )


def best(folder: Workdir) -> str:
    """Returns where the GAN's curve is smallest; "" if it has none."""
    metric, step = folder.smallest_distance("gan")
    if step is None:
        return ""
    return f"best checkpoint: step {step}, where {metric} to validation images is smallest"


def vae_source(folder: Workdir) -> str:
    """Returns whose VAE a run with ``transfer.vae`` uses; "" if it trained its own."""
    source = (folder.read_json(ENVIRONMENT) or {}).get("vae")
    if not source:
        return ""
    seen = "the same images"
    if not source["same_images"]:
        seen = "other images or another split, so it may have seen this run's test images"
    return (
        f"VAE: not trained here, but taken from {source['source']}, step {source['step']}, trained "
        f"on {seen} (sha256 of its parameters {source['sha256'][:16]})"
    )


def render(template: pathlib.Path, **values: Any) -> str:
    """Returns a template filled with values; it may include the templates of this folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, pathlib.Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(template.name).render(values)
    return page


def _samples(folder: Workdir, evaluation: dict[str, Any] | None) -> list[Picture]:
    """Returns samples of all evaluated networks side by side, or those of the last steps."""
    subjects = {number["subject"] for number in evaluation["numbers"]} if evaluation else set()
    labels = [label for name, label in tables.SUBJECTS.items()
              if name in subjects and name.endswith("samples")]  # fmt: skip
    caption = f"Samples at equal latents, one row each: {', '.join(labels)}."
    return _evaluated(folder, "side_by_side", caption) or [
        *newest(folder.path, "vae", "samples", "Samples of the VAE's decoder"),
        *newest(folder.path, "gan", "samples", "Samples of the GAN's generator (EMA)"),
    ]


def _pictures(folder: Workdir) -> list[Picture]:
    shown = newest(folder.path, "vae", "reconstructions", _RECONSTRUCTIONS)
    for stage, label in (("vae", "the VAE's decoder"), ("gan", "the GAN's generator")):
        shown += newest(folder.path, stage, "interpolations", f"{_INTERPOLATIONS} {label}")
        shown += _evaluated(folder, f"traversals_{stage}", f"{_TRAVERSALS} {label}")
    return shown


def newest(path: pathlib.Path, stage: str, name: str, caption: str) -> list[Picture]:
    """Returns the latest picture with this name of a stage of the run in a folder, if any."""
    steps = pictures_by_step(path, stage, name)
    return [Picture(as_uri(steps[last]), f"{caption}; step {last}.") for last in sorted(steps)[-1:]]


def _evaluated(folder: Workdir, name: str, caption: str) -> list[Picture]:
    """Returns a picture of the evaluation, if there is one."""
    path = folder.path / "evaluation" / f"{name}.png"
    return [Picture(as_uri(path), caption)] if path.exists() else []


def as_uri(path: pathlib.Path) -> str:
    """Returns a PNG picture as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
