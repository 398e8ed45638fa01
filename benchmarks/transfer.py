"""Compares options of the transfer: warm start, from scratch, and variants of the warm start.

    python benchmarks/transfer.py --workdir runs/transfer

Trains one VAE per seed and a GAN from it for each variant, compares 1,000 samples of each GAN with
the test images, and prints means over the seeds and differences from the first variant, paired
by seed. All variants have equal cost: the GAN from scratch, which has no VAE, takes more steps.
Finished runs are skipped; `--table` only prints the results. docs/transfer.md explains why this
does not answer whether the warm start helps.
"""

import argparse
import json
import pathlib
import shutil
import sys
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy import stats

from vaegan_jax import checkpoints, gan, networks, randomness
from vaegan_jax import config as configuration
from vaegan_jax.data import images
from vaegan_jax.evaluation import comparison, embeddings, latents, number
from vaegan_jax.pipeline import run

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from configs import quickstart

# Time of a VAE step of the quickstart relative to a GAN step, by benchmarks/step_time.py.
VAE_STEP_COST = 0.96
SAMPLES = 1_000

_WARM = {"transfer.match_posterior": False}
VARIANTS = {
    "warm": _WARM,
    "scratch, equal cost": {"transfer.generator": "scratch"},
    "match_posterior": {"transfer.match_posterior": True},
    "no discriminator warm-up": _WARM | {"gan.discriminator_warmup_steps": 0},
    "discriminator warm-up of 200 steps": _WARM | {"gan.discriminator_warmup_steps": 200},
}


def make_config(seed: int, fraction: float, variant: str) -> ConfigDict:
    """Returns the quickstart's config with fewer steps and the fields of a variant."""
    config = quickstart.get_config()
    config.seed = seed
    config.vae.steps = round(config.vae.steps * fraction)
    config.gan.steps = round(config.gan.steps * fraction)
    config.gan.penalty_every = 1  # as in the measurements in docs/transfer.md
    config.evaluation.embeddings = "none"
    config.training.picture_every = config.training.checkpoint_every = 10_000
    config.training.max_checkpoints = 1
    config.update_from_flattened_dict(VARIANTS[variant])
    if config.transfer.generator == "scratch":
        config.gan.steps += round(VAE_STEP_COST * config.vae.steps)
    return config


class Evaluator:
    """Metrics of samples against the test images, whose features are computed once."""

    def __init__(self, config: ConfigDict) -> None:
        data = images.load(config.data)
        self.shape = data.shape
        self.embedding = embeddings.make("efflite0_224")
        test = data.test.take(np.arange(len(data.test)))
        self.real = comparison.reference(embeddings.extract(self.embedding, test))

    def __call__(self, config: ConfigDict, folder: pathlib.Path) -> dict[str, float]:
        """Returns the metrics of the final generator of a run."""
        init = jax.eval_shape(lambda: gan.random_init(config, self.shape))
        directory, path = folder / "checkpoints" / "gan", ("ema",)
        params = checkpoints.read(directory, config.gan.steps, {path: init.generator})[path]
        z = randomness.latents(
            number.evaluation_key(0, 0, randomness.Purpose.LATENT),
            (SAMPLES, config.model.latent_size),
        )
        decode = jax.jit(networks.make_decode(config.model, self.shape))
        fakes = embeddings.extract(self.embedding, latents.decode_images(decode, params, z))
        metrics = jax.device_get(comparison.compare(self.real, fakes))
        return {name: float(metrics[name]) for name in ("frechet", "kernel", "precision", "recall")}


def train_missing(workdir: pathlib.Path, seeds: list[int], fraction: float) -> None:
    """Trains and evaluates the variants that are not in results.jsonl yet."""
    results = workdir / "results.jsonl"
    workdir.mkdir(parents=True, exist_ok=True)
    done = {(line["seed"], line["variant"]) for line in read(results)}
    evaluate = None
    for seed in seeds:
        for variant in VARIANTS:
            if (seed, variant) in done:
                continue
            config = make_config(seed, fraction, variant)
            configuration.check(config)
            folder = workdir / f"{seed}_{list(VARIANTS).index(variant)}"
            first = workdir / f"{seed}_0" / "checkpoints" / "vae"
            if config.transfer.generator == "vae" and first.exists() and not folder.exists():
                shutil.copytree(first, folder / "checkpoints" / "vae")
                (folder / "config.json").write_text(configuration.to_json(config))
            run.train_and_evaluate(config, folder, ("vae", "gan"))
            evaluate = evaluate or Evaluator(config)
            line = {"seed": seed, "variant": variant, "fraction": fraction}
            line |= {"gan_steps": config.gan.steps} | evaluate(config, folder)
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)


def read(results: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of results.jsonl."""
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )


def table(workdir: pathlib.Path) -> None:
    """Prints means and paired differences with 95 % t intervals."""
    lines = read(workdir / "results.jsonl")
    values = {(line["seed"], line["variant"]): line for line in lines}
    first = next(iter(VARIANTS))
    print(
        "| variant | GAN steps | fd_efflite0_224, by seed | mean | first row minus this one | kd |"
    )
    print("|---|---|---|---|---|---|")
    for variant in VARIANTS:
        seeds = sorted(seed for seed, name in values if name == variant)
        if not seeds:
            continue

        def column(metric: str, name: str, seeds: list[int] = seeds) -> np.ndarray:
            return np.array(
                [values[seed, name][metric] for seed in seeds if (seed, name) in values]
            )

        frechet = column("frechet", variant)
        difference = "" if variant == first else interval(column("frechet", first) - frechet)
        steps = values[seeds[0], variant]["gan_steps"]
        each = ", ".join(f"{value:.0f}" for value in frechet)
        kernel = column("kernel", variant).mean()
        print(
            f"| {variant} | {steps} | {each} | {interval(frechet)} | {difference} | {kernel:.3f} |"
        )


def interval(values: np.ndarray) -> str:
    """Returns the mean and the half-width of its 95 % t interval, as text."""
    if len(values) < 2:
        return f"{values.mean():.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.1f} ± {half:.1f}"


def main() -> None:
    """Trains the missing runs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fraction", type=float, default=1.0, help="of the quickstart's steps")
    parser.add_argument("--table", action="store_true", help="only print the results")
    args = parser.parse_args()
    if not args.table:
        train_missing(args.workdir, args.seeds, args.fraction)
    table(args.workdir)


if __name__ == "__main__":
    main()
