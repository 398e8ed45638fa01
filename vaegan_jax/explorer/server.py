"""The explorer's server: a few requests, each bounded, over one session."""

import base64
import functools
import importlib.resources
import io
import json
import secrets
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vaegan_jax.data.decoding import BadImage
from vaegan_jax.errors import UserError
from vaegan_jax.explorer.session import Crop, NotThere, Session

MAX_UPLOAD_BYTES = 20 * 2**20
MAX_LATENT = 1000.0
MAX_NEAREST = 24
SECONDS_FOR_BODY = 20.0

_RUNNING, _WAITING = 2, 6
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_COOKIE = "vaegan_explorer"
_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
} | {
    f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
    for name in ("explorer", "latent", "newest", "map", "crop")
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Result = TypeVar("Result")


class Gate:
    """Lets a few jobs run in threads and a few wait; whoever comes beyond is told so at once."""

    def __init__(self, running: int, waiting: int) -> None:
        self._most, self._inside = running + waiting, 0
        self._limiter = anyio.CapacityLimiter(running)

    def __enter__(self) -> "Gate":
        """Takes a place.

        Raises:
          HTTPException: 503, where none is free.
        """
        if self._inside >= self._most:
            raise HTTPException(
                503, "Too many requests are under way: try again.", {"Retry-After": "1"}
            )
        self._inside += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._inside -= 1

    async def work(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Runs a function in a thread; to be called inside the gate."""
        return await anyio.to_thread.run_sync(
            functools.partial(function, *arguments), limiter=self._limiter
        )


def make_app(session: Session, token: str | None = None) -> ASGIApp:
    """Returns the explorer of a session.

    Args:
      session: what is explored.
      token: asked of whoever comes; None for a server that is bound to loopback, which then
        answers to the names of loopback alone.
    """
    files = importlib.resources.files(__package__).joinpath("static")
    # All that can be asked for by a path is held here; no path of a client's reaches the disk.
    pages = {path: (files.joinpath(name).read_bytes(), kind) for path, (name, kind)
             in _PAGES.items()}  # fmt: skip
    gate, uploads = Gate(_RUNNING, _WAITING), Gate(1, 1)
    most_json = 1024 + 32 * session.latent_size

    async def page(request: Request) -> Response:
        content, kind = pages[request.url.path]
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    async def facts(request: Request) -> Response:
        with gate:
            return JSONResponse(await gate.work(session.facts))

    async def points(request: Request) -> Response:
        with gate:
            return _raw((await gate.work(session.points)).astype("<f4").tobytes())

    async def random(request: Request) -> Response:
        await _json(request, most_json, set())
        with gate:
            latent = await gate.work(session.random, secrets.randbits(31))
        return JSONResponse({"latent": latent.tolist()})

    async def decode(request: Request) -> Response:
        asked = await _json(request, most_json, {"latent", "vae", "gan"})
        latent = _latent(asked, session.latent_size)
        steps = {model: _step(asked, model) for model in ("vae", "gan")}
        if all(step is None for step in steps.values()):
            raise HTTPException(400, "Name a step of vae, of gan or of both.")
        with gate:
            pictures = await gate.work(session.pair, latent, steps)
        return _raw(b"".join(_rgba(pictures[model]) for model in steps if model in pictures))

    async def nearest(request: Request) -> Response:
        asked = await _json(request, most_json, {"latent", "by", "model", "step", "count"})
        latent, step = _latent(asked, session.latent_size), _step(asked, "step")
        by = _one_of(asked, "by", ("pixels", "latents"))
        model = _one_of(asked, "model", ("vae", "gan"))
        count = _whole(asked, "count", 1, MAX_NEAREST)
        if by == "pixels" and step is None:
            raise HTTPException(400, "step is missing: pixels are those of a checkpoint.")
        with gate:
            found = await gate.work(session.nearest, latent, by, model, step, count)
        return JSONResponse(
            {"nearest": [{"index": row, "distance": distance} for row, distance in found]}
        )

    async def example(request: Request) -> Response:
        with gate:
            latent, _ = await gate.work(session.example, request.path_params["index"])
        return JSONResponse({"latent": latent.tolist()})

    async def example_picture(request: Request) -> Response:
        # Quick, and asked for by the dozen: not through the gate.
        _, picture = session.example(request.path_params["index"])
        return Response(
            _png(picture),
            media_type="image/png",
            headers={"cache-control": "private, max-age=3600"},
        )

    async def encode(request: Request) -> Response:
        crop = _crop(request)
        if request.headers.get("content-type") != "application/octet-stream":
            raise HTTPException(415, "Send the file as application/octet-stream.")
        with uploads:
            data = await _body(request, MAX_UPLOAD_BYTES)
            if not data:
                raise HTTPException(400, "The file is empty.")
            latent, picture = await uploads.work(session.encode, data, crop)
        return JSONResponse(
            {"latent": latent.tolist(), "picture": base64.b64encode(_rgba(picture)).decode()}
        )

    routes = [Route(path, page) for path in pages]
    routes += [
        Route("/api/facts", facts),
        Route("/api/points", points),
        Route("/api/random", random, methods=["POST"]),
        Route("/api/decode", decode, methods=["POST"]),
        Route("/api/nearest", nearest, methods=["POST"]),
        Route("/api/encode", encode, methods=["POST"]),
        Route("/api/example/{index:int}", example),
        Route("/api/example/{index:int}.png", example_picture),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _http_error,
            NotThere: functools.partial(_told, 404),
            BadImage: _bad_image,
            UserError: functools.partial(_told, 409),
            Exception: _fault,
        },
    )
    return _Guard(app, token)  # around all of it, so that a fault's answer has its headers too


class _Guard:
    """Refuses strangers, and puts the headers that keep a page to itself on every answer."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":  # there are no web sockets
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        request = Request(scope)
        refusal = self._refusal(request)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if self._token is None and _host_name(host) not in _LOOPBACK:
            # Another name that leads here is how a foreign page would get around the origin.
            return _error(421, "This explorer answers to localhost alone.")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _error(403, "Another page may not use this explorer.")
        if self._token is None:
            return None
        given = request.query_params.get("token")
        if given is not None and request.url.path == "/" and request.method == "GET":
            if not _equal(given, self._token):
                return _error(401, "That token is not this explorer's.")
            answer = RedirectResponse("/", 303)  # the browser keeps what stands behind the #
            answer.set_cookie(_cookie(host), self._token, httponly=True, samesite="lax")
            return answer
        if not _equal(request.cookies.get(_cookie(host), ""), self._token):
            return _error(401, "Open the address that was printed when the explorer was started.")
        return None


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _cookie(host: str) -> str:
    """Returns the cookie's name, which tells servers on one machine apart."""
    return f"{_COOKIE}_{host.rpartition(':')[2] if host[-1:].isdigit() else 80}"


def _equal(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "There is no such page.", 405: "That cannot be asked in this way."}
    text = error.detail if error.detail.endswith(".") else said.get(error.status_code, error.detail)
    return _error(error.status_code, text, dict(error.headers or {}))


async def _told(status: int, request: Request, error: Exception) -> Response:
    return _error(status, str(error))


async def _bad_image(request: Request, error: Exception) -> Response:
    return _error(415, f"The picture cannot be used: {str(error).removesuffix('.')}.")


async def _fault(request: Request, error: Exception) -> Response:
    return _error(500, "Something went wrong; the terminal says what.")


async def _body(request: Request, most: int) -> bytes:
    """Returns the body of a request, of which no more is read than may be there."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise HTTPException(413, f"At most {most} bytes may be sent.")
    parts, size = [], 0
    try:
        with anyio.fail_after(SECONDS_FOR_BODY):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise HTTPException(413, f"At most {most} bytes may be sent.")
                parts.append(part)
    except ClientDisconnect:
        raise HTTPException(400, "The request ended before it was whole.") from None
    except TimeoutError:
        raise HTTPException(408, "The request took too long to arrive.") from None
    return b"".join(parts)


async def _json(request: Request, most: int, names: set[str]) -> dict[str, Any]:
    """Returns the JSON object of a request, with no names but these."""
    # A foreign page cannot send this type without being asked about it first.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Send JSON as application/json.")
    try:
        found = json.loads(await _body(request, most), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise HTTPException(400, "The request is no JSON.") from None
    if not isinstance(found, dict):
        raise HTTPException(400, "The request must be a JSON object.")
    unknown = sorted(found.keys() - names)
    if unknown:
        raise HTTPException(400, f"There is no field {unknown[0][:40]!r}.")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _latent(asked: dict[str, Any], size: int) -> np.ndarray:
    found = asked.get("latent")
    if not isinstance(found, list) or len(found) != size:
        raise HTTPException(400, f"latent must be a list of {size} numbers.")
    if not all(type(x) in (int, float) and abs(x) <= MAX_LATENT for x in found):
        raise HTTPException(
            400, f"All of latent must be numbers from -{MAX_LATENT:g} to {MAX_LATENT:g}."
        )
    return np.asarray(found, np.float32)


def _step(asked: dict[str, Any], name: str) -> int | None:
    return None if asked.get(name) is None else _whole(asked, name, 0, 2**53)


def _whole(asked: dict[str, Any], name: str, least: int, most: int) -> int:
    found = asked.get(name)
    if type(found) is not int or not least <= found <= most:
        raise HTTPException(400, f"{name} must be a whole number from {least} to {most}.")
    return found


def _one_of(asked: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    found = asked.get(name)
    if found not in choices:
        raise HTTPException(400, f"{name} must be one of {', '.join(choices)}.")
    return str(found)


def _crop(request: Request) -> Crop | None:
    """Returns the crop that a query asks for, ``crop=left,top,width,height`` in shares."""
    unknown = sorted(request.query_params.keys() - {"crop"})
    if unknown:
        raise HTTPException(400, f"There is no parameter {unknown[0][:40]!r}.")
    text = request.query_params.get("crop")
    if text is None:
        return None
    wrong = HTTPException(400, "crop must be left,top,width,height within 0 and 1.")
    try:
        left, top, width, height = map(float, text[:200].split(","))
    except ValueError:
        raise wrong from None
    slack = 1e-6
    inside = left >= 0 and top >= 0 and left + width <= 1 + slack and top + height <= 1 + slack
    if not (inside and width > 0 and height > 0):  # not a number is not inside
        raise wrong
    return left, top, width, height


def _raw(content: bytes) -> Response:
    return Response(content, media_type="application/octet-stream")


def _rgba(picture: np.ndarray) -> bytes:
    """Returns a picture's pixels as a canvas takes them."""
    height, width, _ = picture.shape
    pixels = np.full((height, width, 4), 255, np.uint8)
    pixels[..., :3] = picture  # of grey, all three
    return pixels.tobytes()


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(file, "PNG")
    return file.getvalue()
