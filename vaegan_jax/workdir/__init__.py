"""A run's folder: its lock, config, metrics and pictures.

config.json          the resolved config, every field
data.json            the images that the run is trained on
run.json             versions, settings, device, machine and sources at the start of the run
metrics.jsonl        one line of scalars every few steps, and one per detected trouble, both stages
best.json            which step of the GAN is the best by its curve
latent.json          statistics of the VAE's latent dimensions
curve.jsonl          one line of distances to real images every few steps, both stages
events.jsonl         log of events, with times
images/STAGE/        PNG pictures, NAME_STEP.png
tensorboard/STAGE/   the same metrics and pictures, for TensorBoard
checkpoints/STAGE/   Orbax checkpoints
checkpoints/best/    the generator with the smallest distance of the curve
evaluation/          numbers.json and pictures of the latest evaluation
report.html          all of it on one page
"""

from vaegan_jax.workdir.checks import require_run, require_same_sources, require_usable
from vaegan_jax.workdir.reader import (
    BEST,
    BEST_FACTS,
    CHECKPOINTS,
    CONFIG,
    DATA,
    ENVIRONMENT,
    EVALUATION_FORMAT,
    LATENT,
    NUMBERS,
    REPORT,
    Reader,
    pictures_by_step,
)
from vaegan_jax.workdir.writer import Workdir, open_workdir

__all__ = [
    "BEST",
    "BEST_FACTS",
    "CHECKPOINTS",
    "CONFIG",
    "DATA",
    "ENVIRONMENT",
    "EVALUATION_FORMAT",
    "LATENT",
    "NUMBERS",
    "REPORT",
    "Reader",
    "Workdir",
    "open_workdir",
    "pictures_by_step",
    "require_run",
    "require_same_sources",
    "require_usable",
]
