"""The explorer over HTTP: responses, refusals and behaviour under load."""

import base64
import json
import re

import anyio
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra explore")
pytest.importorskip("httpx", reason="needs httpx")
import httpx

from tests.data.test_decoding import png
from tests.explorer import sessions
from vaegan_jax.explorer import server

BASE = "http://127.0.0.1:8765"
JSON = {"content-type": "application/json"}
BYTES = {"content-type": "application/octet-stream"}
LATENT = [0.5, -1, 0.25, 0, 2]


class Client:
    """Sends requests to an app without a network."""

    def __init__(self, app, base=BASE):
        self._app, self._base = app, base

    def __call__(self, method, path, **options):
        async def send():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=self._base) as http:
                return await http.request(method, path, **options)

        return anyio.run(send)


@pytest.fixture(scope="module")
def client(session):
    return Client(server.make_app(session))


def body(**changes):
    return json.dumps({"latent": LATENT, "vae": 7, "gan": 5} | changes)


def test_decode_returns_both_pictures_as_rgba(client, session):
    response = client("POST", "/api/decode", content=body(), headers=JSON)
    assert response.status_code == 200
    pixels = np.frombuffer(response.content, np.uint8).reshape(2, 16, 32, 4)
    expected = session.pair(np.array(LATENT, np.float32), {"vae": 7, "gan": 5})
    np.testing.assert_array_equal(pixels[0, ..., :3], expected["vae"])
    np.testing.assert_array_equal(pixels[1, ..., :3], expected["gan"])
    assert (pixels[..., 3] == 255).all()


def test_pages_load_nothing_from_other_hosts(client):
    for path in ("/", "/style.css", "/explorer.js", "/latent.js", "/newest.js", "/map.js",
                 "/crop.js", "/icon.svg"):  # fmt: skip
        response = client("GET", path)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        urls = re.findall(r"https?://[^\s\"'`]+", response.text)
        assert [url for url in urls if "www.w3.org/2000/svg" not in url] == []


def test_encode_returns_latent_and_encoder_input(client, session):
    picture = sessions.png(64, 64)
    response = client("POST", "/api/encode?crop=0,0,1,0.5", content=picture, headers=BYTES)
    assert response.status_code == 200
    seen = np.frombuffer(base64.b64decode(response.json()["picture"]), np.uint8)
    assert (seen.reshape(-1, 4) == [200, 30, 60, 255]).all()
    expected, _ = session.encode(picture)
    np.testing.assert_allclose(response.json()["latent"], expected, rtol=1e-5)


def test_examples_points_nearest_and_random(client, session):
    response = client("GET", "/api/example/3.png")
    assert response.content[:4] == b"\x89PNG"
    assert len(client("GET", "/api/example/3").json()["latent"]) == 5
    points = np.frombuffer(client("GET", "/api/points").content, "<f4").reshape(4, -1)
    np.testing.assert_array_equal(points, session.points())
    content = json.dumps({"latent": LATENT, "by": "pixels", "model": "gan", "step": 5, "count": 3})
    assert len(client("POST", "/api/nearest", content=content, headers=JSON).json()["nearest"]) == 3
    assert len(client("POST", "/api/random", content="{}", headers=JSON).json()["latent"]) == 5


DEEP = "[" * 400
BAD_DECODES = {
    "nothing": ("", 400),
    "invalid JSON": ("{", 400),
    "not an object": ("[1]", 400),
    "deeply nested": (DEEP, 400),
    "not UTF-8": (b"\xff\xfe\x00{", 400),
    "no latent": ('{"vae": 7}', 400),
    "a short latent": (body(latent=LATENT[:4]), 400),
    "text": (body(latent=["1"] * 5), 400),
    "booleans": (body(latent=[True] * 5), 400),
    "not a number": (body(latent=[float("nan")] * 5), 400),
    "infinite": (body().replace("0.25", "1e999"), 400),
    "huge": (body(latent=[1e6] * 5), 400),
    "no step": ('{"latent": [0, 0, 0, 0, 0]}', 400),
    "a step of text": (body(vae="7"), 400),
    "a fractional step": (body(vae=7.5), 400),
    "a negative step": (body(vae=-1), 400),
    "a missing step": (body(vae=6), 404),
    "a path for a step": (body(gan="../../etc"), 400),
    "too many bytes": ('{"latent": [' + "0," * 5000 + "0]}", 413),
}


@pytest.mark.parametrize("name", BAD_DECODES)
def test_invalid_decode_is_refused(client, name):
    content, status = BAD_DECODES[name]
    response = client("POST", "/api/decode", content=content, headers=JSON)
    assert_refused(response, status)


def assert_refused(response, status):
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert response.json()["error"].endswith(".")
    assert "content-security-policy" in response.headers


def nearest(**changes):
    content = {"latent": LATENT, "by": "pixels", "model": "gan", "step": 5, "count": 3} | changes
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (nearest(by="names"), 400),
        (nearest(model="discriminator"), 400),
        (nearest(step=None), 400),
        (nearest(step=3), 404),
        (nearest(count=0), 400),
        (nearest(count=25), 400),
    ],
)
def test_invalid_nearest_is_refused(client, content, status):
    assert_refused(client("POST", "/api/nearest", content=content, headers=JSON), status)


