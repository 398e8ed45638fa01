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

from vaegan_jax.workdir.checks import require_same_sources as require_same_sources
from vaegan_jax.workdir.checks import require_usable as require_usable
from vaegan_jax.workdir.reader import BEST as BEST
from vaegan_jax.workdir.reader import BEST_FACTS as BEST_FACTS
from vaegan_jax.workdir.reader import CHECKPOINTS as CHECKPOINTS
from vaegan_jax.workdir.reader import CONFIG as CONFIG
from vaegan_jax.workdir.reader import DATA as DATA
from vaegan_jax.workdir.reader import ENVIRONMENT as ENVIRONMENT
from vaegan_jax.workdir.reader import EVALUATION_FORMAT as EVALUATION_FORMAT
from vaegan_jax.workdir.reader import LATENT as LATENT
from vaegan_jax.workdir.reader import NUMBERS as NUMBERS
from vaegan_jax.workdir.reader import REPORT as REPORT
from vaegan_jax.workdir.reader import Reader as Reader
from vaegan_jax.workdir.reader import pictures_by_step as pictures_by_step
from vaegan_jax.workdir.writer import Workdir as Workdir
from vaegan_jax.workdir.writer import open_workdir as open_workdir
