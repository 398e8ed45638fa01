"""A run, top to bottom: data, VAE, transfer, GAN, evaluation, report."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, recipe, registry, resume, vae, workdir
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import latent_use
from vaegan_jax.losses import signatures
from vaegan_jax.pipeline import STAGES, best, evaluate, vae_source
from vaegan_jax.pipeline.stages import check_terms, make_gan_stage, make_vae_stage
from vaegan_jax.report import page, tables
from vaegan_jax.runtime import environment, parallel, profiling
from vaegan_jax.runtime.signals import StopRequest
from vaegan_jax.training import loop, monitor


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
      stages: a subset of `STAGES`. "evaluate" or "report" alone always runs, even if up to date.
        The report is rewritten after any other stage.
      profile: whether to save a profile of some steps of each stage in the workdir.
      variant: the run's name in a sweep, which run.json records.
      siblings: folders of other runs; the VAE is copied from one that has the same.

    Raises:
      UserError: for errors that the user can correct.
      Stopped: after a signal; all progress is saved.
    """
    configuration.check(config)
    config = vae_source.with_fields(config, workdir.Reader(path).config())
    workdir.require_usable(path, config)
    config = recipe.keep(config, workdir.Reader(path).config())
    if tuple(stages) == ("report",):
        _rewrite_report(config, path)
        return
    training = _training_stages(config, stages)
    sources = registry.source_digests(configuration.flatten(config))
    environment.pin()  # a user's module may have changed an option when it was imported
    trains = any(_is_unfinished(config, path, stage) for stage in training)
    source = vae_source.load(config) if trains else None
    if trains:
        workdir.require_same_sources(path, config, sources)
        vae_source.require_same(path, source)
    data = images.load(config.data)
    config = recipe.resolve(config, len(data.train), data.shape)
    _check_with_data(config, data)
    force = tuple(stages) == ("evaluate",)
    evaluators = evaluate.make_evaluators(config, data, required=force)
    print(f"{images.describe(data)}\nThe run's folder is {path}", flush=True)
    with workdir.open_workdir(path, config) as folder, StopRequest() as stop:
        folder.require_data(images.facts(data), trains)
        facts = environment.facts() | {"sources": sources}
        identity = _identity(config, data) | {"variant": variant}
        if source is not None:
            identity["vae"] = vae_source.facts(source, data)
        folder.record_environment(facts, identity)
        worked = False
        if source is not None:
            vae_source.copy_to(folder, source)
            _record_latent_use(config, data, folder)
        if "vae" in training:
            vae_source.share(config, folder, facts, siblings)
            vae_stage = make_vae_stage(config, data, folder, evaluators.measure)
            worked |= loop.train(vae_stage, data.train, config, folder, stop, profile)
            _record_latent_use(config, data, folder)
        if "gan" in training:
            gan_stage = make_gan_stage(config, data, folder, evaluators.measure)
            worked |= loop.train(gan_stage, data.train, config, folder, stop, profile)
            if evaluators.measure is not None:
                best.choose(config, data, folder, evaluators.embeddings[0])
        if "evaluate" in stages and evaluators.embeddings:
            worked |= evaluate.evaluate_run(config, data, folder, evaluators, stop, force)
        if parallel.is_primary():  # only this process writes the files that the report reads
            _report(config, folder, worked)


def _rewrite_report(config: ConfigDict, path: pathlib.Path) -> None:
    workdir.require_run(path)
    with workdir.open_workdir(path, config) as folder:
        print(f"The report is {folder.write_report(page.make(folder))}")


def _report(config: ConfigDict, folder: workdir.Workdir, worked: bool) -> None:
    """Writes the report if necessary, and prints a summary."""
    peak = ", ".join(f"{mb:.0f} MB ({name})" for name, mb in profiling.peak_memory().items())
    if worked:
        folder.write_event(f"peak memory: {peak}")
    else:
        print("This run is already finished.")
    if worked or not (folder.path / workdir.REPORT).exists():
        folder.write_report(page.make(folder))
    print(f"{summary(config, folder)}\npeak memory: {peak}")


def _training_stages(config: ConfigDict, stages: Sequence[str]) -> list[str]:
    """Returns the requested training stages; there may be no VAE stage."""
    trains_vae = config.transfer.generator == "vae" and not config.transfer.vae
    needed = ["vae", "gan"] if trains_vae else ["gan"]
    return [stage for stage in needed if stage in stages]