BAD_PICTURES = {
    "empty": (b"", 400),
    "no image": (b"GET / HTTP/1.1", 415),
    "cut off": (sessions.png(50, 50)[:60], 415),
    "a damaged byte": (sessions.png(50, 50).replace(b"IDAT", b"IDAT\xff"), 415),
    "a bomb": (png((60_000, 60_000, 8, 2, 0, 0, 0), b""), 415),
    "too many pixels": (png((7_000, 7_000, 8, 2, 0, 0, 0), b""), 415),
    "too long": (sessions.png(1, 500), 415),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_image_is_refused(client, name):
    content, status = BAD_PICTURES[name]
    assert_refused(client("POST", "/api/encode", content=content, headers=BYTES), status)


@pytest.mark.parametrize(
    "query",
    ["crop=", "crop=0,0,1", "crop=0,0,1,1,1", "crop=a,b,c,d", "crop=nan,0,1,1", "crop=0,0,inf,1",
     "crop=-0.1,0,1,1", "crop=0.5,0,0.6,1", "crop=0,0,0,1"],
)  # fmt: skip
def test_invalid_crop_is_refused(client, query):
    response = client("POST", f"/api/encode?{query}", content=sessions.png(9, 9), headers=BYTES)
    assert_refused(response, 400)


def test_too_large_upload_is_refused(client, monkeypatch):
    monkeypatch.setattr(server, "MAX_UPLOAD_BYTES", 100)
    assert_refused(client("POST", "/api/encode", content=b"x" * 101, headers=BYTES), 413)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/api/decode", {}, 405),
        ("POST", "/api/facts", {}, 405),
        ("POST", "/api/decode", {}, 415),
        ("POST", "/api/decode", {"content-type": "text/plain"}, 415),
        ("POST", "/api/encode", {"content-type": "multipart/form-data"}, 415),
        ("GET", "/api/example/8300", {}, 404),
        ("GET", "/api/example/999999999999999999999999", {}, 404),
        ("GET", "/api/example/-1", {}, 404),
        ("GET", "/api/example/..%2f..%2fconfig.json", {}, 404),
        ("GET", "/../../../etc/passwd", {}, 404),
        ("GET", "/config.json", {}, 404),
        ("GET", "/", {"host": "evil.example"}, 421),
        ("GET", "/api/facts", {"host": "127.0.0.1.evil.example"}, 421),
        ("GET", "/api/facts", {"host": "[::1"}, 421),
        ("GET", "/api/facts", {"host": ""}, 421),
        ("GET", "/api/facts", {"origin": "http://evil.example"}, 403),
        ("GET", "/api/facts", {"origin": "http://127.0.0.1:9999"}, 403),
        ("GET", "/api/facts", {"origin": "null"}, 403),
    ],
)
def test_foreign_or_malformed_request_is_refused(client, method, path, headers, status):
    assert_refused(client(method, path, headers=headers), status)


def test_loopback_hosts_are_served(client):
    for host in ("localhost", "localhost:1234", "127.0.0.1:80", "[::1]:8765"):
        assert client("GET", "/", headers={"host": host}).status_code == 200
    assert client("GET", "/api/facts", headers={"origin": BASE}).status_code == 200


@pytest.fixture
def token_client(session):
    """A client of an explorer that is bound to other interfaces than loopback."""
    return Client(server.make_app(session, "right"), "http://laptop.local:8765")


@pytest.mark.parametrize("path", ["/", "/explorer.js", "/api/facts", "/api/facts?token=right"])
def test_request_without_token_is_refused(token_client, path):
    assert_refused(token_client("GET", path), 401)


@pytest.mark.parametrize("token", ["wrong", "", "righ", "right%20", "r%C3%AFght", "%00"])
def test_wrong_token_is_refused(token_client, token):
    assert_refused(token_client("GET", f"/?token={token}"), 401)
    cookie = {"cookie": f"vaegan_explorer_8765={token}"}
    assert_refused(token_client("GET", "/api/facts", headers=cookie), 401)


def test_token_is_exchanged_for_a_cookie(token_client):
    response = token_client("GET", "/?token=right")
    assert response.status_code == 303
    assert response.headers["location"] == "/"
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    kept = {"cookie": cookie.partition(";")[0]}
    assert token_client("GET", "/api/facts", headers=kept).status_code == 200
    foreign = kept | {"origin": "http://evil.example"}
    assert_refused(token_client("GET", "/api/facts", headers=foreign), 403)


def test_internal_error_reveals_nothing(session):
    class Broken:
        latent_size, image_shape = 5, (16, 32, 3)

        def facts(self):
            raise RuntimeError("secret path /home/someone")

    response = Client(server.make_app(Broken()))("GET", "/api/facts")
    assert response.status_code == 500
    assert "content-security-policy" in response.headers
    assert "secret" not in response.text
