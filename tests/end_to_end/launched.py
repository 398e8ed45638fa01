"""Launches the command line, and reads the files of a run for comparison."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests.conftest import ROOT, assert_trees_equal

TIMES = ("seconds", "steps_per_second", "images_per_second")
NOT_EVALUATED = "--config.evaluation.embeddings=none"


def command(workdir, *flags, config="configs/smoke.py", evaluated=False):
    """A command line of launch.py; without evaluation and report unless `evaluated`."""
    flags = flags if evaluated else (NOT_EVALUATED, "--stages=vae,gan", *flags)
    return [sys.executable, "launch.py", f"--config={config}", f"--workdir={workdir}", *flags]


def launch(workdir, *flags, config="configs/smoke.py", evaluated=False, **env):
    """Runs a command line of launch.py in a subprocess."""
    return subprocess.run(
        command(workdir, *flags, config=config, evaluated=evaluated),
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=300,
    )


def state(workdir, stage, step):
    path = pathlib.Path(workdir, "checkpoints", stage, str(step), "state").absolute()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def lines(workdir, name):
    """The lines of a JSONL file, without times."""
    text = pathlib.Path(workdir, name).read_text()
    return [
        {k: v for k, v in json.loads(line).items() if k not in TIMES}
        for line in text.split("\n")[:-1]
    ]


def metrics(workdir):
    return lines(workdir, "metrics.jsonl")


def numbers(workdir):
    """The evaluation, without its time."""
    evaluation = json.loads(pathlib.Path(workdir, "evaluation/numbers.json").read_text())
    return {name: value for name, value in evaluation.items() if name != "seconds"}


def pictures(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(pathlib.Path(folder).rglob("*.png"))
    }


def assert_same_run(a, b):
    for stage in ("vae", "gan"):
        assert_trees_equal(state(a, stage, 12), state(b, stage, 12))
    assert metrics(a) == metrics(b)
    assert pictures(a) == pictures(b)
    assert lines(a, "curve.jsonl") == lines(b, "curve.jsonl")
    assert numbers(a) == numbers(b)


def snapshot(workdir):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in pathlib.Path(workdir).rglob("*")
        if path.is_file() and path.name != ".lock"
    }
