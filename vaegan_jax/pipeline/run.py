"""A run, top to bottom: data, VAE, transfer, GAN, evaluation, report."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from vaegan_jax import checkpoints, gan, registry, vae, workdir
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import latent_use
from vaegan_jax.pipeline import STAGES, evaluate
from vaegan_jax.pipeline.stages import make_gan_stage, make_vae_stage
from vaegan_jax.report import page, tables
from vaegan_jax.runtime import environment, parallel, profiling
from vaegan_jax.runtime.signals import StopRequest
from vaegan_jax.training import loop, monitor


def train_and_evaluate(
    config: ConfigDict,
    path: pathlib.Path,
    stages: Sequence[str] = STAGES,
    profile: bool = False,
) -> None:
    """Runs a config in a workdir, going on from whatever is finished there.

    Args:
      config: from `default_config`, overridden at will.
      path: the workdir.
      stages: which of `STAGES` to go through. One that is named alone is gone through even where
        it was finished before, but for training. The report is written again after any other stage.
      profile: whether to leave a trace of some steps of each stage in the workdir.

    Raises:
      UserError: for anything that the person who started it can put right.
      Stopped: where a signal asked for it; everything is saved.
    """
    configuration.check(config)
    workdir.require_usable(path, config)
    if tuple(stages) == ("report",):
        workdir.require_run(path)
        with workdir.open_workdir(path, config) as folder:
            print(f"The report is {folder.write_report(page.make(folder))}")
        return

    trained = _trained_stages(config, stages)
    sources = registry.sources(configuration.flatten(config))
    environment.pin()  # a user's module may have set an option when it was imported
    if any(_is_unfinished(config, path, stage) for stage in trained):
        workdir.require_same_sources(path, config, sources)
    data = images.load(config.data)
    _require_enough(config, data)
    vae.check_losses(config, data.shape)
    gan.check_losses(config, data.shape)
    again = "evaluate" in stages and len(stages) < len(STAGES)
    judges = evaluate.make_evaluators(config, data, required=again)
    print(f"{images.describe(data)}\nThe run's folder is {path}", flush=True)
    with workdir.open_workdir(path, config) as folder, StopRequest() as stop:
        folder.require_data(images.facts(data))
        facts = environment.facts() | {"sources": sources}
        folder.note_environment(facts, _identity(config, data))
        worked = False
        if "vae" in trained:
            vae_stage = make_vae_stage(config, data, folder, judges.measure)
            worked |= loop.train(vae_stage, data.train, config, folder, stop, profile)
            _note_latent_use(config, data, folder)
        if "gan" in trained:
            gan_stage = make_gan_stage(config, data, folder, judges.measure)
            worked |= loop.train(gan_stage, data.train, config, folder, stop, profile)
        if "evaluate" in stages and judges.embedding is not None:
            worked |= evaluate.evaluate_run(config, data, folder, judges, stop, again)
        if not parallel.is_primary():
            return  # the rest reads from the folder, while the first process writes it
        peak = ", ".join(f"{mb:.0f} MB ({name})" for name, mb in profiling.peak_memory().items())
        if worked:
            folder.write_event(f"at most {peak} of memory")
        if worked or not (folder.path / workdir.REPORT).exists():
            folder.write_report(page.make(folder))
        if not worked:
            print("This run was finished before, and nothing is left to do.")
        print(summary(config, folder))
        print(f"memory:  at most {peak}")


def _trained_stages(config: ConfigDict, stages: Sequence[str]) -> list[str]:
    """Returns which of the stages that were asked for train something."""
    needed = ("vae", "gan") if config.transfer.generator == "vae" else ("gan",)
    return [stage for stage in needed if stage in stages]


def _is_unfinished(config: ConfigDict, path: pathlib.Path, stage: str) -> bool:
    newest = checkpoints.latest(path / workdir.CHECKPOINTS / stage)
    return newest is None or newest < config[stage].steps


def _identity(config: ConfigDict, data: images.Images) -> dict[str, Any]:
    """Returns what a result depends on beside the environment: config, as a hash, seed and data."""
    trained_by = {
        name: value
        for name, value in configuration.flatten(config).items()
        if not configuration.FIELDS[name].free
    }
    text = json.dumps(trained_by, sort_keys=True)
    return {
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "seed": config.seed,
        "data_sha256": data.digest,
    }


def _note_latent_use(config: ConfigDict, data: images.Images, folder: workdir.Workdir) -> None:
    """Notes once, when the VAE is finished, what its latent dimensions say."""
    if (folder.facts(workdir.LATENT) or {}).get("step") == config.vae.steps:
        return
    template = jax.eval_shape(functools.partial(vae.init, config, data.shape)).params["encoder"]
    path = ("params", "encoder")
    directory = folder.checkpoints("vae")
    encoder = checkpoints.read(directory, config.vae.steps, {path: template})[path]
    use = latent_use.measure(config, encoder, data.held_out)
    found = {"step": config.vae.steps} | latent_use.facts(use)
    folder.write_facts(workdir.LATENT, found)
    print(f"vae: {latent_use.advice(found)}", flush=True)


def summary(config: ConfigDict, folder: workdir.Workdir) -> str:
    """Returns a summary of a run: its cost, its results, and which files to look at."""
    lines = []
    for stage, steps in (("vae", config.vae.steps), ("gan", config.gan.steps)):
        metrics = folder.metrics(stage)
        if metrics:
            lines.append(
                f"{stage}: {metrics[-1]['step']} steps of {steps} in "
                f"{metrics[-1]['seconds']:.0f} s, "
                f"{metrics[-1]['images_per_second']:.0f} images/s at the end"
            )
            pictures_of_stage = sorted((folder.path / "images" / stage).glob(f"*_{steps:06d}.png"))
            lines += [f"  {picture}" for picture in pictures_of_stage]
            lines += [f"  {text}" for text in troubles(config, folder, stage)]
    latent = folder.facts(workdir.LATENT)
    if latent:
        lines.append(f"latent: {latent_use.advice(latent)}")
    evaluation = folder.evaluation()
    if evaluation:
        lines.append(tables.as_text(evaluation))
        lines += [f"{found['name']}: {found['text']}" for found in evaluation["findings"]]
    lines.append(f"numbers: {folder.path / 'metrics.jsonl'}")
    lines.append(f"curves:  tensorboard --logdir {folder.path / 'tensorboard'}")
    lines.append(f"report:  {folder.path / workdir.REPORT}")
    return "\n".join(lines)


def troubles(config: ConfigDict, folder: workdir.Workdir, stage: str) -> list[str]:
    """Returns a text on each trouble of a stage: when, the evidence, what to try."""
    metrics = folder.metrics(stage)
    held = monitor.held(stage, metrics, config)
    texts = []
    for line in folder.troubles():
        if line["stage"] != stage:
            continue
        steps = held.get(line["trouble"], [])
        until = ""
        if steps:
            until = " to the end" if steps[-1] == metrics[-1]["step"] else f" to step {steps[-1]}"
        texts.append(
            f"{line['trouble'].replace('_', ' ')} from step {line['step']}{until}: {line['text']} "
            f"To try: {line['remedy']}."
        )
    if monitor.too_few(stage, metrics, config):
        texts.append(
            f"training failures were not looked for: that takes {monitor.WINDOW} lines of metrics "
            "after the warm-up of the discriminator (lower loop.log_every for more lines)"
        )
    return texts


def _require_enough(config: ConfigDict, data: images.Images) -> None:
    for stage in ("vae", "gan"):
        batch_size = config[stage].batch_size
        if batch_size > len(data.train):
            raise UserError(
                f"{stage}.batch_size ({batch_size}) is larger than the training set "
                f"({len(data.train)} images): lower it."
            )
        parallel.require_divisible(batch_size, f"{stage}.batch_size")
