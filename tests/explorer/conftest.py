import contextlib
import io
import threading

import pytest
from PIL import Image

from tests import made_runs
from vaegan_jax.explorer.server import Server
from vaegan_jax.explorer.session import Session


@pytest.fixture(scope="session")
def run_path(tmp_path_factory):
    """The folder of a run with a VAE and a GAN."""
    path = tmp_path_factory.mktemp("run") / "faces"
    made_runs.write(path, made_runs.tiny())
    return path


@pytest.fixture(scope="session")
def session(run_path):
    """A session over that run."""
    return Session(run_path)


@contextlib.contextmanager
def serve(session, token=None):
    """Serves a session on loopback and yields the port."""
    with Server(("127.0.0.1", 0), session, token) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def png(width, height, colour=(200, 30, 60)):
    """Returns an image file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()
