"""The explorer over HTTP: what it answers, what it refuses, and that load is turned away."""

import base64
import concurrent.futures
import json
import re
import threading
import zlib

import anyio
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra explore")
pytest.importorskip("httpx", reason="needs httpx")
import httpx
from starlette.exceptions import HTTPException

from tests.explorer import made, served
from vaegan_jax.explorer import server

BASE = "http://127.0.0.1:8765"
JSON = {"content-type": "application/json"}
BYTES = {"content-type": "application/octet-stream"}
LATENT = [0.5, -1, 0.25, 0, 2]


@pytest.fixture(scope="module")
def session(tmp_path_factory, data_directory):
    return made.session(tmp_path_factory.mktemp("run") / "faces")


class Client:
    """Asks an app without a network."""

    def __init__(self, app, base=BASE):
        self._app, self._base = app, base

    def __call__(self, method, path, **options):
        async def ask():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=self._base) as client:
                return await client.request(method, path, **options)

        return anyio.run(ask)


@pytest.fixture(scope="module")
def ask(session):
    return Client(server.make_app(session))


def body(**changes):
    return json.dumps({"latent": LATENT, "vae": 7, "gan": 5} | changes)


def test_a_decode_is_both_pictures_as_rgba(ask, session):
    answer = ask("POST", "/api/decode", content=body(), headers=JSON)
    assert answer.status_code == 200
    pixels = np.frombuffer(answer.content, np.uint8).reshape(2, 16, 32, 4)
    wanted = session.pair(np.array(LATENT, np.float32), {"vae": 7, "gan": 5})
    np.testing.assert_array_equal(pixels[0, ..., :3], wanted["vae"])
    np.testing.assert_array_equal(pixels[1, ..., :3], wanted["gan"])
    assert (pixels[..., 3] == 255).all()


def test_every_page_comes_and_may_load_nothing_from_elsewhere(ask):
    for path in ("/", "/style.css", "/explorer.js", "/latent.js", "/newest.js", "/map.js",
                 "/crop.js", "/icon.svg"):  # fmt: skip
        answer = ask("GET", path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        outside = re.findall(r"https?://[^\s\"'`]+", answer.text)
        assert [found for found in outside if "www.w3.org/2000/svg" not in found] == []


def test_a_picture_is_encoded_and_sent_back_as_the_encoder_sees_it(ask, session):
    picture = made.png(64, 64)
    answer = ask("POST", "/api/encode?crop=0,0,1,0.5", content=picture, headers=BYTES)
    assert answer.status_code == 200
    seen = np.frombuffer(base64.b64decode(answer.json()["picture"]), np.uint8)
    assert (seen.reshape(-1, 4) == [200, 30, 60, 255]).all()
    wanted, _ = session.encode(picture)
    np.testing.assert_allclose(answer.json()["latent"], wanted, rtol=1e-5)


def test_images_of_the_data_and_where_they_lie(ask, session):
    answer = ask("GET", "/api/example/3.png")
    assert answer.content[:4] == b"\x89PNG"
    assert len(ask("GET", "/api/example/3").json()["latent"]) == 5
    points = np.frombuffer(ask("GET", "/api/points").content, "<f4").reshape(4, -1)
    np.testing.assert_array_equal(points, session.points())
    asked = json.dumps({"latent": LATENT, "by": "pixels", "model": "gan", "step": 5, "count": 3})
    assert len(ask("POST", "/api/nearest", content=asked, headers=JSON).json()["nearest"]) == 3
    assert len(ask("POST", "/api/random", content="{}", headers=JSON).json()["latent"]) == 5


DEEP = "[" * 400
BAD_DECODES = {
    "nothing": ("", 400),
    "no JSON": ("{", 400),
    "no object": ("[1]", 400),
    "deep": (DEEP, 400),
    "not UTF-8": (b"\xff\xfe\x00{", 400),
    "no latent": ('{"vae": 7}', 400),
    "a short latent": (body(latent=LATENT[:4]), 400),
    "a long latent": (body(latent=[*LATENT, 0]), 400),
    "text": (body(latent=["1"] * 5), 400),
    "truth": (body(latent=[True] * 5), 400),
    "a list in a list": (body(latent=[[1]] * 5), 400),
    "not a number": (body(latent=[float("nan")] * 5), 400),
    "infinite": (body(latent=[float("inf")] * 5), 400),
    "infinite by another way": (body().replace("0.25", "1e999"), 400),
    "huge": (body(latent=[1e6] * 5), 400),
    "a whole number beyond floats": (body(latent=[10**200] * 5), 400),
    "no step": ('{"latent": [0, 0, 0, 0, 0]}', 400),
    "a step of text": (body(vae="7"), 400),
    "a step of truth": (body(vae=True), 400),
    "a broken step": (body(vae=7.5), 400),
    "a negative step": (body(vae=-1), 400),
    "a huge step": (body(vae=2**80), 400),
    "an absent step": (body(vae=6), 404),
    "a path for a step": (body(gan="../../etc"), 400),
    "an unknown field": (body(path="/etc/passwd"), 400),
    "too many bytes": ('{"latent": [' + "0," * 5000 + "0]}", 413),
}


@pytest.mark.parametrize("name", BAD_DECODES)
def test_a_bad_decode_is_refused_in_a_sentence(ask, name):
    content, status = BAD_DECODES[name]
    answer = ask("POST", "/api/decode", content=content, headers=JSON)
    assert_refused(answer, status)


def assert_refused(answer, status):
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].endswith(".")
    assert "content-security-policy" in answer.headers


