"""The evaluation of a run as a stage: from its checkpoints to its evaluation folder."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from vaegan_jax import checkpoints, trained, transfer, workdir
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import Stopped, UserError
from vaegan_jax.evaluation import curve, distances, embeddings, evaluate, findings
from vaegan_jax.report import pictures
from vaegan_jax.runtime import environment
from vaegan_jax.runtime.signals import StopRequest


class Evaluators(NamedTuple):
    """What an evaluation judges by; None where there is to be none.

    Attributes:
      embedding: of the last stage.
      statistics: of other real images.
      measure: of the curve during training.
    """

    embedding: embeddings.Embedding | None
    statistics: distances.Statistics | None
    measure: curve.Measure | None


def make_evaluators(config: ConfigDict, data: images.Images, required: bool) -> Evaluators:
    """Loads what the evaluation needs, so that what is missing is said before any training.

    Args:
      config: the run's config.
      data: its images.
      required: whether it is an error if there can be no evaluation.

    Raises:
      UserError: where the embedding or the statistics cannot be had.
    """
    wanted = config.evaluation
    if wanted.embedding == "none":
        if required:
            raise UserError(
                "evaluation.embedding is none, so that there is nothing to evaluate by: set it to "
                "efflite0, say."
            )
        return Evaluators(None, None, None)
    try:
        evaluate.require_enough(data)
    except UserError as error:
        if required:
            raise
        print(f"There will be no evaluation. {error}")
        return Evaluators(None, None, None)
    embedding = embeddings.make(wanted.embedding, wanted.size, wanted.resize, wanted.weights)
    features = embeddings.feature_count(embedding, data.shape)
    statistics = measure = None
    if wanted.statistics:
        statistics = distances.load_statistics(pathlib.Path(wanted.statistics).expanduser())
        if len(statistics.mu) != features:
            raise UserError(
                f"The file evaluation.statistics is of {len(statistics.mu)} features, and "
                f"{embedding.name} makes {features}: use statistics taken with the same embedding."
            )
    if wanted.curve_every:
        measure = curve.make_curve(config, data, embedding)
    return Evaluators(embedding, statistics, measure)


def evaluate_run(
    config: ConfigDict,
    data: images.Images,
    folder: workdir.Workdir,
    judges: Evaluators,
    stop: StopRequest,
    again: bool,
) -> bool:
    """Evaluators the newest checkpoints of a run, unless that was done before.

    Args:
      config: the run's config.
      data: its images.
      folder: its workdir.
      judges: what to judge by.
      stop: asked after every batch.
      again: whether to do it even where it was done before.

    Returns:
      Whether there was anything to do.

    Raises:
      UserError: where nothing is saved that could be judged.
      Stopped: where a signal asked for it; the evaluation before, if any, stays.
    """
    steps = {stage: checkpoints.latest(folder.checkpoints(stage)) for stage in ("vae", "gan")}
    if not any(steps.values()):
        raise UserError(
            f"There is nothing to evaluate yet: no checkpoint is saved in {folder.path}."
        )
    wanted = _wanted(config, data, judges, steps)
    before = folder.evaluation()
    if before and not again and all(before.get(name) == value for name, value in wanted.items()):
        return False
    folder.write_event("evaluation: began")
    written, models, found = judge(config, data, folder, judges, steps, stop)
    maps = _latent_maps(config, data.shape, folder, steps)
    folder.write_evaluation(written, _evaluation_pictures(config, data, models, found, *maps))
    folder.write_event("evaluation: finished")
    return True


def judge(
    config: ConfigDict,
    data: images.Images,
    folder: workdir.Workdir,
    judges: Evaluators,
    steps: dict[str, int | None],
    stop: StopRequest,
) -> tuple[dict[str, Any], evaluate.Models, evaluate.Evaluation]:
    """Evaluators any checkpoints of a run and writes nothing.

    Args:
      config: the run's config, or one with another seed of the samples.
      data: its images.
      folder: its workdir.
      judges: what to judge by.
      steps: of which checkpoint, by stage; None for a stage that is left out.
      stop: asked after every batch.

    Returns:
      What `evaluation/numbers.json` would hold of it, the networks, and what was found of them.

    Raises:
      UserError: where a checkpoint is damaged.
      Stopped: where a signal asked for it.
    """
    assert judges.embedding is not None
    began = time.perf_counter()
    models = _models(config, data.shape, folder, steps)
    found = evaluate.evaluate(
        config, data, models, judges.embedding, judges.statistics, _watch(stop)
    )
    said = findings.find(found.numbers, judges.embedding.distance, config.model.latent_size)
    written = _wanted(config, data, judges, steps) | {
        "environment": environment.facts(),
        "numbers": [dataclasses.asdict(number) for number in found.numbers],
        "findings": [finding._asdict() for finding in said],
        "seconds": time.perf_counter() - began,
    }
    return written, models, found


def _wanted(
    config: ConfigDict, data: images.Images, judges: Evaluators, steps: dict[str, int | None]
) -> dict[str, Any]:
    """Returns what an evaluation's numbers depend on."""
    assert judges.embedding is not None
    return {
        "format": 1,
        "seed": config.seed,
        "data": images.facts(data),
        "checkpoints": steps,
        "embedding": {"name": judges.embedding.name, "sha256": None, "resize": None}
        | judges.embedding.facts,
        "settings": {
            name: value
            for name, value in configuration.flatten(config).items()
            if name.startswith("evaluation.") and ".curve_" not in name
        },
    }


