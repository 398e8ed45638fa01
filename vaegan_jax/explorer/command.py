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
    """Adds the command's arguments to a parser."""
    parser.add_argument(
        "run", metavar="RUN", help="a run's folder, an export (.safetensors), or pretrained"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; other than loopback addresses require the printed token",
    )
    parser.add_argument("--port", type=_port, default=PORT, help="port; 0 for any free one")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def explore(arguments: argparse.Namespace) -> None:
    """Opens the latent explorer in a browser; Ctrl-C stops it.

    Raises:
      UserError: if the extra is not installed, there is no model, or the port is in use.
    """
    import jax

    try:
        import uvicorn

        from vaegan_jax.explorer import server, session
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette", "anyio"):
            raise
        raise UserError(
            f"The explorer needs {error.name}: pip install 'vaegan-jax[explore]'."
        ) from error
    # A CPU is fast enough, and the accelerator may be training this run.
    jax.config.update("jax_platforms", "cpu")
    source: str | pathlib.Path = arguments.run
    if source != "pretrained":
        source = pathlib.Path(source).expanduser().resolve()
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
        print(f"Explorer of {opened.name}: {address}\nPress Ctrl-C to stop.", flush=True)
        if arguments.open:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):  # the usual way to stop it
            uvicorn.Server(config).run(sockets=[listener])


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return port


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
            f"The explorer cannot listen on {host}, port {port} ({error.strerror}): set --host or "
            "--port."
        ) from error
    return listener


def _address(host: str, port: int, token: str | None) -> str:
    """Returns the URL to open; for a wildcard host, the URL has this machine's name."""
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/" + (f"?token={token}" if token else "")