def nearest(**changes):
    asked = {"latent": LATENT, "by": "pixels", "model": "gan", "step": 5, "count": 3} | changes
    return json.dumps(asked)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (nearest(by="names"), 400),
        (nearest(by=["pixels"]), 400),
        (nearest(model="discriminator"), 400),
        (nearest(step=None), 400),
        (nearest(step=3), 404),
        (nearest(count=0), 400),
        (nearest(count=25), 400),
        (nearest(count=None), 400),
    ],
)
def test_a_bad_search_is_refused(ask, content, status):
    assert_refused(ask("POST", "/api/nearest", content=content, headers=JSON), status)


def png_header(width, height):
    """Returns a PNG file of a few bytes that says it is large."""

    def chunk(kind, data):
        return (len(data).to_bytes(4, "big") + kind + data
                + zlib.crc32(kind + data).to_bytes(4, "big"))  # fmt: skip

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b""))
            + chunk(b"IEND", b""))  # fmt: skip


BAD_PICTURES = {
    "empty": (b"", 400),
    "no image": (b"GET / HTTP/1.1", 415),
    "cut off": (made.png(50, 50)[:60], 415),
    "a damaged byte": (made.png(50, 50).replace(b"IDAT", b"IDAT\xff"), 415),
    "a bomb": (png_header(60_000, 60_000), 415),
    "too many pixels": (png_header(7_000, 7_000), 415),
    "too long": (made.png(1, 500), 415),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_refused(ask, name):
    content, status = BAD_PICTURES[name]
    assert_refused(ask("POST", "/api/encode", content=content, headers=BYTES), status)


@pytest.mark.parametrize(
    "query",
    ["crop=", "crop=0,0,1", "crop=0,0,1,1,1", "crop=a,b,c,d", "crop=nan,0,1,1", "crop=0,0,inf,1",
     "crop=-0.1,0,1,1", "crop=0.5,0,0.6,1", "crop=0,0,0,1", "path=/etc/passwd"],
)  # fmt: skip
def test_a_bad_crop_is_refused(ask, query):
    answer = ask("POST", f"/api/encode?{query}", content=made.png(9, 9), headers=BYTES)
    assert_refused(answer, 400)


def test_a_crop_that_leaves_nothing_is_refused(ask):
    query = "crop=0,0,0.001,0.001"
    answer = ask("POST", f"/api/encode?{query}", content=made.png(9, 9), headers=BYTES)
    assert_refused(answer, 415)


def test_too_large_a_file_is_refused_by_what_it_says_and_by_what_it_is(ask, monkeypatch):
    monkeypatch.setattr(server, "MAX_UPLOAD_BYTES", 100)
    assert_refused(ask("POST", "/api/encode", content=b"x" * 101, headers=BYTES), 413)

    async def parts():
        for _ in range(20):
            yield b"x" * 10

    assert_refused(ask("POST", "/api/encode", content=parts(), headers=BYTES), 413)


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
        ("GET", "/..%2f..%2fserver.py", {}, 404),
        ("GET", "/static/index.html", {}, 404),
        ("GET", "/config.json", {}, 404),
        ("GET", "/", {"host": "evil.example"}, 421),
        ("GET", "/api/facts", {"host": "evil.example:8765"}, 421),
        ("GET", "/api/facts", {"host": "127.0.0.1.evil.example"}, 421),
        ("GET", "/api/facts", {"host": "[::1"}, 421),
        ("GET", "/api/facts", {"host": ""}, 421),
        ("GET", "/api/facts", {"origin": "http://evil.example"}, 403),
        ("GET", "/api/facts", {"origin": "http://127.0.0.1:9999"}, 403),
        ("GET", "/api/facts", {"origin": "null"}, 403),
    ],
)
def test_what_is_not_for_asking_is_refused(ask, method, path, headers, status):
    assert_refused(ask(method, path, headers=headers), status)


