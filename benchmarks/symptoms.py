"""The symptoms of training failures on healthy and on broken batches of 4, 16 and 64.

    python benchmarks/symptoms.py

Each symptom of `losses/symptoms.py` is computed on batches of comic faces ("real"), against another
set of real images, blurred ones and samples of the bundled pretrained GAN (healthy), and against
few images, with and without noise (broken); `feature_diversity` uses a random discriminator of the
quickstart. Latents are posterior means of the bundled pretrained VAE (healthy) and normal numbers
(broken), logits are normal numbers of variance 1. Prints the mean over the batches, and the range
of means over 25 consecutive batches, which is what 5 lines of metrics with
`training.log_every=5` average.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from vaegan_jax import networks, trained
from vaegan_jax.data import images
from vaegan_jax.losses import symptoms

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from configs import quickstart

BATCH_SIZES = (4, 16, 64)
GROUP = 25
Pool = np.ndarray
"""Examples [N, ...] from which batches are drawn."""


def image_pools(rng: np.random.Generator, count: int) -> dict[str, Pool]:
    """Returns images float32 [N, H, W, C] in [-1, 1]; the first entry is the real ones."""
    train = images.load(quickstart.get_config().data).train
    drawn = train[rng.permutation(len(train))[: 2 * count]]
    real, other = np.split(drawn.astype(np.float32) / 127.5 - 1, 2)
    model = trained.load("pretrained", encoder=False)
    samples = model.decode(rng.normal(size=(count, model.latent_size)).astype(np.float32))

    def few(modes: int, deviation: float = 0.0) -> Pool:
        chosen = other[rng.integers(0, modes, count)]
        return chosen + deviation * rng.normal(size=chosen.shape).astype(np.float32)

    return {
        "real": real,
        "healthy: other real images": other,
        "healthy: blurred by 2 pixels": scipy.ndimage.gaussian_filter(other, (0, 2, 2, 0)),
        "healthy: samples of a GAN": samples,
        "broken: 1 image": few(1),
        "broken: 1 image, noise 0.05": few(1, 0.05),
        "broken: 3 images": few(3),
        "broken: 3 images, noise 0.05": few(3, 0.05),
    }


def features(pool: Pool) -> Pool:
    """Returns the features of a random discriminator, float32 [N, d]."""
    config, shape = quickstart.get_config(), pool.shape[1:]
    network = networks.make_discriminator(config.model, shape)
    params = network.init(jax.random.key(0), jnp.zeros((1, *shape)))["params"]
    discriminate = jax.jit(networks.make_discriminate(config.model, shape))
    return np.concatenate(
        [discriminate(params, pool[i : i + 100])[1] for i in range(0, len(pool), 100)]
    )


def latent_pools(rng: np.random.Generator, real: Pool) -> dict[str, Pool]:
    """Returns posterior means, float32 [N, 64]."""
    means = trained.load("pretrained", "vae").encode(real)[0]
    noise = rng.normal(size=means.shape).astype(np.float32)
    two = np.where(np.arange(means.shape[1]) < 2, 1.0, 0.07).astype(np.float32)
    half = np.where(np.arange(means.shape[1]) < 32, 0.5, 0.0).astype(np.float32)
    return {
        "healthy: pretrained VAE": means,
        "healthy: half of the deviations 0.5": half * noise,
        "broken: deviations 0.03": 0.03 * noise,
        "broken: deviations 0.07": 0.07 * noise,
        "broken: 2 of deviation 1, others 0.07": two * noise,
    }


def measure(
    symptom: Callable[..., jax.Array],
    pools: tuple[Pool, ...],
    batch_size: int,
    batches: int,
) -> str:
    """Returns "mean (minimum to maximum of the means of groups)" of a symptom."""
    rng, compiled = np.random.default_rng(batch_size), jax.jit(symptom)
    values = [
        float(compiled(*(pool[rng.choice(len(pool), batch_size, replace=False)] for pool in pools)))
        for _ in range(batches)
    ]
    groups = np.reshape(values, (-1, GROUP)).mean(axis=1)
    return f"{np.mean(values):.3f} ({groups.min():.3f} to {groups.max():.3f})"


def table(title: str, symptom: Any, cases: dict[str, tuple[Pool, ...]], batches: int) -> None:
    """Prints a symptom of several cases."""
    print(f"\n| {title} | " + " | ".join(f"batch {size}" for size in BATCH_SIZES) + " |")
    print("|---|" + "---|" * len(BATCH_SIZES))
    for name, pools in cases.items():
        cells = [measure(symptom, pools, size, batches) for size in BATCH_SIZES]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--images", type=int, default=1_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    pools = image_pools(rng, args.images)
    real = pools.pop("real")
    cases = {name: (pool, real) for name, pool in pools.items()}
    table("diversity", symptoms.diversity, cases, args.batches)
    table("near_duplicates", symptoms.near_duplicates, cases, args.batches)
    table("sharpness", symptoms.relative_sharpness, cases, args.batches)
    seen, real_features = {name: features(pool) for name, pool in pools.items()}, features(real)
    cases = {name: (pool, real_features) for name, pool in seen.items()}
    table("feature_diversity", symptoms.diversity, cases, args.batches)
    cases = {name: (pool,) for name, pool in latent_pools(rng, real).items()}
    table("active_units of 64", symptoms.active_units_of_batch, cases, args.batches)
    cases = {
        f"margin {margin}": tuple(rng.normal([[margin], [0.0]], size=(2, args.images)))
        for margin in (0.0, 1.0, 2.5, 4.0, 6.0)
    }
    table("discriminator_auc", symptoms.auc, cases, args.batches)


if __name__ == "__main__":
    main()
