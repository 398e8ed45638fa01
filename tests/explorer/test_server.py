"""The explorer over HTTP: pages, results and refusals."""

import contextlib
import functools
import http.client
import json
import re

import pytest

from tests.explorer.conftest import png, serve
from vaegan_jax.explorer import server


@pytest.fixture(scope="module")
def client(session):
    with serve(session) as port:
        yield functools.partial(request, port)


@pytest.fixture(scope="module")
def token_client(session):
    """A client of an explorer that is bound to other interfaces than loopback."""
    with serve(session, "right") as port:
        yield functools.partial(request, port)


def request(port, method, path, body=None, **headers):
    """Sends a request; returns (status, headers, body)."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as server:
        server.request(method, path, body, headers)
        response = server.getresponse()
        return response.status, response.headers, response.read()


def assert_refused(response, status):
    assert response[0] == status, response
    assert list(json.loads(response[2])) == ["error"]
    assert "default-src 'none'" in response[1]["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/style.css", "/explorer.js"])
def test_pages_load_nothing_from_other_hosts(client, path):
    status, headers, body = client("GET", path)
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"https?://", body.decode())


def test_results_are_those_of_the_session(client, session):
    assert json.loads(client("POST", "/api/facts")[2]) == session.facts()
    latent = b"[0.5, -1, 0.25, 0, 2]"
    for name, body in (("decode", latent), ("samples", b"3"), ("encode", png(64, 64))):
        status, _, result = client("POST", f"/api/{name}", body)
        assert status == 200
        assert json.loads(result) == getattr(session, name)(body)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/api/decode", {}, 400),
        ("GET", "/api/decode", {}, 404),
        ("POST", "/", {}, 404),
        ("GET", "/../../../etc/passwd", {}, 404),
        ("POST", "/api/encode", {"content-length": "-1"}, 413),
        ("POST", "/api/encode", {"content-length": str(server.MAX_BODY_BYTES + 1)}, 413),
        ("POST", "/api/encode", {"content-length": "9" * 5000}, 413),
        ("GET", "/", {"host": "evil.example"}, 421),
        ("POST", "/api/facts", {"host": "127.0.0.1.evil.example"}, 421),
        ("GET", "/", {"host": ""}, 421),
        ("POST", "/api/facts", {"origin": "http://evil.example"}, 403),
        ("POST", "/api/facts", {"origin": "http://127.0.0.1:9"}, 403),
        ("POST", "/api/facts", {"origin": "null"}, 403),
    ],
)
def test_foreign_or_malformed_request_is_refused(client, method, path, headers, status):
    assert_refused(client(method, path, **headers), status)


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1:80"])
def test_loopback_hosts_are_served(client, host):
    assert client("POST", "/api/facts", host=host, origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("query", ["", "?token=", "?token=righ", "?token=r%C3%AFght"])
def test_result_without_the_token_is_refused(token_client, query):
    assert_refused(token_client("POST", f"/api/facts{query}"), 401)


def test_token_allows_any_host_name_but_no_other_origin(token_client):
    assert token_client("GET", "/?token=right", host="laptop.local")[0] == 200
    path = "/api/facts?token=right"
    assert token_client("POST", path, host="laptop.local")[0] == 200
    assert_refused(token_client("POST", path, origin="http://evil.example"), 403)


def test_internal_error_reveals_nothing(client, capsys, monkeypatch):
    def broken(session, body):
        raise RuntimeError("secret path /home/someone")

    monkeypatch.setitem(server._ACTIONS, "/api/facts", broken)
    response = client("POST", "/api/facts")
    assert_refused(response, 500)
    assert b"secret" not in response[2]
    assert "secret" in capsys.readouterr().err
