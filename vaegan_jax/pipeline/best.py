"""The best checkpoint of the GAN: that with the curve's smallest distance, against the last."""

import functools

from ml_collections import ConfigDict

from vaegan_jax import checkpoints, trained, workdir
from vaegan_jax.data import images
from vaegan_jax.evaluation import evaluate
from vaegan_jax.evaluation.embeddings import Embedding
from vaegan_jax.workdir import BEST

SIGNIFICANCE = 2.0
"""Standard errors by which the last generator must be worse, so that an earlier one is the best."""


def choose(
    config: ConfigDict, data: images.Images, folder: workdir.Workdir, embedding: Embedding
) -> None:
    """Records in best.json which step of a finished GAN is the best, if there is a curve.

    The step with the smallest distance of the curve was selected by its samples, which favours it.
    Both generators are therefore compared once more, with other samples.
    """
    last = config.gan.steps
    name, smallest = folder.smallest_distance("gan")
    if smallest is None or (folder.read_json(workdir.BEST_FACTS) or {}).get("last_step") == last:
        return
    step, difference, error, samples = last, 0.0, 0.0, 0
    if smallest != last and smallest in checkpoints.steps(folder.checkpoints(BEST)):
        read = functools.partial(trained.read_parts, config, data.shape, folder)
        params = (read({"gan": x}, ["generator"])["generator"] for x in (last, smallest))
        difference, error = evaluate.compare_generators(config, data, embedding, *params)
        samples = config.evaluation.curve_samples
        step = smallest if difference > SIGNIFICANCE * error else last
    facts = {"metric": name, "smallest_step": smallest, "last_step": last, "step": step}
    facts |= {"difference": difference, "error": error, "samples": samples}
    folder.write_json(workdir.BEST_FACTS, facts)
