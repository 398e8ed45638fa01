"""One complete run for all tests here, and command lines without a subprocess."""

import os
import sys

import filelock
import pytest

from tests.end_to_end.launched import command, launch
from vaegan_jax.cli import launch as launch_flags


@pytest.fixture(scope="session")
def finished(data_directory):
    """The folder of an undisturbed run of configs/smoke.py, which tests do not change.

    The first worker makes it, the other waits.
    """
    folder = data_directory.parent / "finished"
    with filelock.FileLock(data_directory.parent / "finished.lock"):
        if not (folder / "stdout.txt").exists():
            result = launch(folder / "run", evaluated=True)
            assert result.returncode == 0, result.stderr
            (folder / "stdout.txt").write_text(result.stdout)
    return folder / "run"


@pytest.fixture
def call(monkeypatch, capfd):
    """Runs a command line of launch.py in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments, **options):
        words = command(*arguments, **options)[1:]
        code = launch_flags.main([*words, "--compilation_cache=off"])
        output = capfd.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def refused(call):
    """Runs a command line that must be refused in one sentence, which it returns."""

    def run(*arguments, **options):
        code, _, errors = call(*arguments, **options)
        assert code == 1, errors
        (start,) = [i for i, line in enumerate(errors.splitlines()) if line.startswith("Error: ")]
        return "\n".join(errors.splitlines()[start:])

    return run