def _models(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    folder: workdir.Workdir,
    steps: dict[str, int | None],
) -> evaluate.Models:
    """Reads the networks that are judged, and nothing else, from the checkpoints."""
    names = ("encoder", "decoder", "generator", "likelihood")
    return evaluate.Models(**trained.read_parts(config, image_shape, folder, steps, names))


def _latent_maps(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    folder: workdir.Workdir,
    steps: dict[str, int | None],
) -> tuple[pictures.Convert, pictures.Convert]:
    """Returns how a GAN's latents become the decoder's that match them, and the other way round."""
    names = ("latent_mean", "latent_factor")
    mean, factor = trained.read_parts(config, image_shape, folder, steps, names).values()
    if factor is None:
        size = config.model.latent_size
        mean, factor = jnp.zeros(size), jnp.eye(size)
    return (
        functools.partial(transfer.to_encoder_latents, mean, factor),
        functools.partial(transfer.to_generator_latents, mean, factor),
    )


def _evaluation_pictures(
    config: ConfigDict,
    data: images.Images,
    models: evaluate.Models,
    found: evaluate.Evaluation,
    to_decoder: pictures.Convert,
    to_generator: pictures.Convert,
) -> dict[str, np.ndarray]:
    made = {"nearest": pictures.pairs(*found.pairs)}
    if models.decoder is not None and models.generator is not None:
        made["side_by_side"] = pictures.side_by_side(
            config, data.shape, models.decoder, models.generator, to_decoder
        )
    if found.units is not None:
        for name, params, to_network in (
            ("vae", models.decoder, pictures.same),
            ("gan", models.generator, to_generator),
        ):
            if params is not None:
                made[f"traversals_{name}"] = pictures.traversals(
                    config, data.shape, params, found.units.mean, found.units.variance, to_network
                )
    return made


def _watch(
    stop: StopRequest,
) -> Callable[[Iterable[np.ndarray], int, str], Iterator[np.ndarray]]:
    """Returns what shows the progress of an evaluation, and ends it where a signal asks for it."""

    def watched(batches: Iterable[np.ndarray], count: int, label: str) -> Iterator[np.ndarray]:
        began = time.perf_counter()
        with tqdm(total=count, desc=label or "evaluation", unit=" images", disable=None) as bar:
            for indices in batches:
                if stop.signal:
                    raise Stopped(
                        "Stopped during the evaluation: all that was trained is saved; run the "
                        "same command again to evaluate.",
                        128 + stop.signal,
                    )
                yield indices
                bar.update(min(len(indices), count - bar.n))
            if bar.disable and label:
                print(f"{label}: {count} in {time.perf_counter() - began:.1f} s", flush=True)

    return watched