def test_the_names_of_loopback_are_answered(ask):
    for host in ("localhost", "localhost:1234", "127.0.0.1:80", "[::1]:8765"):
        assert ask("GET", "/", headers={"host": host}).status_code == 200
    assert ask("GET", "/api/facts", headers={"origin": BASE}).status_code == 200


@pytest.fixture
def ask_with_token(session):
    """Asks an explorer that is bound to more than loopback."""
    return Client(server.make_app(session, "right"), "http://laptop.local:8765")


@pytest.mark.parametrize("path", ["/", "/explorer.js", "/api/facts", "/api/facts?token=right"])
def test_nothing_is_answered_without_the_token(ask_with_token, path):
    assert_refused(ask_with_token("GET", path), 401)


@pytest.mark.parametrize("token", ["wrong", "", "righ", "right%20", "r%C3%AFght", "%00"])
def test_another_token_is_refused(ask_with_token, token):
    assert_refused(ask_with_token("GET", f"/?token={token}"), 401)
    cookie = {"cookie": f"vaegan_explorer_8765={token}"}
    assert_refused(ask_with_token("GET", "/api/facts", headers=cookie), 401)


def test_the_token_is_passed_once_and_kept_as_a_cookie(ask_with_token):
    answer = ask_with_token("GET", "/?token=right")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    kept = {"cookie": cookie.partition(";")[0]}
    assert ask_with_token("GET", "/api/facts", headers=kept).status_code == 200
    foreign = kept | {"origin": "http://evil.example"}
    assert_refused(ask_with_token("GET", "/api/facts", headers=foreign), 403)


def test_a_gate_lets_no_more_in_than_it_holds():
    async def main():
        gate = server.Gate(1, 1)
        with gate, gate:
            with pytest.raises(HTTPException) as refused, gate:
                pass
            assert refused.value.status_code == 503
        with gate:
            return await gate.work(lambda: 7)

    assert anyio.run(main) == 7


def test_a_fault_of_the_server_says_nothing_of_itself(session):
    class Broken:
        latent_size, image_shape = 5, (16, 32, 3)

        def facts(self):
            raise RuntimeError("secret path /home/someone")

    answer = Client(server.make_app(Broken()))("GET", "/api/facts")
    assert answer.status_code == 500
    assert "content-security-policy" in answer.headers
    assert "secret" not in answer.text


def test_load_is_turned_away_and_leaves_no_trace(session):
    """Many at once on a real socket: each is answered, right or with 503, and then all is well."""
    with served.serve(session) as address:
        start = threading.Barrier(24)

        def worker(number):
            answers = []
            with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
                start.wait()
                for i in range(12):
                    latent = [number / 24, i / 12, 0, 0, 0]
                    content = body(latent=latent)
                    answers.append((latent, client.post("/api/decode", content=content,
                                                        headers=JSON)))  # fmt: skip
            return answers

        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            answers = [pair for found in pool.map(worker, range(24)) for pair in found]
        assert {answer.status_code for _, answer in answers} <= {200, 503}
        good = [(latent, answer) for latent, answer in answers if answer.status_code == 200]
        assert len(good) >= 24
        for latent, answer in good[::20]:
            pictures = session.pair(np.array(latent, np.float32), {"vae": 7, "gan": 5})
            pixels = np.frombuffer(answer.content, np.uint8).reshape(2, 16, 32, 4)[..., :3]
            np.testing.assert_array_equal(pixels, np.stack([pictures["vae"], pictures["gan"]]))
        for _, answer in answers:
            if answer.status_code == 503:
                assert answer.headers["retry-after"] == "1"
        with httpx.Client(base_url=address, trust_env=False) as client:
            assert client.post("/api/decode", content=body(), headers=JSON).status_code == 200
