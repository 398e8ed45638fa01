"""Kills a run again and again, damages what it saved, and holds the end against an undisturbed one.

    python benchmarks/faults.py --workdir runs/faults --kills 50

Real processes are ended by SIGKILL at random times: while compiling, within a step, while saving,
between the stages, during the evaluation. Between two of them now and then the newest checkpoint
is damaged: a bit flipped, a file cut short, the manifest or a file taken away. Prints what was done
and when, and exits with 0 only if checkpoints, metrics, pictures and evaluation are equal in the
end.
"""

import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys
import time

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


def where(workdir: pathlib.Path) -> str:
    """Returns how far a run has come by what it has noted: a stage, or its evaluation."""
    try:
        lines = (workdir / "events.jsonl").read_text().splitlines()
        return str(json.loads(lines[-1])["event"]).partition(":")[0]
    except (OSError, IndexError, ValueError):
        return "start"


def damage(workdir: pathlib.Path, draw: random.Random) -> str:
    """Damages the newest checkpoint of a stage; says how, or nothing where there is none."""
    found = [
        path for path in workdir.glob("checkpoints/*/*") if path.name.isdigit() and path.is_dir()
    ]
    if not found:
        return ""
    newest = max(found, key=lambda path: (path.parent.name == "gan", int(path.name)))
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    victim = draw.choice(files)
    how = draw.choice(["flipped bit", "cut short", "file gone", "manifest gone"])
    data = bytearray(victim.read_bytes())
    if how == "flipped bit":
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        victim.write_bytes(data)
    elif how == "cut short":
        victim.write_bytes(data[: draw.randrange(len(data))])
    elif how == "file gone":
        victim.unlink()
    else:
        (newest / "checksums.json").unlink(missing_ok=True)
    return how


def main() -> int:
    """Reads the flags and does it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    draw = random.Random(flags.seed)
    whole, parts = flags.workdir / "whole", flags.workdir / "killed"
    began = time.monotonic()
    subprocess.run(command(whole), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    usual = time.monotonic() - began
    print(f"undisturbed: {usual:.0f} s", flush=True)

    kills: collections.Counter[str] = collections.Counter()
    damages: collections.Counter[str] = collections.Counter()
    while sum(kills.values()) < flags.kills:
        process = subprocess.Popen(
            command(parts), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Mostly soon after it has found its feet, so that many fit into one run.
        patience = draw.choice([draw.uniform(0, usual / 3), draw.uniform(usual / 4, usual / 2)])
        try:
            code = process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills[where(parts)] += 1
            if draw.random() < 0.25 and (how := damage(parts, draw)):
                damages[how] += 1
            continue
        if code:
            print(f"a resumed run failed with {code} after {sum(kills.values())} kills")
            return 1
        # It came to its end before all kills were spent: what is saved last is taken away again.
        for path in sorted(parts.glob("checkpoints/gan/*")):
            if path.name.isdigit() and int(path.name) > 5:
                (path / "checksums.json").unlink(missing_ok=True)
    subprocess.run(command(parts), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print("\n| killed in | times |\n|---|---|")
    for name, count in kills.items():
        print(f"| {name} | {count} |")
    print("\n| newest checkpoint | times |\n|---|---|")
    for name, count in damages.items():
        print(f"| {name} | {count} |")
    print(flush=True)
    return subprocess.run(
        [sys.executable, "-m", "vaegan_jax.cli.main", "compare", str(whole), str(parts)],
        cwd=ROOT,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
