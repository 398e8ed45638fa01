"""Fault injection: a run that is killed and damaged repeatedly must equal an uninterrupted run.

    python benchmarks/faults.py --workdir runs/faults --kills 50

Processes are killed by SIGKILL at random times: during compilation, steps, saving, evaluation or
between stages. After some kills, the newest checkpoint is damaged: a flipped bit, a truncated file,
a missing file or a missing checksum manifest. Prints the number of faults of each kind, and exits
with 0 only if the final checkpoints, metrics and evaluation are bit-identical.
"""

import argparse
import collections
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time
from typing import Any

QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = (
    "--config.vae.steps=120", "--config.gan.steps=120", "--config.training.log_every=5",
    "--config.training.checkpoint_every=5", "--config.training.picture_every=40",
    "--config.training.seconds_per_call=0.001", "--config.evaluation.curve_every=20",
)  # fmt: skip


def command(workdir: pathlib.Path) -> list[str]:
    """Returns the command line of the run."""
    config = ROOT / "configs" / "smoke.py"
    return [
        sys.executable, str(ROOT / "launch.py"), "--config", str(config),
        "--workdir", str(workdir), *FLAGS,
    ]  # fmt: skip


def last_event(workdir: pathlib.Path) -> str:
    """Returns the last event of a run, such as a stage or the evaluation."""
    try:
        lines = (workdir / "events.jsonl").read_text().splitlines()
        return str(json.loads(lines[-1])["event"]).partition(":")[0]
    except (OSError, IndexError, ValueError):
        return "start"


def saved(workdir: pathlib.Path, stage: str) -> list[pathlib.Path]:
    """Returns the checkpoints of a stage, the newest last."""
    folder = workdir / "checkpoints" / stage
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return [folder / str(step) for step in sorted(steps)]


def damage(workdir: pathlib.Path, rng: random.Random) -> str:
    """Damages the newest checkpoint; returns the kind of damage, or "" without two checkpoints."""
    stages = [saved(workdir, stage) for stage in ("gan", "vae")]
    # A run does not resume if all checkpoints of a stage are damaged.
    newest = next((paths[-1] for paths in stages if len(paths) > 1), None)
    if newest is None:
        return ""
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    file = rng.choice(files)
    kind = rng.choice(["flipped bit", "truncated file", "missing file", "missing manifest"])
    data = bytearray(file.read_bytes())
    if kind == "flipped bit":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
    elif kind == "truncated file":
        file.write_bytes(data[: rng.randrange(len(data))])
    elif kind == "missing file":
        file.unlink()
    else:
        (newest / "checksums.json").unlink(missing_ok=True)
    return kind


def main() -> int:
    """Runs both runs and compares them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=50, help="number of SIGKILLs")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    reference, killed = args.workdir / "reference", args.workdir / "killed"
    began = time.monotonic()
    subprocess.run(command(reference), check=True, **QUIET)
    duration = time.monotonic() - began
    print(f"uninterrupted run: {duration:.0f} s", flush=True)

    kills: collections.Counter[str] = collections.Counter()
    damages: collections.Counter[str] = collections.Counter()
    while sum(kills.values()) < args.kills:
        process = subprocess.Popen(command(killed), **QUIET)
        # Often early, so that one run can be killed many times.
        low, high = rng.choice([(0, duration / 3), (duration / 4, duration / 2)])
        try:
            code = process.wait(timeout=rng.uniform(low, high))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills[last_event(killed)] += 1
            if rng.random() < 0.25 and (kind := damage(killed, rng)):
                damages[kind] += 1
            continue
        if code:
            print(f"A resumed run exited with {code} after {sum(kills.values())} kills.")
            return 1
        # The run finished before all kills: remove its last checkpoints, so that it resumes.
        for path in saved(killed, "gan")[1:]:
            shutil.rmtree(path)
    subprocess.run(command(killed), check=True, **QUIET)
    print("\n| last event before the kill | count |\n|---|---|")
    for name, count in kills.items():
        print(f"| {name} | {count} |")
    print("\n| damage of the newest checkpoint | count |\n|---|---|")
    for name, count in damages.items():
        print(f"| {name} | {count} |")
    print(flush=True)
    return subprocess.run(
        [sys.executable, "-m", "vaegan_jax.cli.main", "compare", str(reference), str(killed)],
        cwd=ROOT,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
