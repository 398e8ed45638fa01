"""HTTP server of the explorer: three static files, and the methods of one session as JSON."""

import http.server
import json
import pathlib
import secrets
import sys
import traceback
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vaegan_jax.errors import UserError
from vaegan_jax.explorer.session import Session

LOOPBACK = ("localhost", "127.0.0.1")
MAX_BODY_BYTES = 20 * 2**20

_STATIC = pathlib.Path(__file__).parent / "static"
_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/explorer.js": ("explorer.js", "text/javascript; charset=utf-8"),
}
_ACTIONS: dict[str, Any] = {
    "/api/facts": Session.facts,
    "/api/samples": Session.samples,
    "/api/decode": Session.decode,
    "/api/encode": Session.encode,
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Server(http.server.ThreadingHTTPServer):
    """Serves a session at a host and a port, 0 for any free one.

    Every request for results must contain the token. Without a token, for a server bound to
    loopback, only loopback host names are accepted.

    Raises:
      OSError: if the address cannot be bound.
    """

    def __init__(self, address: tuple[str, int], session: Session, token: str | None) -> None:
        self.session, self.token = session, token
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
        if self._is_foreign():
            return
        if path in _PAGES:
            name, media_type = _PAGES[path]
            self._send(200, media_type, (_STATIC / name).read_bytes())
        else:
            self._refuse(404, "There is no such page.")

    def do_POST(self) -> None:
        """Responds with the result of a method of the session."""
        if self._is_foreign():
            return
        url, length = urlsplit(self.path), self.headers.get("content-length", "")
        token, given = self.server.token, parse_qs(url.query).get("token", [""])[0]
        if token is not None and not secrets.compare_digest(given.encode(), token.encode()):
            self._refuse(401, "Open the address printed at the start of the explorer.")
        elif url.path not in _ACTIONS:
            self._refuse(404, "There is no such page.")
        elif not (length.isdecimal() and len(length) < 10 and int(length) <= MAX_BODY_BYTES):
            self._refuse(413, f"A request must have a length of at most {MAX_BODY_BYTES} bytes.")
        else:
            body = self.rfile.read(int(length))
            try:
                content = json.dumps(_ACTIONS[url.path](self.server.session, body)).encode()
            except UserError as error:
                self._refuse(400, str(error))
            except Exception:
                traceback.print_exc()
                self._refuse(500, "Internal error: see the terminal of the explorer.")
            else:
                self._send(200, "application/json", content)

    def _is_foreign(self) -> bool:
        """Refuses requests for another host, and those of another origin's pages."""
        host, origin = self.headers.get("host", ""), self.headers.get("origin")
        if self.server.token is None and host.partition(":")[0] not in LOOPBACK:
            # DNS rebinding: a foreign page's host name that resolves to this machine.
            self._refuse(421, "This explorer serves only localhost.")
            return True
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            self._refuse(403, "Requests of other pages are refused.")
            return True
        return False

    def _refuse(self, status: int, text: str) -> None:
        # The body of a refused request may be unread, so the connection cannot be used again.
        self.close_connection = True
        self._send(status, "application/json", json.dumps({"error": text}).encode())

    def _send(self, status: int, media_type: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {
            "content-type": media_type,
            "content-length": str(len(content)),
            "content-security-policy": _POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
            "connection": "close" if self.close_connection else "keep-alive",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Prints nothing for a request."""
