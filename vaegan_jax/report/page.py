"""The report of a run as one self-contained HTML file."""

import base64
import pathlib
from typing import Any, NamedTuple

import jinja2

from vaegan_jax import config as configuration
from vaegan_jax.evaluation import latents
from vaegan_jax.report import plots, tables
from vaegan_jax.workdir import BEST_FACTS, DATA, ENVIRONMENT, LATENT, Workdir, pictures_by_step


class Picture(NamedTuple):
    """A picture on a page, as a data URI, and the step at which it was drawn during training."""

    source: str
    step: int | None = None


def make(folder: Workdir) -> str:
    """Returns the report of a finished or unfinished run as HTML, from the files in its folder.

    Raises:
      UserError: if a file is damaged.
    """
    config = folder.config()
    metrics = folder.metrics()
    evaluation, latent = folder.evaluation(), folder.read_json(LATENT)
    return render(
        "report.html.jinja",
        name=folder.path.absolute().name,
        title=f"{folder.path.absolute().name}: VAE and GAN",
        stages={
            stage.upper(): (of_stage[-1], config[f"{stage}.steps"])
            for stage in ("vae", "gan")
            if (of_stage := folder.metrics(stage))
        },
        evaluation=evaluation,
        tables=tables,
        troubles=folder.troubles(),
        latent=latents.use_summary(latent) if latent else "",
        vae_source=vae_source(folder),
        best=best(folder),
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
    """Returns which step of the GAN is the best; "" if that is not known."""
    facts = folder.read_json(BEST_FACTS)
    if not facts:
        return ""
    metric, smallest, last = (facts[x] for x in ("metric", "smallest_step", "last_step"))
    text = f"best checkpoint: {metric} to validation images was smallest at step {smallest}"
    if smallest == last:
        return f"{text}, the last"
    if not facts["samples"]:
        return f"{text} of {last}, which was not kept"
    change = (
        f"it is {facts['difference']:.3g} ± {facts['error']:.2g} larger at the last step, {last}, "
        f"from {facts['samples']} other samples of each"
    )
    if facts["step"] == last:
        return f"{text}; {change}, which is no resolved difference"
    return f"{text}, and more training made it worse: {change}. --step best uses that checkpoint"


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


def render(template: str, **values: Any) -> str:
    """Returns a template of this folder filled with values."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(template).render(values)
    return page


def _pictures(folder: Workdir) -> dict[str, Picture | None]:
    """Returns the newest pictures by stage and name, and those of the evaluation by name."""
    pictures = {
        f"{stage}/{name}": newest(folder.path, stage, name)
        for stage in ("vae", "gan")
        for name in ("samples", "reconstructions", "interpolations")
    }
    for path in (folder.path / "evaluation").glob("*.png"):
        pictures[path.stem] = Picture(as_uri(path))
    return pictures


def newest(path: pathlib.Path, stage: str, name: str) -> Picture | None:
    """Returns the latest picture with this name of a stage of the run in a folder, if any."""
    steps = pictures_by_step(path, stage, name)
    return Picture(as_uri(steps[max(steps)]), max(steps)) if steps else None


def as_uri(path: pathlib.Path) -> str:
    """Returns a PNG picture as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
