"""What the loop costs: the rate of a whole stage, with all that it writes, against its bare steps.

    python benchmarks/loop.py --config configs/quickstart.py

For each stage, in turns: as many steps alone, in the jitted call that training makes; and
`loop.train` in a new folder from the end of its first call (which compiles) to its return, with
metrics, pictures and checkpoints at the intervals of the config. Distances, which are taken on the
way, are left out: their seconds are told apart in a run too. Every stage is held against the bare
steps right before and right after it, so that a drift of the machine's speed cancels out to first
order; medians over the rounds are printed, and of the shares the range. A share says how much of
the time that a stage takes goes into steps.
"""

import argparse
import contextlib
import io
import itertools
import os
import pathlib
import runpy
import statistics
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vaegan_jax import workdir
from vaegan_jax.data import feed, images
from vaegan_jax.pipeline import stages
from vaegan_jax.runtime import compilation, environment, parallel
from vaegan_jax.training import loop


class Clock:
    """Stands where the loop asks whether to stop, and notes when it asked first."""

    def __init__(self) -> None:
        self.began: float | None = None

    @property
    def signal(self) -> None:
        """No signal, ever."""
        self.began = self.began or time.perf_counter()


def whole(make_stage: Any, config: ConfigDict, data: images.Images) -> float:
    """Returns the seconds a step of a stage in a folder of its own, after its first call."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "run"
        with workdir.open_workdir(path, config) as opened:
            clock: Any = Clock()
            stage = make_stage(config, data, opened)
            with contextlib.redirect_stdout(io.StringIO()):  # of the lines that it prints
                loop.train(stage, data.train, config, opened, clock)
            seconds = time.perf_counter() - clock.began
    return seconds / (stage.steps - 1)  # the first call takes one step


class Bare:
    """A stage's jitted call, and nothing else."""

    def __init__(self, make_stage: Any, config: ConfigDict, data: images.Images) -> None:
        self.stage = make_stage(config, data, None)
        self.most = most = config.training.log_every
        mesh = parallel.make_mesh()
        self.call = loop.make_call(self.stage, most, config.data.flip, mesh)
        batches = feed.Batches(
            config.seed, self.stage.number, self.stage.batch_size, len(data.train)
        )
        served = feed.Resident(data.train, batches).serve(0, most)
        indices = jnp.asarray(served.indices)
        seed = jnp.uint32(config.seed)
        self.block = loop.Block(served.images, indices, indices, jnp.int32(most), seed)
        self.state = parallel.put_state(self.stage.init(), parallel.replicated(mesh))
        self.run(1)

    def run(self, steps: int) -> float:
        """Takes steps, `log_every` a call; returns the seconds a step."""
        began = time.perf_counter()
        for done in range(0, steps, self.most):
            count = jnp.int32(min(self.most, steps - done))
            self.state, _ = self.call(self.state, self.block._replace(steps=count))
        jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / steps


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--steps", type=int, default=0, help="of a stage; a checkpoint's interval")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    config = runpy.run_path(flags.config)["get_config"]()
    steps = flags.steps or config.training.checkpoint_every
    config.vae.steps = config.gan.steps = steps
    config.transfer.generator = "scratch"  # so that the GAN needs no VAE
    # Past the warm-up from the first step on, so that every step is a whole one.
    config.gan.discriminator_warmup_steps = 0
    data = images.load(config.data)
    facts = environment.facts()
    print(f"{jax.devices()[0].device_kind}, {facts['cpu']}, {os.cpu_count()} cores, ", end="")
    print(f"jax {jax.__version__}, {flags.config}, {steps} steps\n")
    print("| stage | bare steps, s a step | the loop, s a step | share of steps |")
    print("|---|---|---|---|", flush=True)
    compilation.enable_cache(tempfile.mkdtemp())
    for name, make_stage in (("vae", stages.make_vae_stage), ("gan", stages.make_gan_stage)):
        bare, loop = Bare(make_stage, config, data), list[float]()
        alone = [bare.run(steps)]
        for _ in range(flags.rounds):
            loop.append(whole(make_stage, config, data))
            alone.append(bare.run(steps))
        around = [statistics.mean(pair) for pair in itertools.pairwise(alone)]
        shares = [bare_s / whole_s for bare_s, whole_s in zip(around, loop, strict=True)]
        row = [name, f"{statistics.median(alone):.4f}", f"{statistics.median(loop):.4f}"]
        row.append(f"{statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
