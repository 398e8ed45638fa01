"""A session served on loopback."""

import contextlib
import socket
import threading
import time

import uvicorn

from vaegan_jax.explorer import server


@contextlib.contextmanager
def serve(session, token=None):
    """Yields the address of a server that runs in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(server.make_app(session, token), log_level="critical")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        while not running.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()
