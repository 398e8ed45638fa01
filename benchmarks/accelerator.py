"""What to measure on a borrowed GPU, in three commands of at most ten minutes each.

    python benchmarks/accelerator.py correct --out results    # layers, steps and evaluation
    python benchmarks/accelerator.py speed --out results      # compiler flags, PyTorch
    python benchmarks/accelerator.py run --out results        # same bits twice, loop, profile
    python benchmarks/accelerator.py all --tiny --out results # every part at a small size, on a CPU

Each part is a process with its own XLA flags and time limit, whose output goes to a file in the
folder of results; its tables and verdicts are printed, too, so that one part that fails does not
cost the others. PyTorch is timed if it is installed.
"""

import argparse
import functools
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
GRAPHS = "--xla_gpu_enable_command_buffer=+CONVOLUTION,+CONDITIONAL,+WHILE"
FLAGS = {
    "default": "",
    "convolutions in CUDA graphs": "--xla_gpu_enable_command_buffer=+CONVOLUTION",
    "whole loop in CUDA graphs": GRAPHS,
    "deterministic": DETERMINISTIC,
    "deterministic, CUDA graphs": f"{DETERMINISTIC} {GRAPHS}",
    "deterministic, autotuned": "--xla_gpu_exclude_nondeterministic_ops=true",
}
"""XLA flags to compare. An unknown flag ends the process, and so only its part."""

SHAPE = (64, 64, 3)
# Largest relative errors with exact float32 products and with those of the default precision.
PRECISIONS = {"highest": (1e-4, 2e-3), "default": (3e-3, 5e-2)}


class Part(NamedTuple):
    """A process to run.

    Attributes:
      name: in the output, and of its file.
      seconds: its time limit.
      command: the arguments of Python.
      flags: of XLA.
    """

    name: str
    seconds: int
    command: list[str]
    flags: str = ""


def parts(command: str, out: pathlib.Path, tiny: bool) -> Iterator[Part]:
    """Yields the parts of a subcommand."""
    flags = {"default": ""} if tiny else FLAGS
    this, size = [str(pathlib.Path(__file__))], ["--tiny"] if tiny else []
    step = ["benchmarks/step_time.py", "--without_stock", "--penalty_every", "4"]
    if tiny:
        step += ["--base_width", "4", "--batch", "8", "--steps", "4", "--rounds", "1"]
    else:
        step += ["--base_width", "64", "--batch", "64", "--steps", "320", "--rounds", "5"]
    if command in ("correct", "all"):
        yield Part("layers and steps", 240, [*this, "check_steps", *size])
        for name in ("default", "deterministic"):
            if name in flags:
                evaluate = [*this, "check_evaluation", *size]
                yield Part(f"evaluation, {name}", 120, evaluate, flags[name])
    if command in ("speed", "all"):
        for name, value in flags.items():
            yield Part(f"steps, {name}", 65, [*step, "--torch_modes"], value)
        torch = [*step, "--torch_modes", "eager", *([] if tiny else ["reduce-overhead"])]
        yield Part("steps, with PyTorch", 200, torch)
    if command in ("run", "all"):
        yield from run_parts(out, tiny)


