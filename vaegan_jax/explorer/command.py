"""The command ``vaegan explore RUN``."""

import argparse
import contextlib
import ipaddress
import secrets
import socket
import webbrowser

from vaegan_jax.errors import UserError, one_line


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
    parser.add_argument("--port", type=int, default=8765, help="port; 0 for any free one")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def explore(arguments: argparse.Namespace) -> None:
    """Opens the latent explorer in a browser; Ctrl-C stops it.

    Raises:
      UserError: if there is no model, or the address cannot be used.
    """
    import jax

    from vaegan_jax.explorer.server import Server
    from vaegan_jax.explorer.session import Session

    # A CPU is fast enough, and the accelerator may be training this run.
    jax.config.update("jax_platforms", "cpu")
    host, session = arguments.host, Session(arguments.run)
    token = None if _is_loopback(host) else secrets.token_urlsafe(24)
    try:
        server = Server((host, arguments.port), session, token)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"The explorer cannot listen on {host}, port {arguments.port} "
            f"({one_line(error).rstrip('.')}): set --host or --port."
        ) from error
    with server:
        address = _address(host, server.server_port, token)
        print(f"Explorer of {session.name}: {address}\nPress Ctrl-C to stop.", flush=True)
        if arguments.open:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):  # the usual way to stop it
            server.serve_forever()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(host: str, port: int, token: str | None) -> str:
    """Returns the URL to open; for a wildcard host, the URL has this machine's name."""
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/" + (f"?token={token}" if token else "")
