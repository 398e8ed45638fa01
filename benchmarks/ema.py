"""Compares averages of the generator's weights: half-lives with and without a ramp.

    python benchmarks/ema.py --workdir runs/ema

Trains the VAE of the quickstart, and its GAN once per seed, with several averages beside the state,
which does not change training. Prints the Frechet distance between samples of each and the
validation images, at several steps. `--table` only prints the results. metrics_*.json has the GAN's
scalars, as means over the steps between two lines.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vaegan_jax import gan, networks, randomness, recipe, workdir
from vaegan_jax.data import feed, images
from vaegan_jax.evaluation import distances, embeddings, latents, number
from vaegan_jax.pipeline import run, stages
from vaegan_jax.runtime import parallel
from vaegan_jax.training import loop

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from configs import quickstart

RAMPS = {"raw": 0.0, "0.02": 0.02, "0.05": 0.05, "0.1": 0.1, "0.2": 0.2, "none": float("inf")}
"""`ema_decay`'s ramp by name: 0 keeps the generator itself, infinity a fixed half-life."""

SAMPLES = 500


class Averaged(flax.struct.PyTreeNode):
    """A GAN's state and one average of its generator per entry of `RAMPS`."""

    gan: gan.GANState
    averages: dict[str, optax.Params]

    @property
    def step(self) -> jax.Array:
        """Steps taken."""
        return self.gan.step


def averaging_stage(config: ConfigDict, data: images.Images, folder: workdir.Workdir) -> loop.Stage:
    """Returns the GAN stage of a run with an `Averaged` state."""
    stage = stages.make_gan_stage(config, data, folder)

    def init() -> Averaged:
        state = stage.init()
        return Averaged(state, {name: jax.tree.map(jnp.copy, state.ema) for name in RAMPS})

    def step(state: Averaged, real: jax.Array, key: jax.Array) -> tuple[Averaged, gan.Scalars]:
        new, scalars = stage.step(state.gan, real, key)
        batch_size = len(real)
        seen = batch_size * gan.generator_updates(new.step - 1, config.gan)
        averages = {}
        for name, ramp in RAMPS.items():
            half_life = config.gan.ema_half_life_images
            decay = (
                gan.ema_decay(seen, batch_size, half_life, ramp)
                if np.isfinite(ramp)
                else 0.5 ** (batch_size / half_life)
            )
            averages[name] = optax.incremental_update(
                new.generator, state.averages[name], 1 - decay
            )
        return Averaged(new, averages), scalars

    return dataclasses.replace(stage, init=init, step=step)


class Evaluator:
    """The Frechet distance of samples to the validation images."""

    def __init__(self, config: ConfigDict, data: images.Images, size: int) -> None:
        self.embedding = embeddings.make(f"efflite0_{size}")
        validation = data.validation.take(np.arange(len(data.validation)))
        self.real = distances.gaussian(embeddings.extract(self.embedding, validation))
        self.decode = jax.jit(networks.make_decode(config.model, data.shape))
        self.z = randomness.latents(
            number.evaluation_key(0, 0, randomness.Purpose.LATENT),
            (SAMPLES, config.model.latent_size),
        )

    def __call__(self, params: optax.Params) -> float:
        """Returns the distance for the parameters of a generator."""
        fakes = latents.decode_images(self.decode, params, self.z)
        features = embeddings.extract(self.embedding, fakes)
        return float(distances.frechet(self.real, distances.gaussian(features)))


def train(path: pathlib.Path, seed: int, measured: list[int], size: int) -> None:
    """Trains a GAN; writes the distances of all averages at the measured steps."""
    config = quickstart.get_config()
    config.evaluation.embeddings = "none"
    run.train_and_evaluate(config, path / "vae", ("vae",))
    config.seed, config.gan.steps = seed, max(measured)
    data = images.load(config.data)
    config = recipe.resolve(config, len(data.train), data.shape)
    evaluate, lines, metrics = Evaluator(config, data, size), [], []
    stage = averaging_stage(config, data, workdir.Workdir(path / "vae"))
    batches = feed.Batches(seed, stage.number, stage.batch_size, len(data.train))
    mesh, max_steps = parallel.make_mesh(), config.training.log_every
    call = loop.make_call(stage, max_steps, config.data.flip)
    resident = feed.Resident(data.train, batches)
    state = parallel.put_state(stage.init(), parallel.replicated(mesh))
    for step in range(max_steps, config.gan.steps + 1, max_steps):
        served = resident.serve(step - max_steps, max_steps)
        indices = jnp.asarray(served.indices)
        block = loop.Block(served.images, indices, indices, jnp.int32(max_steps), jnp.uint32(seed))
        state, rows, _ = call(state, block)
        metrics.append({"step": step} | {name: float(row.mean()) for name, row in rows.items()})
        if step in measured:
            line: dict[str, Any] = {"seed": seed, "step": step}
            line |= {name: evaluate(state.averages[name]) for name in RAMPS}
            print(line, flush=True)
            lines.append(line)
        (path / f"distances_{seed}.json").write_text(json.dumps(lines))
        (path / f"metrics_{seed}.json").write_text(json.dumps(metrics))


def main() -> None:
    """Trains all seeds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 400, 700, 1_400])
    parser.add_argument("--size", type=int, default=64, help="input size of the embedding")
    parser.add_argument("--table", action="store_true", help="only print the results")
    args = parser.parse_args()
    lines = []
    for seed in args.seeds:
        if not args.table:
            train(args.workdir, seed, args.steps, args.size)
        lines += json.loads((args.workdir / f"distances_{seed}.json").read_text())
    print(f"| seed | GAN steps | {' | '.join(RAMPS)} |")
    print("|---|---|" + "---|" * len(RAMPS))
    for line in sorted(lines, key=lambda line: (line["step"], line["seed"])):
        values = " | ".join(f"{line[name]:.1f}" for name in RAMPS)
        print(f"| {line['seed']} | {line['step']} | {values} |")


if __name__ == "__main__":
    main()
