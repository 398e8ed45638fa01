"""Start-up time until the first step, and optionally the time of a full run.

    python benchmarks/time_to_picture.py --config configs/quickstart.py
    python benchmarks/time_to_picture.py --config configs/comic_faces.py      # on a GPU

Starts `launch.py` twice in an empty workdir, first with an empty compilation cache ("cold") and
then with that of the first run ("warm"). The first step has finished when the first line of metrics
is written; the run writes one per step. `--full_run` also times full runs, cold and warm, and
prints the output of the warm one. Data is prepared before the measurement.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import common

from vaegan_jax.data import images

ROOT = pathlib.Path(__file__).resolve().parent.parent


def start(
    config: str, workdir: pathlib.Path, cache: pathlib.Path, *flags: str
) -> subprocess.Popen[str]:
    """Starts a run in a new folder."""
    command = [sys.executable, str(ROOT / "launch.py"), "--config", config]
    command += ["--workdir", str(workdir), "--compilation_cache", str(cache), *flags]
    output = workdir.with_suffix(".txt").open("w")
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def first_step(config: str, workdir: pathlib.Path, cache: pathlib.Path, *flags: str) -> float:
    """Returns the seconds from the command to the end of the first step."""
    began = time.perf_counter()
    fields = {"vae.steps": 2, "gan.steps": 2, "gan.discriminator_warmup_steps": 0}
    fields |= {"training.log_every": 1, "training.picture_every": 1}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    with start(config, workdir, cache, *overrides, *flags) as process:
        metrics = workdir / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                raise SystemExit(workdir.with_suffix(".txt").read_text())
            time.sleep(0.005)
        return time.perf_counter() - began


def full_run(config: str, workdir: pathlib.Path, cache: pathlib.Path) -> tuple[float, str]:
    """Returns the seconds that a full run takes, and its output."""
    began = time.perf_counter()
    with start(config, workdir, cache) as process:
        code = process.wait()
    seconds, output = time.perf_counter() - began, workdir.with_suffix(".txt").read_text()
    if code:
        raise SystemExit(output)
    return seconds, output


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--full_run", action="store_true", help="also time full runs")
    args = parser.parse_args()
    images.load(common.load_config(args.config).data)
    print(f"{common.machine()}\n")
    print("| | cold, s | warm, s |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        for stage in ("vae", "gan"):
            flags = ["--stages", stage]
            if stage == "gan":
                flags.append("--config.transfer.generator=scratch")
            seconds = [
                first_step(args.config, base / f"{stage}_{kind}", base / f"{stage}_cache", *flags)
                for kind in ("cold", "warm")
            ]
            print(f"| first step of {stage} | {seconds[0]:.1f} | {seconds[1]:.1f} |", flush=True)
        if args.full_run:
            runs = [full_run(args.config, base / kind, base / "cache") for kind in ("cold", "warm")]
            print(f"| full run | {runs[0][0]:.0f} | {runs[1][0]:.0f} |\n")
            print(runs[1][1])


if __name__ == "__main__":
    main()
