"""The real command line for tests to launch, and what a run leaves to compare."""

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
NOT_EVALUATED = "--config.evaluation.embedding=none"

# Imports, which are most of the time of what is refused at once, are had once for all of these.
ONE_BY_ONE = """
import json, os, runpy, sys
from vaegan_jax.cli import launch

for arguments, out, err in json.load(sys.stdin):
    child = os.fork()
    if not child:
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def command(workdir, *flags, config="configs/smoke.py", evaluated=False):
    """A command line that runs to the end; without evaluation and report if not wanted."""
    flags = flags if evaluated else (NOT_EVALUATED, "--stages=vae,gan", *flags)
    return [sys.executable, "launch.py", f"--config={config}", f"--workdir={workdir}", *flags]


def launch(workdir, *flags, config="configs/smoke.py", evaluated=False, **env):
    """Runs such a command line to its end."""
    return subprocess.run(
        command(workdir, *flags, config=config, evaluated=evaluated),
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=300,
    )


def launch_each(folder, commands):
    """Runs command lines one after another, each in a process forked from one; what each said."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [(folder / f"{i}.out", folder / f"{i}.err") for i in range(len(commands))]
    wanted = [
        (arguments[1:], str(out), str(err))
        for arguments, (out, err) in zip(commands, files, strict=True)
    ]
    codes = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE],
        cwd=ROOT,
        input=json.dumps(wanted),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    ).stdout.split()
    return [
        subprocess.CompletedProcess(arguments, int(code), out.read_text(), err.read_text())
        for arguments, code, (out, err) in zip(commands, codes, files, strict=True)
    ]


def refused(result):
    """The message of a run that was refused as it should be: a sentence, no traceback."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    return result.stderr[result.stderr.index("Error: ") :].strip()


def state(workdir, stage, step):
    path = pathlib.Path(workdir, "checkpoints", stage, str(step), "state").absolute()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def lines(workdir, name):
    """The lines of a file of numbers, without times."""
    text = pathlib.Path(workdir, name).read_text()
    return [
        {k: v for k, v in json.loads(line).items() if k not in TIMES}
        for line in text.split("\n")[:-1]
    ]


def metrics(workdir):
    return lines(workdir, "metrics.jsonl")


def numbers(workdir):
    """Everything that the evaluation wrote, without its time."""
    written = json.loads(pathlib.Path(workdir, "evaluation/numbers.json").read_text())
    return {name: value for name, value in written.items() if name != "seconds"}


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
