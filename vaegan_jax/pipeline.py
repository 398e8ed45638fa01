"""A run, top to bottom: data, VAE, hand-over, GAN, evaluation, report."""

import contextlib
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import optax
from ml_collections import ConfigDict

from vaegan_jax import (
    checkpoints,
    compilation,
    environment,
    evaluating,
    gan,
    memory,
    monitor,
    parallel,
    profiling,
    randomness,
    training,
    transfer,
    vae,
    workdir,
)
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import curve, latent_use
from vaegan_jax.report import page, pictures, tables
from vaegan_jax.signals import StopRequest

State = TypeVar("State")

STAGES = ("vae", "gan", "evaluate", "report")


def run(
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
        it was finished before, but for training. The report is made anew after anything else.
      profile: whether to leave a trace of some steps of each stage in the workdir.

    Raises:
      UserError: for anything that the person who started it can put right.
      Stopped: where a signal asked for it; everything is saved.
    """
    run_together({path: config}, stages, profile)


def run_together(
    configs: dict[pathlib.Path, ConfigDict],
    stages: Sequence[str] = STAGES,
    profile: bool = False,
) -> None:
    """Runs configs that are equal but for the seed, each in its workdir, trained in one program.

    Each leaves what it leaves when it is run alone. One in which a number is not finite is left
    out from then on, and named in the end.

    Raises:
      UserError: for anything that the person who started them can put right.
      Stopped: where a signal asked for it; everything is saved.
    """
    for path, config in configs.items():
        configuration.check(config)
        workdir.require_usable(path, config)
    if tuple(stages) == ("report",):
        for path, config in configs.items():
            workdir.require_run(path)
            with workdir.open_workdir(path, config) as folder:
                print(f"The report is {folder.write_report(page.make(folder))}")
        return

    config = next(iter(configs.values()))
    data = images.load(config.data)
    _require_enough(config, data, together=len(configs) > 1)
    _require_one_process(configs)
    vae.check_losses(config, data.shape)
    gan.check_losses(config, data.shape)
    trained = _trained_stages(config, stages)
    for stage in trained:
        memory.require(config, data.shape, stage)
    again = "evaluate" in stages and len(stages) < len(STAGES)
    judges = [evaluating.make_judges(each, data, required=again) for each in configs.values()]
    folders = " ".join(map(str, configs))
    print(f"{images.describe(data)}\nThe run's folder is {folders}", flush=True)
    with contextlib.ExitStack() as opened:
        runs = [
            _Run(each, opened.enter_context(workdir.open_workdir(path, each)), judge)
            for (path, each), judge in zip(configs.items(), judges, strict=True)
        ]
        stop = opened.enter_context(StopRequest())
        for one in runs:
            one.folder.require_data(images.facts(data))
            one.folder.note_environment(environment.facts(), _identity(one.config, data))
        worked, left_out = False, list[str]()
        if "vae" in trained:
            worked |= _train(runs, left_out, vae_stage, data, stop, profile)
            for one in runs:
                _note_latent_use(one.config, data, one.folder)
        if "gan" in trained:
            worked |= _train(runs, left_out, gan_stage, data, stop, profile)
        for one in runs:
            if "evaluate" in stages and one.judges.embedding is not None:
                worked |= evaluating.evaluate_run(
                    one.config, data, one.folder, one.judges, stop, again
                )
        if not parallel.is_first():
            return  # what is left is read from the folder, while the first writes it
        peak = ", ".join(f"{mb:.0f} MB ({name})" for name, mb in profiling.peak_memory().items())
        for one in runs:
            if worked:
                one.folder.write_event(f"at most {peak} of memory")
            if worked or not (one.folder.path / workdir.REPORT).exists():
                one.folder.write_report(page.make(one.folder))
        if not worked:
            print("This run was finished before, and nothing is left to do.")
        for one in runs:
            print(summary(one.config, one.folder))
        print(f"memory:  at most {peak}")
    if left_out:
        raise UserError(" ".join(left_out))


def _trained_stages(config: ConfigDict, stages: Sequence[str]) -> list[str]:
    """Returns which of the stages that were asked for train something."""
    needed = ("vae", "gan") if config.transfer.generator == "vae" else ("gan",)
    return [stage for stage in needed if stage in stages]


class _Run(NamedTuple):
    """A run on its way through the stages."""

    config: ConfigDict
    folder: workdir.Workdir
    judges: evaluating.Judges


def _train(
    runs: list[_Run],
    left_out: list[str],
    make_stage: Callable[..., training.Stage[Any]],
    data: images.Images,
    stop: StopRequest,
    profile: bool,
) -> bool:
    """Trains a stage of all runs; those that break go from the one list to the other."""
    parts = [
        training.Run(
            make_stage(one.config, data, one.folder, one.judges.measure),
            one.config,
            one.folder,
            profile,
        )
        for one in runs
    ]
    worked, broken = training.train_together(parts, data.train, stop)
    if len(broken) == len(runs):
        raise next(iter(broken.values()))
    for position in sorted(broken, reverse=True):
        left_out.append(f"{runs.pop(position).folder.path} is left out: {broken[position]}")
        print(left_out[-1], flush=True)
    return worked


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
    encoder = checkpoints.restore_part(
        folder.checkpoints("vae"), config.vae.steps, ("params", "encoder"), template
    )
    use = latent_use.measure(config, encoder, data.held_out)
    found = {"step": config.vae.steps} | latent_use.facts(use)
    folder.write_facts(workdir.LATENT, found)
    print(f"vae: {latent_use.advice(found)}", flush=True)


def vae_stage(
    config: ConfigDict,
    data: images.Images,
    folder: workdir.Workdir,
    measure: curve.Measure | None = None,
) -> training.Stage[vae.VAEState]:
    """Returns the VAE stage of a run, which needs nothing that is in its folder."""
    del folder
    init = functools.partial(vae.init, config, data.shape)
    reconstructions = pictures.make_reconstruction_picture(config, data.held_out)
    decoder_pictures = pictures.make_decoder_pictures(config, data.shape, "normal")
    return training.Stage(
        number=randomness.Stage.VAE,
        steps=config.vae.steps,
        batch_size=config.vae.batch_size,
        template=jax.eval_shape(init),
        init=compilation.once(init),
        step=vae.make_train_step(config, data.shape),
        pictures=lambda state: {
            "reconstructions": reconstructions(state.params),
            **decoder_pictures(state.params["decoder"]),
        },
        shown=("reconstruction", "kl"),
        measure=_measured(measure, lambda state: state.params["decoder"], "normal"),
    )


def gan_stage(
    config: ConfigDict,
    data: images.Images,
    folder: workdir.Workdir,
    measure: curve.Measure | None = None,
) -> training.Stage[gan.GANState]:
    """Returns the GAN stage of a run; its first state reads the VAE's last checkpoint."""
    random_start = functools.partial(gan.random_start, config, data.shape)
    init = functools.partial(gan.init, config, data.shape)
    generator_pictures = pictures.make_decoder_pictures(config, data.shape, config.gan.noise)

    def first_state() -> gan.GANState:
        if config.transfer.generator == "vae":
            vae_checkpoints = folder.checkpoints("vae")
            if checkpoints.latest(vae_checkpoints) != config.vae.steps:
                raise UserError(
                    "The VAE is not finished, and the GAN grows from its decoder: run the vae "
                    "stage first, or set transfer.generator=scratch in another --workdir."
                )
            start = transfer.start(config, data.train, vae_checkpoints, config.vae.steps)
        else:
            start = compilation.once(random_start)()
        # One compiled program for both beginnings, so that all else is equal to the last bit.
        return compilation.once(init)(start)

    return training.Stage(
        number=randomness.Stage.GAN,
        steps=config.gan.steps,
        batch_size=config.gan.batch_size,
        template=jax.eval_shape(init, jax.eval_shape(random_start)),
        init=first_state,
        step=gan.make_train_step(config, data.shape),
        pictures=lambda state: generator_pictures(state.ema),
        shown=("discriminator_loss", "generator_loss", "discriminator_accuracy"),
        measure=_measured(measure, lambda state: state.ema, config.gan.noise),
    )


def _measured(
    measure: curve.Measure | None, params: Callable[[State], optax.Params], noise: str
) -> Callable[[State], dict[str, float]] | None:
    return None if measure is None else lambda state: measure(params(state), noise)


def summary(config: ConfigDict, folder: workdir.Workdir) -> str:
    """Returns some lines on a run: what it took, what came out, and which files to look at."""
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
            "no signs of trouble were looked for, which takes monitor.window "
            f"({config.monitor.window}) lines of metrics after any warm-up of the discriminator"
        )
    return texts


def _require_one_process(configs: dict[pathlib.Path, ConfigDict]) -> None:
    if len(configs) > 1 and jax.process_count() > 1:
        raise UserError(
            "Runs can be trained together by the devices of one process, and not by several "
            "processes: start a single one, or set together=False."
        )


def _require_enough(config: ConfigDict, data: images.Images, together: bool) -> None:
    for stage in ("vae", "gan"):
        batch_size = config[stage].batch_size
        if batch_size > len(data.train):
            raise UserError(
                f"{stage}.batch_size ({batch_size}) is larger than the training set "
                f"({len(data.train)} images): lower it."
            )
        if not together:
            parallel.require_divisible(batch_size, f"{stage}.batch_size")
