"""HTTP server of the explorer: validates requests to one session and limits concurrency."""

import base64
import functools
import importlib.resources
import io
import json
import secrets
from typing import Any
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
from vaegan_jax.explorer.session import Crop, NotFound, Session

MAX_UPLOAD_BYTES = 20 * 2**20
MAX_LATENT = 1000.0
MAX_NEAREST = 24
BODY_TIMEOUT = 20.0

_MAX_RUNNING = 2
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


def make_app(session: Session, token: str | None = None) -> ASGIApp:
    """Returns the web application of a session.

    Args:
      session: what the explorer shows.
      token: required of every client; None for a server bound to loopback, which accepts only
        loopback host names.
    """
    limiter = anyio.CapacityLimiter(_MAX_RUNNING)
    routes = [*_page_routes(), *_get_routes(session, limiter), *_post_routes(session, limiter)]
    handlers: dict[Any, Any] = {
        HTTPException: _http_error,
        NotFound: functools.partial(_refuse, 404),
        BadImage: _bad_image,
        UserError: functools.partial(_refuse, 409),
        Exception: _internal_error,
    }
    # The guard is outermost, so that the response to an internal error has its headers too.
    return _Guard(Starlette(routes=routes, exception_handlers=handlers), token)


def _page_routes() -> list[Route]:
    """Returns the routes of the static files, which are read once: no request reads the disk."""
    files = importlib.resources.files(__package__).joinpath("static")

    async def page(content: bytes, media_type: str, request: Request) -> Response:
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return [
        Route(path, functools.partial(page, files.joinpath(name).read_bytes(), media_type))
        for path, (name, media_type) in _PAGES.items()
    ]


def _get_routes(session: Session, limiter: anyio.CapacityLimiter) -> list[Route]:
    """Returns the GET routes of the API."""
    run = functools.partial(anyio.to_thread.run_sync, limiter=limiter)

    async def facts(request: Request) -> Response:
        return JSONResponse(await run(session.facts))

    async def points(request: Request) -> Response:
        return _binary((await run(session.points)).astype("<f4").tobytes())

    async def example(request: Request) -> Response:
        latent, _ = session.example(request.path_params["index"])
        return JSONResponse({"latent": latent.tolist()})

    async def example_picture(request: Request) -> Response:
        _, picture = session.example(request.path_params["index"])
        headers = {"cache-control": "private, max-age=3600"}
        return Response(_png(picture), media_type="image/png", headers=headers)

    return [
        Route("/api/facts", facts),
        Route("/api/points", points),
        Route("/api/example/{index:int}", example),
        Route("/api/example/{index:int}.png", example_picture),
    ]


def _post_routes(session: Session, limiter: anyio.CapacityLimiter) -> list[Route]:
    """Returns the POST routes of the API."""
    run = functools.partial(anyio.to_thread.run_sync, limiter=limiter)
    uploads, max_json = anyio.CapacityLimiter(1), 1024 + 32 * session.latent_size

    async def random(request: Request) -> Response:
        await _json(request, max_json)
        latent = await run(session.random, secrets.randbits(31))
        return JSONResponse({"latent": latent.tolist()})

    async def decode(request: Request) -> Response:
        args = await _json(request, max_json)
        latent = _latent(args, session.latent_size)
        steps = {model: _step(args, model) for model in ("vae", "gan")}
        if all(step is None for step in steps.values()):
            raise HTTPException(400, "vae, gan or both must be the step of a checkpoint.")
        pictures = await run(session.pair, latent, steps)
        return _binary(b"".join(_rgba(pictures[model]) for model in steps if model in pictures))

    async def nearest(request: Request) -> Response:
        args = await _json(request, max_json)
        latent, step = _latent(args, session.latent_size), _step(args, "step")
        by = _one_of(args, "by", ("pixels", "latents"))
        model = _one_of(args, "model", ("vae", "gan"))
        count = _integer(args, "count", 1, MAX_NEAREST)
        if by == "pixels" and step is None:
            raise HTTPException(400, "step must be that of a checkpoint if by is pixels.")
        rows = await run(session.nearest, latent, by, model, step, count)
        return JSONResponse(
            {"nearest": [{"index": index, "distance": distance} for index, distance in rows]}
        )

    async def encode(request: Request) -> Response:
        crop = _crop(request)
        if request.headers.get("content-type") != "application/octet-stream":
            raise HTTPException(415, "Send the file as application/octet-stream.")
        async with uploads:  # bounds the memory of images
            data = await _body(request, MAX_UPLOAD_BYTES)
            if not data:
                raise HTTPException(400, "The file is empty.")
            latent, picture = await run(session.encode, data, crop)
        return JSONResponse(
            {"latent": latent.tolist(), "picture": base64.b64encode(_rgba(picture)).decode()}
        )

    endpoints = {"random": random, "decode": decode, "nearest": nearest, "encode": encode}
    return [Route(f"/api/{name}", post, methods=["POST"]) for name, post in endpoints.items()]


