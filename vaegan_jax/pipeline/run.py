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
from vaegan_jax.losses import signatures
from vaegan_jax.pipeline import STAGES, best, evaluate, starts, vae_source
from vaegan_jax.pipeline.stages import check_terms, make_gan_stage, make_vae_stage
from vaegan_jax.report import page, tables
from vaegan_jax.runtime import environment, parallel
from vaegan_jax.runtime.signals import StopRequest
from vaegan_jax.training import loop


def train_and_evaluate(
    config: ConfigDict,
    path: pathlib.Path,
    stages: Sequence[str] = STAGES,
    profile: bool = False,
    variant: str = "",
    siblings: Sequence[pathlib.Path] = (),
) -> None:
    """Runs a config in a workdir, skipping finished stages.

    Args:
      config: a config from `default_config`, possibly with overrides.
      path: the workdir.
      stages: a subset of `STAGES`; "evaluate" or "report" alone runs even if it is up to date.
      profile: whether to save a profile of some steps of each stage in the workdir.
      variant: the run's name in a sweep, which run.json records.
      siblings: folders of other runs; the VAE is copied from one that has the same.

    Raises:
      UserError: for errors that the user can correct.
      Stopped: after a signal; all progress is saved.
    """
    configuration.check(config)
    config, source = _complete(config, path)
    if tuple(stages) == ("report",):
        _rewrite_report(config, path)
        return
    training = _training_stages(config, stages)
    trains = any(_is_unfinished(config, path, stage) for stage in training)
    source = (source or vae_source.load(config)) if trains else None
    if trains:
        vae_source.require_same(path, source)
    begins, sources = _check_sources(config, path, training if trains else [])
    data = images.load(config.data)
    config = recipe.resolve(config, len(data.train), data.shape)
    _check_batch_sizes(config, data)
    force = tuple(stages) == ("evaluate",)
    evaluators = evaluate.make_evaluators(config, data, required=force)
    print(f"{images.describe(data)}\nThe run's folder is {path}", flush=True)
    with workdir.open_workdir(path, config) as folder, StopRequest() as stop:
        folder.require_data(images.facts(data))
        identity = _identity(config, data, source) | {"variant": variant}
        folder.record_environment(environment.facts() | {"sources": sources}, identity)
        worked = False
        if source is not None:
            vae_source.copy_to(folder, source)
        if "vae" in training:
            vae_source.share(folder, config.vae.steps, siblings)
            vae_stage = make_vae_stage(config, data, folder, evaluators.measure, begins.get("vae"))
            worked |= loop.train(vae_stage, data.train, config, folder, stop, profile)
        _record_latent_use(config, data, folder)
        if "gan" in training:
            gan_stage = make_gan_stage(config, data, folder, evaluators.measure, begins.get("gan"))
            worked |= loop.train(gan_stage, data.train, config, folder, stop, profile)
            if evaluators.measure is not None:
                best.choose(config, data, folder, evaluators.embeddings[0])
        if "evaluate" in stages and evaluators.embeddings:
            worked |= evaluate.evaluate_run(config, data, folder, evaluators, stop, force)
        if parallel.is_primary():  # only this process writes the files that the report reads
            _report(config, folder, worked)


def _complete(config: ConfigDict, path: pathlib.Path) -> tuple[ConfigDict, trained.Trained | None]:
    """Returns a config with the fields that its folder or its VAE's source sets, and that VAE.

    The VAE is None if the run has begun or trains its own.
    """
    saved = workdir.Reader(path).config()
    source = None if saved else vae_source.load(config)
    given = configuration.flatten(config)
    config = vae_source.with_fields(config, saved, source)
    taken = configuration.flatten(config)
    changed = [f"{name}={value}" for name, value in taken.items() if value != given[name]]
    if changed:
        print(f"transfer.vae={config.transfer.vae} sets {', '.join(changed)}.", flush=True)
    workdir.require_usable(path, config)
    return recipe.keep(config, saved), source


def _rewrite_report(config: ConfigDict, path: pathlib.Path) -> None:
    workdir.require_run(path)
    with workdir.open_workdir(path, config) as folder:
        print(f"The report is {folder.write_report(page.make(folder))}")


def _report(config: ConfigDict, folder: workdir.Workdir, worked: bool) -> None:
    """Writes the report if necessary, and prints a summary."""
    if not worked:
        print("This run is already finished.")
    if worked or not (folder.path / workdir.REPORT).exists():
        folder.write_report(page.make(folder))
    print(summary(config, folder))


def _training_stages(config: ConfigDict, stages: Sequence[str]) -> list[str]:
    """Returns the requested training stages; there may be no VAE stage."""
    trains_vae = config.transfer.generator == "vae" and not config.transfer.vae
    needed = ["vae", "gan"] if trains_vae else ["gan"]
    return [stage for stage in needed if stage in stages]


def _is_unfinished(config: ConfigDict, path: pathlib.Path, stage: str) -> bool:
    latest = checkpoints.latest(path / workdir.CHECKPOINTS / stage)
    return latest is None or latest < config[stage].steps


def _check_sources(
    config: ConfigDict, path: pathlib.Path, stages: Sequence[str]
) -> tuple[dict[str, trained.Trained], dict[str, Any]]:
    """Checks the user's functions, and what the stages to be trained begin with.

    Returns:
      The models of `starts.load`, and the digests of all sources.
    """
    models = starts.load(config, path, stages)
    sources = registry.source_digests(configuration.flatten(config))
    sources |= starts.digests(models, path)
    environment.pin()  # a user's module may have changed an option when it was imported
    if stages:
        workdir.require_same_sources(path, config, sources)
    shape = images.settings(config.data).image_shape
    resolved = recipe.resolve(config, 1_000, shape)  # the number of images does not matter here
    signatures.check_losses(resolved, shape)
    check_terms(resolved, shape)
    return models, sources


def _check_batch_sizes(config: ConfigDict, data: images.Images) -> None:
    """Checks a config without automatic fields."""
    configuration.check(config)
    for stage in _training_stages(config, STAGES):
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


def _record_latent_use(config: ConfigDict, data: images.Images, folder: workdir.Workdir) -> None:
    """Records the latent use of a finished VAE, if not recorded yet."""
    steps, directory = config.vae.steps, folder.checkpoints("vae")
    if (folder.read_json(workdir.LATENT) or {}).get("step") == steps:
        return
    if checkpoints.latest(directory) != steps:
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
