"""One whole run for all tests here."""

import json

import filelock
import pytest

from tests.end_to_end.launched import launch


@pytest.fixture(scope="session")
def finished(data_directory):
    """A run of configs/smoke.py that nobody disturbed, and what it said; it is left as it is.

    The first worker makes it, the other waits.
    """
    folder = data_directory.parent / "finished"
    with filelock.FileLock(data_directory.parent / "finished.lock"):
        said = folder / "said.json"
        if not said.exists():
            result = launch(folder / "run", evaluated=True)
            assert result.returncode == 0, result.stderr
            said.write_text(json.dumps(result.stdout))
    return folder / "run", json.loads(said.read_text())