class _Guard:
    """Checks host, origin and token, and adds the security headers to every response."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":  # web sockets are not used
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
            # DNS rebinding: a foreign page's host name that resolves to this machine.
            return _error(421, "This explorer serves only localhost.")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _error(403, "Requests of other pages are refused.")
        if self._token is None:
            return None
        token = request.query_params.get("token")
        if token is not None and request.url.path == "/" and request.method == "GET":
            if not _equal(token, self._token):
                return _error(401, "The token is wrong.")
            response = RedirectResponse("/", 303)  # browsers keep the fragment
            response.set_cookie(_cookie(host), self._token, httponly=True, samesite="lax")
            return response
        if not _equal(request.cookies.get(_cookie(host), ""), self._token):
            return _error(401, "Open the address printed at the start of the explorer.")
        return None


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _cookie(host: str) -> str:
    """Returns the name of the cookie; cookies are shared between the ports of a host."""
    return f"{_COOKIE}_{host.rpartition(':')[2] if host[-1:].isdigit() else 80}"


def _equal(received: str, token: str) -> bool:
    return secrets.compare_digest(received.encode("utf-8", "surrogatepass"), token.encode())


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: "There is no such page.", 405: "This method is not allowed."}
    text = texts.get(error.status_code, error.detail)
    return _error(error.status_code, text, dict(error.headers or {}))


async def _refuse(status: int, request: Request, error: Exception) -> Response:
    return _error(status, str(error))


async def _bad_image(request: Request, error: Exception) -> Response:
    return _error(415, f"The image cannot be used: {str(error).removesuffix('.')}.")


async def _internal_error(request: Request, error: Exception) -> Response:
    return _error(500, "Internal error: see the terminal of the explorer.")


async def _body(request: Request, max_bytes: int) -> bytes:
    """Returns the body of a request; stops reading after `max_bytes`."""
    too_large = HTTPException(413, f"A request may have at most {max_bytes} bytes.")
    body = bytearray()
    try:
        with anyio.fail_after(BODY_TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large
    except ClientDisconnect:
        raise HTTPException(400, "The request is incomplete.") from None
    except TimeoutError:
        raise HTTPException(408, "The request took too long.") from None
    return bytes(body)


async def _json(request: Request, max_bytes: int) -> dict[str, Any]:
    """Returns the JSON object of a request."""
    # Browsers send this type across origins only after a preflight request, which is refused.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Send JSON as application/json.")
    try:
        args = json.loads(await _body(request, max_bytes))
    except (ValueError, RecursionError):
        raise HTTPException(400, "The request is not valid JSON.") from None
    if not isinstance(args, dict):
        raise HTTPException(400, "The request must be a JSON object.")
    return args


def _latent(args: dict[str, Any], size: int) -> np.ndarray:
    latent = args.get("latent")
    if not isinstance(latent, list) or len(latent) != size:
        raise HTTPException(400, f"latent must be a list of {size} numbers.")
    if not all(type(x) in (int, float) and abs(x) <= MAX_LATENT for x in latent):
        limits = f"-{MAX_LATENT:g} to {MAX_LATENT:g}"
        raise HTTPException(400, f"latent must consist of numbers from {limits}.")
    return np.asarray(latent, np.float32)


def _step(args: dict[str, Any], name: str) -> int | None:
    return None if args.get(name) is None else _integer(args, name, 0, 2**53)


def _integer(args: dict[str, Any], name: str, minimum: int, maximum: int) -> int:
    value = args.get(name)
    if type(value) is not int or not minimum <= value <= maximum:
        raise HTTPException(400, f"{name} must be an integer from {minimum} to {maximum}.")
    return value


def _one_of(args: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = args.get(name)
    if value not in choices:
        raise HTTPException(400, f"{name} must be one of {', '.join(choices)}.")
    return str(value)


def _crop(request: Request) -> Crop | None:
    """Returns the crop of a query, ``crop=left,top,width,height`` as fractions."""
    text = request.query_params.get("crop")
    if text is None:
        return None
    invalid = HTTPException(400, "crop must be left,top,width,height within 0 and 1.")
    try:
        left, top, width, height = map(float, text[:200].split(","))
    except ValueError:
        raise invalid from None
    end = 1 + 1e-6  # for rounding
    inside = left >= 0 and top >= 0 and left + width <= end and top + height <= end
    if not (inside and width > 0 and height > 0):  # also refuses NaN
        raise invalid
    return left, top, width, height


def _binary(content: bytes) -> Response:
    return Response(content, media_type="application/octet-stream")


def _rgba(picture: np.ndarray) -> bytes:
    """Returns a picture's pixels as RGBA, for a canvas."""
    height, width, _ = picture.shape
    pixels = np.full((height, width, 4), 255, np.uint8)
    pixels[..., :3] = picture  # grey is broadcast
    return pixels.tobytes()


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(file, "PNG")
    return file.getvalue()
