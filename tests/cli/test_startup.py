"""Start-up: help and refused command lines do not import JAX."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import runpy, sys
program, sys.argv = sys.argv[1], sys.argv[1:]
try:
    if program == "vaegan":
        runpy.run_module("vaegan_jax.cli.main", run_name="__main__")
    else:
        runpy.run_path(program, run_name="__main__")
except SystemExit as stop:
    code = stop.code
heavy = ("jax", "flax", "orbax", "tensorflow_datasets")
print(code, [name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("launch.py", "--help"), 0),
        (("launch.py", "--config=configs/smoke.py", "--wurkdir=x"), 1),
        (("launch.py", "--config=configs/smoke.py", "--config.gan.stepz=3"), 1),
        (("vaegan", "--help"), 0),
        (("vaegan", "train", "--help"), 0),
        (("vaegan", "sample", "--help"), 0),
        (("vaegan", "sample", "runs/a", "--count", "0"), 2),
    ],
)
def test_startup_does_not_import_jax(arguments, code):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    exit_code, _, modules = result.stdout.splitlines()[-1].partition(" ")
    assert int(exit_code) == code, result.stderr
    assert ast.literal_eval(modules) == []
