"""The evaluation stage: reads checkpoints and writes the evaluation folder."""

import dataclasses
import functools
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from vaegan_jax import checkpoints, trained, transfer, workdir
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.errors import UserError
from vaegan_jax.evaluation import evaluate, findings
from vaegan_jax.evaluation.batches import Progress
from vaegan_jax.evaluation.embeddings import Embedding, make_all, require_valid
from vaegan_jax.report import pictures
from vaegan_jax.runtime import environment

Steps = dict[str, int | None]
"""Checkpoint step by stage; None for omitted stages."""


def load_embeddings(config: ConfigDict, data: images.Images, required: bool) -> list[Embedding]:
    """Loads the embeddings of an evaluation, so missing files are reported before training.

    Returns none if there is no evaluation.

    Raises:
      UserError: if an embedding cannot be loaded, or if an evaluation is required and there is no
        embedding or too few images.
    """
    names = config.evaluation.embeddings
    obstacle = evaluate.shortage(data)
    if names == "none":
        obstacle = "evaluation.embeddings is none: set it to efflite0,alexnet, for example."
    if obstacle:
        if required:
            raise UserError(obstacle)
        if names != "none":
            print(f"The evaluation is disabled. {obstacle}")
        return []
    embeddings = make_all(names, config.evaluation.weights)
    for embedding in embeddings:
        require_valid(embedding, data.shape)
    return embeddings


def evaluate_run(
    config: ConfigDict,
    data: images.Images,
    folder: workdir.Workdir,
    embeddings: list[Embedding],
) -> bool:
    """Evaluates the latest checkpoints of a run unless the saved evaluation is up to date.

    Returns True if an evaluation was run.

    Raises:
      UserError: if no checkpoint is saved.
    """
    steps = {stage: checkpoints.latest(folder.checkpoints(stage)) for stage in ("vae", "gan")}
    if not any(steps.values()):
        raise UserError(f"There is nothing to evaluate yet: {folder.path} has no checkpoint.")
    inputs = _inputs(config, data, embeddings, steps)
    saved = folder.evaluation()
    if saved and all(saved.get(name) == value for name, value in inputs.items()):
        return False
    folder.write_event("evaluation: began")
    record, models, result = evaluate_checkpoints(config, data, folder, embeddings, steps)
    folder.write_evaluation(record, _pictures(config, data.shape, models, result))
    folder.write_event("evaluation: finished")
    return True


def evaluate_checkpoints(
    config: ConfigDict,
    data: images.Images,
    folder: workdir.Workdir,
    embeddings: list[Embedding],
    steps: Steps,
) -> tuple[dict[str, Any], evaluate.Models, evaluate.Evaluation]:
    """Evaluates checkpoints of a run like `evaluate_run`, without writing files.

    Returns:
      The contents of `evaluation/numbers.json`, the networks, and their evaluation.

    Raises:
      UserError: if a checkpoint is damaged.
    """
    start = time.perf_counter()
    parts = trained.read_parts(config, data.shape, folder, steps, evaluate.Models._fields)
    models = evaluate.Models(**parts)
    result = evaluate.evaluate(config, data, models, embeddings, _make_progress)
    record = _inputs(config, data, embeddings, steps) | {
        "environment": environment.facts(),
        "numbers": [
            dataclasses.asdict(number) | {"informative": number.is_informative}
            for number in result.numbers
        ],
        "findings": [
            finding._asdict() for finding in findings.find(result.numbers, config.model.latent_size)
        ],
        "seconds": time.perf_counter() - start,
    }
    return record, models, result


def _inputs(
    config: ConfigDict, data: images.Images, embeddings: list[Embedding], steps: Steps
) -> dict[str, Any]:
    """Returns everything that determines the numbers of an evaluation."""
    return {
        "format": workdir.EVALUATION_FORMAT,
        "seed": config.seed,
        "data": images.facts(data),
        "checkpoints": steps,
        "embeddings": [
            {"name": embedding.name, "sha256": None, "resize": None} | embedding.facts
            for embedding in embeddings
        ],
        "settings": {
            name: value
            for name, value in configuration.flatten(config).items()
            if name.startswith("evaluation.") and ".curve_" not in name
        },
    }


def _pictures(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    models: evaluate.Models,
    result: evaluate.Evaluation,
) -> dict[str, np.ndarray]:
    """Returns the pictures of the evaluation folder by name, uint8 [H, W, C] each."""
    size = config.model.latent_size
    mean, factor = models.latent_mean, models.latent_factor
    if mean is None or factor is None:
        mean, factor = jnp.zeros(size), jnp.eye(size)
    to_encoder = functools.partial(transfer.to_encoder_latents, mean, factor)
    to_generator = functools.partial(transfer.to_generator_latents, mean, factor)
    rows: list[tuple[Any, pictures.Convert]] = [
        (params, to_encoder if subject == "matched_samples" else pictures.same)
        for subject, params in evaluate.sampled_networks(models).items()
    ]
    shown = {
        "nearest": pictures.pairs(*result.pairs),
        "side_by_side": pictures.side_by_side(config, image_shape, rows),
    }
    for name, params, to_network in (
        ("vae", models.decoder, pictures.same),
        ("gan", models.generator, to_generator),
    ):
        if result.units is not None and params is not None:
            shown[f"traversals_{name}"] = pictures.traversals(
                config, image_shape, params, *result.units, to_network
            )
    return shown


def _make_progress(label: str) -> Progress:
    """Returns a display of the progress: a bar on a terminal, elsewhere one line at the end."""

    def progress(batches: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
        start = time.perf_counter()
        with tqdm(total=count, desc=label, unit=" images", disable=None) as bar:
            for indices in batches:
                yield indices
                bar.update(min(len(indices), count - bar.n))
            if bar.disable:
                print(f"{label}: {count} in {time.perf_counter() - start:.1f} s", flush=True)

    return progress
