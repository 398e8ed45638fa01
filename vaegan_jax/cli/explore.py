"""The command ``vaegan explore``."""

import argparse
import contextlib
import secrets
import socket
import webbrowser

from vaegan_jax.cli import options
from vaegan_jax.cli.options import option
from vaegan_jax.errors import UserError, one_line


@options.command(
    "runs/quickstart --open",
    options.MODEL[0],
    option(
        "--host",
        default="127.0.0.1",
        help="IPv4 address or host name to listen on; others than 127.0.0.1 and localhost require "
        "the printed token",
    ),
    option("--port", type=options.integer(0, 65535), default=8765, help="0 for any free port"),
    options.switch("--open", "open the page in a browser"),
)
def explore(arguments: argparse.Namespace) -> None:
    """Opens the latent explorer in a browser; Ctrl-C stops it.

    Raises:
      UserError: if there is no model, or the address cannot be used.
    """
    import jax

    from vaegan_jax.explorer.server import LOOPBACK, Server
    from vaegan_jax.explorer.session import Session

    # A CPU is fast enough, and the accelerator may be training this run.
    jax.config.update("jax_platforms", "cpu")
    host, session = arguments.host, Session(arguments.run)
    token = None if host in LOOPBACK else secrets.token_urlsafe(24)
    try:
        server = Server((host, arguments.port), session, token)
    except OSError as error:
        raise UserError(
            f"The explorer cannot listen on {host}, port {arguments.port} "
            f"({one_line(error).rstrip('.')}): set --host or --port."
        ) from error
    with server:
        shown = socket.gethostname() if host in ("0.0.0.0", "") else host
        address = f"http://{shown}:{server.server_port}/" + (f"?token={token}" if token else "")
        print(f"Explorer of {session.name}: {address}\nPress Ctrl-C to stop.", flush=True)
        if arguments.open:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):  # the usual way to stop it
            server.serve_forever()
