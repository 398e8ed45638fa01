"""HTTP server of the explorer: three static files, and the methods of one session as JSON."""

import http.server
import json
import pathlib
import secrets
import socket
import sys
import traceback
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vaegan_jax.errors import UserError
from vaegan_jax.explorer.session import Session

MAX_BODY_BYTES = 20 * 2**20

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_STATIC = pathlib.Path(__file__).parent / "static"
_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/explorer.js": ("explorer.js", "text/javascript; charset=utf-8"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Server(http.server.ThreadingHTTPServer):
    """Serves a session.

    Args:
      address: host and port to bind to; 0 for any free port.
      session: what the explorer shows.
      token: required of every client; None for a server bound to loopback, which accepts only
        loopback host names.

    Raises:
      OSError: if the address cannot be bound.
    """

    def __init__(self, address: tuple[str, int], session: Session, token: str | None) -> None:
        self.session, self.token = session, token
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints the error of a request, unless the browser has left."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 20.0  # seconds without data after which a connection is closed

    def do_GET(self) -> None:
        """Responds with a static file."""
        path = urlsplit(self.path).path
        if self._is_refused():
            return
        if path not in _PAGES:
            self._refuse(404, "There is no such page.")
            return
        name, media_type = _PAGES[path]
        self._send(200, media_type, (_STATIC / name).read_bytes())

    def do_POST(self) -> None:
        """Responds with the result of a method of the session."""
        if self._is_refused():
            return
        session = self.server.session
        actions: dict[str, Any] = {
            "/api/facts": lambda body: session.facts(),
            "/api/samples": session.samples,
            "/api/decode": session.decode,
            "/api/encode": session.encode,
        }
        length = self.headers.get("content-length", "")
        if self.path not in actions:
            self._refuse(404, "There is no such page.")
        elif not (length.isascii() and length.isdigit()):
            self._refuse(411, "A request must have a length.")
        elif len(length) > 9 or int(length) > MAX_BODY_BYTES:
            self._refuse(413, f"A request may have at most {MAX_BODY_BYTES // 2**20} MB.")
        else:
            body = self.rfile.read(int(length))
            try:
                content = json.dumps(actions[self.path](body)).encode()
            except UserError as error:
                self._refuse(400, str(error))
            except Exception:
                traceback.print_exc()
                self._refuse(500, "Internal error: see the terminal of the explorer.")
            else:
                self._send(200, "application/json", content)

    def _is_refused(self) -> bool:
        """Checks host, origin and token; responds to a request that is not allowed."""
        host, token = self.headers.get("host", ""), self.server.token
        origin = self.headers.get("origin")
        if token is None and _host_name(host) not in _LOOPBACK:
            # DNS rebinding: a foreign page's host name that resolves to this machine.
            self._refuse(421, "This explorer serves only localhost.")
        elif origin is not None and origin.partition("://")[2].lower() != host.lower():
            self._refuse(403, "Requests of other pages are refused.")
        elif token is not None and not self._has_cookie(token):
            self._exchange(token)
        else:
            return False
        return True

    def _has_cookie(self, token: str) -> bool:
        expected = f"{self._cookie}={token}".encode()
        cookies = self.headers.get("cookie", "").split(";")
        return any(secrets.compare_digest(each.strip().encode(), expected) for each in cookies)

    def _exchange(self, token: str) -> None:
        """Exchanges the token in the address of the page for a cookie."""
        url = urlsplit(self.path)
        given = parse_qs(url.query).get("token", [""])[0]
        is_right = secrets.compare_digest(given.encode(), token.encode())
        if not (is_right and url.path == "/" and self.command == "GET"):
            self._refuse(401, "Open the address printed at the start of the explorer.")
            return
        cookie = f"{self._cookie}={token}; HttpOnly; SameSite=Lax; Path=/"
        self._send(303, "text/plain", b"", {"location": "/", "set-cookie": cookie})

    @property
    def _cookie(self) -> str:
        """The cookie's name; cookies are shared between the ports of a host."""
        return f"vaegan_explorer_{self.server.server_port}"

    def _refuse(self, status: int, text: str) -> None:
        # The body of a refused request may be unread, so the connection cannot be used again.
        content = json.dumps({"error": text}).encode()
        self._send(status, "application/json", content, {"connection": "close"})

    def _send(
        self, status: int, media_type: str, content: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {
            "content-type": media_type,
            "content-length": str(len(content)),
            "content-security-policy": _POLICY,
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Prints nothing for a request."""


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
