"""The command ``vaegan explore RUN``."""

import argparse
import contextlib
import ipaddress
import pathlib
import secrets
import socket
import threading
import webbrowser

from vaegan_jax.errors import UserError

PORT = 8765
_MAX_CONNECTIONS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes to a parser."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="the folder of a run, an export (.safetensors), or pretrained",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at; any but loopback asks for the token that is printed",
    )
    parser.add_argument(
        "--port", type=_port, default=PORT, help=f"{PORT} if not given; 0 for any that is free"
    )
    parser.add_argument(
        "--accelerator", action="store_true", help="run on what JAX finds, not on the CPU"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def explore(arguments: argparse.Namespace) -> None:
    """Serves the page until it is interrupted.

    Raises:
      UserError: where the extra is missing, the source holds nothing, or the port is taken.
    """
    import jax
    from absl import logging

    from vaegan_jax.runtime import environment

    try:
        import uvicorn

        from vaegan_jax.explorer import server, session
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette", "anyio"):
            raise
        raise UserError(
            f"The explorer needs {error.name}: pip install 'vaegan-jax[explore]'."
        ) from error
    logging.set_verbosity(logging.ERROR)
    environment.pin()
    if not arguments.accelerator:
        # A page needs little, and the accelerator may be at work on this very run.
        jax.config.update("jax_platforms", "cpu")
    source = arguments.run if arguments.run == "pretrained" else _path(arguments.run)
    listener = _listen(arguments.host, arguments.port)
    with listener:
        opened = session.Session(source)
        token = None if _is_loopback(arguments.host) else secrets.token_urlsafe(24)
        address = _address(arguments.host, listener.getsockname()[1], token)
        threading.Thread(target=opened.prepare, daemon=True).start()
        config = uvicorn.Config(
            server.make_app(opened, token),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=3,
        )
        print(f"The explorer of {opened.name} is at {address}\nCtrl-C ends it.", flush=True)
        if arguments.open:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):  # which is how it is meant to end
            uvicorn.Server(config).run(sockets=[listener])


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


def _path(text: str) -> pathlib.Path:
    return pathlib.Path(text).expanduser().resolve()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UserError(
            f"The explorer cannot listen at {host}, port {port} ({error.strerror}): name another "
            "with --host or --port."
        ) from error
    return listener


def _address(host: str, port: int, token: str | None) -> str:
    """Returns the address to open; for all interfaces, that of this machine's name."""
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/" + (f"?token={token}" if token else "")
