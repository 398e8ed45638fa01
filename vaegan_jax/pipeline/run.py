"""A run, top to bottom: data, VAE, transfer, GAN, evaluation, report."""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from vaegan_jax import checkpoints, registry, trained, workdir
from vaegan_jax import config as configuration
from vaegan_jax.config import recipe, resume
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import latents
from vaegan_jax.evaluation.evaluate import make_measure
from vaegan_jax.losses import signatures
from vaegan_jax.pipeline import STAGES, best, evaluate, starts, vae_source
from vaegan_jax.pipeline.stages import check_terms, make_gan_stage, make_vae_stage
from vaegan_jax.report import page, tables
from vaegan_jax.runtime import environment, parallel
from vaegan_jax.training import loop


def train_and_evaluate(
    config: ConfigDict,
    path: pathlib.Path,
    stages: Sequence[str] = STAGES,
    profile: bool = False,
    variant: str = "",
    siblings: Sequence[pathlib.Path] = (),
) -> None:
    """Runs a config in a workdir, skipping finished stages, and writes the report.

    Args:
      config: a config from `default_config`, possibly with overrides.
      path: the workdir.
      stages: a subset of `STAGES`.
      profile: whether to save a profile of some steps of each stage in the workdir.
      variant: the run's name in a sweep, which run.json records.
      siblings: folders of other runs; the VAE is copied from one that has the same.

    Raises:
      UserError: for errors that the user can correct.
      Stopped: after a signal during training; all progress is saved.
    """
    # Whatever can be refused is refused before anything is computed.
    configuration.check(config)
    saved = workdir.Reader(path).config()
    config = recipe.keep(config, saved)
    training = _unfinished_stages(config, path, stages)
    source = vae_source.load(config) if training else None
    config = vae_source.with_fields(config, saved, source)
    workdir.require_usable(path, config)
    if training:
        vae_source.require_same(path, source)
    initial = starts.load(config, path, training)
    sources = _check_sources(config, path, initial, training)

    data = images.load(config.data)
    config = recipe.resolve(config, len(data.train), data.shape)
    configuration.check(config)
    _check_batch_sizes(config, data, training)
    embeddings = evaluate.load_embeddings(config, data, required=tuple(stages) == ("evaluate",))
    has_curve = embeddings and config.evaluation.curve_every
    measure = make_measure(config, data, embeddings) if has_curve else None
    print(f"{images.describe(data)}\nThe run's folder is {path}", flush=True)

    with workdir.open_workdir(path, config) as folder:
        folder.require_data(images.facts(data))
        identity = _identity(config, data, source) | {"variant": variant}
        folder.record_environment(environment.facts() | {"sources": sources}, identity)
        if source is not None:
            vae_source.copy_to(folder, source)
        if "vae" in training and not vae_source.share(folder, config.vae.steps, siblings):
            vae_stage = make_vae_stage(config, data, folder, measure, initial.get("vae"))
            loop.train(vae_stage, data.train, config, folder, profile)
        _record_latent_use(config, data, folder)
        if "gan" in training:
            gan_stage = make_gan_stage(config, data, folder, measure, initial.get("gan"))
            loop.train(gan_stage, data.train, config, folder, profile)
        if "gan" in stages and measure is not None:
            best.choose(config, data, folder, embeddings[0])
        evaluated = False
        if "evaluate" in stages and embeddings:
            evaluated = evaluate.evaluate_run(config, data, folder, embeddings)
        if parallel.is_primary():  # only this process writes the files that the report reads
            _report(config, folder, bool(training) or evaluated)


def _unfinished_stages(config: ConfigDict, path: pathlib.Path, stages: Sequence[str]) -> list[str]:
    """Returns which of the requested stages are to be trained; there may be no VAE stage."""
    trains_vae = config.transfer.generator == "vae" and not config.transfer.vae
    latest = {
        stage: checkpoints.latest(path / workdir.CHECKPOINTS / stage)
        for stage in (("vae", "gan") if trains_vae else ("gan",))
        if stage in stages
    }
    return [s for s, step in latest.items() if step is None or step < config[s].steps]