def _is_unfinished(config: ConfigDict, path: pathlib.Path, stage: str) -> bool:
    latest = checkpoints.latest(path / workdir.CHECKPOINTS / stage)
    return latest is None or latest < config[stage].steps


def _check_with_data(config: ConfigDict, data: images.Images) -> None:
    """Checks batch sizes, steps and losses of a config without automatic fields."""
    configuration.check(config)
    for stage in _training_stages(config, STAGES):
        batch_size = config[stage].batch_size
        if batch_size > len(data.train):
            raise UserError(
                f"{stage}.batch_size ({batch_size}) is larger than the training set "
                f"({len(data.train)} images): lower it."
            )
        parallel.require_divisible(batch_size, f"{stage}.batch_size")
    signatures.check_losses(config, data.shape)
    check_terms(config, data.shape)


def _identity(config: ConfigDict, data: images.Images) -> dict[str, Any]:
    """Returns the config hash, seed and data hash, which identify a result."""
    fields = {
        name: value
        for name, value in configuration.flatten(config).items()
        if resume.affects_training(name)
    }
    text = json.dumps(fields, sort_keys=True)
    return {
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "seed": config.seed,
        "data_sha256": data.digest,
    }


def _record_latent_use(config: ConfigDict, data: images.Images, folder: workdir.Workdir) -> None:
    """Records the latent use of the finished VAE, if not recorded yet."""
    if (folder.read_json(workdir.LATENT) or {}).get("step") == config.vae.steps:
        return
    template = jax.eval_shape(functools.partial(vae.init, config, data.shape)).params["encoder"]
    path = ("params", "encoder")
    directory = folder.checkpoints("vae")
    encoder = checkpoints.read(directory, config.vae.steps, {path: template})[path]
    use = latent_use.measure(config, encoder, data.validation)
    folder.write_json(workdir.LATENT, {"step": config.vae.steps} | use)
    print(f"vae: {latent_use.summary(use)}", flush=True)


def summary(config: ConfigDict, folder: workdir.Workdir) -> str:
    """Returns a summary of a run: its cost, results, detected failures, and main files."""
    lines = [text for text in (page.vae_source(folder),) if text]
    for stage, steps in (("vae", config.vae.steps), ("gan", config.gan.steps)):
        metrics = folder.metrics(stage)
        if metrics:
            last = metrics[-1]
            lines.append(
                f"{stage}: {last['step']} of {steps} steps in {last['seconds']:.0f} s, "
                f"{last['images_per_second']:.0f} images/s at the end"
            )
            pictures = sorted(workdir.pictures(folder.path, stage))
            lines += [f"  {picture.path}" for picture in pictures if picture.step == steps]
            lines += [f"  {text}" for text in troubles(config, folder, stage)]
    lines += [text for text in (page.best(folder),) if text]
    latent = folder.read_json(workdir.LATENT)
    if latent:
        lines.append(f"latent: {latent_use.summary(latent)}")
    evaluation = folder.evaluation()
    if evaluation:
        lines.append(tables.as_text(evaluation))
        lines += [f"{finding['name']}: {finding['text']}" for finding in evaluation["findings"]]
    lines.append(f"numbers: {folder.path / 'metrics.jsonl'}")
    lines.append(f"curves:  tensorboard --logdir {folder.path / 'tensorboard'}")
    lines.append(f"report:  {folder.path / workdir.REPORT}")
    return "\n".join(lines)


def troubles(config: ConfigDict, folder: workdir.Workdir, stage: str) -> list[str]:
    """Describes each training failure of a stage: first step, evidence, suggested changes."""
    metrics = folder.metrics(stage)
    texts = [
        f"{line['trouble'].replace('_', ' ')} from step {line['step']}: {line['text']} "
        f"Try: {line['remedy']}."
        for line in folder.troubles()
        if line["stage"] == stage
    ]
    if monitor.too_few_lines(stage, metrics, config):
        texts.append(
            f"too few metrics to detect training failures: {monitor.WINDOW} lines after the "
            "discriminator warm-up are needed (lower training.log_every)"
        )
    return texts