def run_parts(out: pathlib.Path, tiny: bool) -> Iterator[Part]:
    """Yields the parts that run whole stages."""
    steps = 4 if tiny else 400
    fields = {"vae.steps": steps, "gan.steps": steps, "gan.discriminator_warmup_steps": 2}
    fields |= {"training.checkpoint_every": steps, "evaluation.embeddings": "none"}
    fields |= {"evaluation.curve_every": 0}
    if tiny:
        fields |= {"data.image_size": 16, "model.base_width": 4}
    short = [f"--config.{name}={value}" for name, value in fields.items()]
    short.append("--stages=vae,gan")
    config = ["--config", "configs/smoke.py" if tiny else "configs/comic_faces.py"]
    runs = [str(out / name) for name in ("first", "second")]
    for run in runs:
        yield Part(
            f"{pathlib.Path(run).name} run", 90, ["launch.py", *config, "--workdir", run, *short]
        )
    yield Part("same bits", 60, ["-m", "vaegan_jax.cli.main", "compare", *runs])
    profile = ["--workdir", str(out / "profiled"), "--profile", "--nodeterministic"]
    yield Part("profile", 90, ["launch.py", *config, *profile, *short])
    loop = ["benchmarks/loop.py", *config, "--rounds", "1" if tiny else "2"]
    yield Part("loop", 120, [*loop, "--steps", str(4 if tiny else 1000)])
    config[1] = config[1].replace("comic_faces", "quickstart")
    whole = [] if tiny else ["--full_run"]
    yield Part("time to picture", 250, ["benchmarks/time_to_picture.py", *config, *whole])


def run_part(part: Part, out: pathlib.Path, limit: float) -> None:
    """Runs a part, and prints its verdict, tables and errors."""
    began, log = time.perf_counter(), out / f"{part.name.replace(', ', '_').replace(' ', '_')}.txt"
    variables = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    if part.flags:
        variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {part.flags}".strip()
    command = [sys.executable, *part.command]
    with log.open("w") as file:
        result: Any = "time limit"
        try:
            options = {"cwd": ROOT, "env": variables, "timeout": limit}
            process = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, **options)
            result = f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            pass
    print(f"\n{part.name}: {result}, {time.perf_counter() - began:.0f} s", flush=True)
    lines = log.read_text(errors="replace").splitlines()
    shown = [
        line
        for line in lines
        if line.startswith(("|", "ok", "FAILED")) or "Error" in line or "identical" in line
    ]
    print("\n".join(shown or lines[-3:]), flush=True)


def say(is_right: bool, *facts: Any) -> None:
    """Prints a verdict."""
    print("ok    " if is_right else "FAILED", *facts, flush=True)


