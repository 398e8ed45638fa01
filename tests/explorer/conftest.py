import pytest

from tests.explorer import sessions


@pytest.fixture(scope="session")
def run_path(tmp_path_factory, data_directory):
    """The folder of a run."""
    return sessions.make_run(tmp_path_factory.mktemp("run") / "faces")


@pytest.fixture(scope="session")
def session(run_path):
    """A session over that run which has read its data."""
    return sessions.make_session(run_path, write=False)