def _check_sources(
    config: ConfigDict,
    path: pathlib.Path,
    initial: dict[str, trained.Trained],
    training: Sequence[str],
) -> dict[str, Any]:
    """Checks the user's functions, and returns the digests of all sources."""
    sources = registry.source_digests(configuration.flatten(config))
    sources |= starts.digests(initial, path)
    environment.pin()  # a user's module may have changed an option when it was imported
    if training:
        workdir.require_same_sources(path, config, sources)
    shape = images.settings(config.data).image_shape
    resolved = recipe.resolve(config, 1_000, shape)  # the number of images does not matter here
    signatures.check_losses(resolved, shape)
    check_terms(resolved, shape)
    return sources


def _check_batch_sizes(config: ConfigDict, data: images.Images, training: Sequence[str]) -> None:
    for stage in training:
        batch_size = config[stage].batch_size
        if batch_size > len(data.train):
            raise UserError(
                f"{stage}.batch_size ({batch_size}) is larger than the training set "
                f"({len(data.train)} images): lower it."
            )
        parallel.require_divisible(batch_size, f"{stage}.batch_size")


def _identity(
    config: ConfigDict, data: images.Images, source: trained.Trained | None
) -> dict[str, Any]:
    """Returns the hashes of config and data, the seed and the VAE's source: a result's identity."""
    fields = {
        name: value
        for name, value in configuration.flatten(config).items()
        if resume.affects_training(name)
    }
    text = json.dumps(fields, sort_keys=True)
    identity = {
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "seed": config.seed,
        "data_sha256": data.digest,
    }
    return identity | ({} if source is None else {"vae": vae_source.facts(source, data)})


def _report(config: ConfigDict, folder: workdir.Workdir, worked: bool) -> None:
    """Writes the report if necessary, and prints a summary."""
    if not worked:
        print("This run is already finished.")
    if worked or not (folder.path / workdir.REPORT).exists():
        folder.write_report(page.make(folder))
    print(summary(config, folder))


def _record_latent_use(config: ConfigDict, data: images.Images, folder: workdir.Workdir) -> None:
    """Records the latent use of a finished VAE, if not recorded yet."""
    steps = config.vae.steps
    recorded = (folder.read_json(workdir.LATENT) or {}).get("step")
    if recorded == steps or checkpoints.latest(folder.checkpoints("vae")) != steps:
        return
    parts = trained.read_parts(config, data.shape, folder, {"vae": steps}, ["encoder"])
    use = latents.measure_use(config, parts["encoder"], data.validation)
    folder.write_json(workdir.LATENT, {"step": steps} | use)
    print(f"vae: {latents.use_summary(use)}", flush=True)


def summary(config: ConfigDict, folder: workdir.Workdir) -> str:
    """Returns a summary of a run: its cost, detected failures, results and report."""
    lines = [page.vae_source(folder)]
    for stage in ("vae", "gan"):
        for last in folder.metrics(stage)[-1:]:
            lines.append(
                f"{stage}: {last['step']} of {config[stage].steps} steps in "
                f"{last['seconds']:.0f} s, {last['images_per_second']:.0f} images/s at the end"
            )
        lines += [
            f"  {line['trouble'].replace('_', ' ')} from step {line['step']}: {line['text']} "
            f"Try: {line['remedy']}."
            for line in folder.troubles()
            if line["stage"] == stage
        ]
    lines.append(page.best(folder))
    if evaluation := folder.evaluation():
        lines.append(tables.as_text(evaluation))
        lines += [f"{finding['name']}: {finding['text']}" for finding in evaluation["findings"]]
    lines.append(f"report: {folder.path / workdir.REPORT}")
    return "\n".join(filter(None, lines))