def check_steps(tiny: bool) -> None:
    """Compares layers, their second derivatives, and train steps with those on the CPU."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu" if tiny else "cuda,cpu")
    import jax
    import jax.numpy as jnp
    import numpy as np

    from vaegan_jax import layers

    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    rng = np.random.default_rng(0)

    def strided(x: Any, k: Any, g: Any) -> Any:
        def loss(k: Any) -> Any:
            return jnp.sum(layers.smooth_down(x, k) ** 2)

        second = jax.grad(lambda k: jnp.sum(jax.grad(loss)(k) ** 2))(k)
        first = layers.smooth_down(x, k), layers.smooth_up(g, k), layers.smooth_correlate(x, g)
        return *first, second

    def compare(name: str, call: Callable[..., Any], arrays: list[np.ndarray]) -> None:
        with jax.enable_x64(True), jax.default_device(cpu):
            doubles = [jnp.asarray(array, jnp.float64) for array in arrays]
            expected = jax.device_get(jax.jit(call)(*doubles))
        for precision, (limit, _) in PRECISIONS.items():
            with jax.default_matmul_precision(precision):
                floats = [jax.device_put(array.astype(np.float32), device) for array in arrays]
                result = jax.device_get(jax.jit(call)(*floats))
            errors = [
                float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))
                for a, b in zip(result, expected, strict=True)
            ]
            say(max(errors) < limit, name, precision, [f"{error:.1e}" for error in errors])

    sizes = [(64, 3, 32), (32, 32, 64), (16, 64, 128), (8, 128, 256)]
    for side, c, o in sizes[:1] if tiny else sizes:
        x, g = (rng.standard_normal((16, n, n, m)) for n, m in ((side, c), (side // 2, o)))
        k = rng.standard_normal((3, 3, c, o)) / (6 * c**0.5)
        compare(f"strided layers, {side}x{side}, {c} to {o}:", strided, [x, k, g])
    x, k = rng.standard_normal((16, 64, 64, 16)), rng.standard_normal((3, 3, 16, 3)) / 12
    compare("convolution, 64x64, 16 to 3:", lambda x, k: (layers.conv(x, k),), [x, k])
    for stage in ("vae", "gan"):
        check_step(stage, 4 if tiny else 16, device, cpu)


def check_step(stage: str, width: int, device: Any, cpu: Any) -> None:
    """Compares the scalars of one step with those on the CPU."""
    import jax
    import numpy as np

    from vaegan_jax import config as configuration
    from vaegan_jax import gan, vae
    from vaegan_jax.randomness import Stage, step_key

    config = configuration.default_config()
    config.model.base_width = width
    config.vae.batch_size = config.gan.batch_size = 16
    config.gan.discriminator_warmup_steps, config.gan.ema_half_life_images = 0, 1e4
    config.gan.penalties, config.gan.augmentations = "r1(weight=3.0, every=4)", ""
    images = np.random.default_rng(0).uniform(-1, 1, (16, *SHAPE)).astype(np.float32)

    def scalars(place: Any, precision: str) -> Any:
        with jax.default_device(place), jax.default_matmul_precision(precision):
            if stage == "vae":
                number, step = Stage.VAE, vae.make_train_step(config, SHAPE)
                state = jax.jit(functools.partial(vae.init, config, SHAPE))()
            else:
                number, step = Stage.GAN, gan.make_train_step(config, SHAPE)
                init = functools.partial(gan.init, config, SHAPE)
                state = jax.jit(lambda: init(gan.random_init(config, SHAPE)))()
            return jax.device_get(jax.jit(step)(state, images, step_key(0, number, 0))[1])

    expected = scalars(cpu, "highest")
    for precision, (_, limit) in PRECISIONS.items():
        result = scalars(device, precision)
        errors = {
            name: abs(float(result[name] - value)) / (abs(float(value)) + 1e-3)
            for name, value in expected.items()
        }
        worst = max(errors, key=lambda name: errors[name])
        say(errors[worst] < limit, f"{stage} step:", precision, worst, f"{errors[worst]:.1e}")


def check_evaluation(tiny: bool) -> None:
    """Compiles and times the embeddings and the comparison of their features."""
    import jax
    import numpy as np

    from vaegan_jax.evaluation import distances, embeddings

    count = 40 if tiny else 1000
    images = np.random.default_rng(0).integers(0, 256, (128, *SHAPE)).astype(np.uint8)
    for name in ("pixels",) if tiny else ("pixels", "efflite0", "alexnet"):
        embedding = embeddings.make(name)
        embed, params = jax.jit(embedding.embed), jax.device_put(embedding.params)
        first = jax.block_until_ready(embed(params, images))
        began = time.perf_counter()
        for _ in range(5):
            again = jax.block_until_ready(embed(params, images))
        speed = 5 * len(images) / (time.perf_counter() - began)
        same = bool((first == again).all())
        say(same, f"{embedding.name}: {speed:.0f} images/s, same bits twice: {same}")
    shape = 2, count, 64 if tiny else 1280
    real, fake = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    compare = distances.make_compare(real)
    for _ in range(2):
        began = time.perf_counter()
        numbers = compare(fake)
        seconds = time.perf_counter() - began
    say(np.isfinite(numbers["frechet"]), f"{count} features compared in {seconds:.3f} s")


def main() -> None:
    """Runs the parts of a subcommand, or one of this file's own parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    own = {"check_steps": check_steps, "check_evaluation": check_evaluation}
    parser.add_argument("command", choices=["correct", "speed", "run", "all", *own])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("accelerator"))
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try it on a CPU")
    args = parser.parse_args()
    if args.command in own:
        own[args.command](args.tiny)
        return
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for part in parts(args.command, out, args.tiny):
        # A busy CPU takes longer than a GPU, even at a small size.
        run_part(part, out, 1800 if args.tiny else part.seconds)


if __name__ == "__main__":
    main()
