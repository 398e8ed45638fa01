"""Overhead of the training loop: time per step of a complete stage and of its steps alone.

    python benchmarks/loop.py --config configs/quickstart.py

For each stage, alternates between the jitted call of training alone and `loop.train` in a new
folder, timed from the end of its first call (which compiles) to its return, with metrics, image
grids and checkpoints at the intervals of the config, but without evaluations during training.
Each stage is compared with the mean of the steps before and after it, so that a drift of the
machine's speed cancels to first order. Prints medians over the rounds, and the ratio of the two
times with its range: the fraction of a stage's time that is spent in steps.
"""

import argparse
import contextlib
import io
import itertools
import pathlib
import statistics
import tempfile
import time
from typing import Any
from unittest import mock

import common
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vaegan_jax import workdir
from vaegan_jax.config import recipe
from vaegan_jax.data import feed, images
from vaegan_jax.pipeline import stages
from vaegan_jax.runtime import compilation, parallel
from vaegan_jax.training import loop


class Clock:
    """A signal handler that never receives a signal, and records when the loop first polls it."""

    def __init__(self) -> None:
        self.began: float | None = None

    @property
    def signal(self) -> None:
        """The received signal: always None."""
        self.began = self.began or time.perf_counter()


def time_stage(make_stage: Any, config: ConfigDict, data: images.Images) -> float:
    """Returns the seconds per step of a complete stage in a new folder, after its first call."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "run"
        with workdir.open_workdir(path, config) as opened:
            clock = Clock()
            stage = make_stage(config, data, opened)
            handler = mock.patch.object(
                loop, "StopRequest", return_value=contextlib.nullcontext(clock)
            )
            with handler, contextlib.redirect_stdout(io.StringIO()):
                loop.train(stage, data.train, config, opened)
            seconds = time.perf_counter() - clock.began
    return seconds / (stage.steps - 1)  # the first call takes one step


class Steps:
    """The jitted call of a stage, without the training loop."""

    def __init__(self, make_stage: Any, config: ConfigDict, data: images.Images) -> None:
        self.stage = make_stage(config, data, None)
        self.max_steps = max_steps = config.training.log_every
        self.call = loop.make_call(self.stage, max_steps, config.data.flip)
        batches = feed.Batches(
            config.seed, self.stage.number, self.stage.batch_size, len(data.train)
        )
        served = feed.Resident(data.train, batches).serve(0, max_steps)
        indices = jnp.asarray(served.indices)
        seed = jnp.uint32(config.seed)
        self.block = loop.Block(served.images, indices, indices, jnp.int32(max_steps), seed)
        self.state = parallel.put_state(self.stage.init())
        self.run(1)

    def run(self, steps: int) -> float:
        """Runs steps, `log_every` per call; returns the seconds per step."""
        began = time.perf_counter()
        for done in range(0, steps, self.max_steps):
            count = jnp.int32(min(self.max_steps, steps - done))
            self.state, _ = self.call(self.state, self.block._replace(steps=count))
        jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / steps


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--steps", type=int, default=0, help="0 for training.checkpoint_every")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    config = common.load_config(args.config)
    steps = args.steps or config.training.checkpoint_every
    config.vae.steps = config.gan.steps = steps
    config.transfer.generator = "scratch"  # so that the GAN needs no VAE
    # Without a warm-up, every step updates both networks.
    config.gan.discriminator_warmup_steps = 0
    data = images.load(config.data)
    config = recipe.resolve(config, len(data.train), data.shape)
    print(f"{common.machine()}, {args.config}, {steps} steps\n")
    print("| stage | steps alone, s per step | training loop, s per step | ratio |")
    print("|---|---|---|---|", flush=True)
    compilation.enable_cache(tempfile.mkdtemp())
    for name, make_stage in (("vae", stages.make_vae_stage), ("gan", stages.make_gan_stage)):
        alone, stage_times = Steps(make_stage, config, data), list[float]()
        step_times = [alone.run(steps)]
        for _ in range(args.rounds):
            stage_times.append(time_stage(make_stage, config, data))
            step_times.append(alone.run(steps))
        neighbours = [statistics.mean(pair) for pair in itertools.pairwise(step_times)]
        ratios = [step / stage for step, stage in zip(neighbours, stage_times, strict=True)]
        row = [
            name,
            *(f"{statistics.median(times):.4f}" for times in (step_times, stage_times)),
        ]
        row.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
