"""The web server of an annotation session: our own static page on Gradio's FastAPI application.

What differs from a Gradio interface: the page is plain HTML and JavaScript from this folder, because keys
without a mouse, 390 px, dark mode and screen readers need control over the markup. Nothing is loaded from
elsewhere, no analytics are sent, there is no share link, and Gradio's own routes are never mounted (the
application is served without ``launch``).
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from lite_chex.annotate.session import Refused, Session
from lite_chex.errors import UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PAGE = Path(__file__).parent / "page"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN_LENGTH = 12
LARGEST_BODY = 64 * 1024
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_ASK_TOKEN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>LiteChex: token</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/static/style.css">
<main><section><h1>LiteChex</h1><form method="get" action="/"><p><label for="token">This page needs the token that
<code>litechex annotate</code> printed.</label></p><p><input id="token" name="token" required autocomplete="off"></p>
<p><button class="primary">Open</button></p></form></section></main></html>"""


def access_token(host: str, token: str | None) -> str | None:
    """The token a visitor must have: none on this machine alone, else the given or a new one.

    Raises:
        UserError: if the given one is too short to keep anybody out.
    """
    if token is not None and len(token) < TOKEN_LENGTH:
        raise UserError(f"--token must have at least {TOKEN_LENGTH} characters; leave it out to have one made")
    if token is None and host not in LOOPBACK:
        return secrets.token_urlsafe(18)
    return token


def create_app(session: Session, host: str = "127.0.0.1", token: str | None = None) -> Starlette:
    """The application of one session.

    Args:
        host: the address it will listen on; on a loopback address other host names are refused, so that no
            web page can reach it through a name of its own (DNS rebinding).
        token: asked of every request where given.

    Raises:
        UserError: if Gradio is not installed.
    """
    gradio = _gradio()
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    app: Starlette = gradio.Server(docs_url=None, redoc_url=None, openapi_url=None, title="LiteChex")
    app.router.routes[:] = [
        Route("/", _index),
        Route("/api/config", _config(session)),
        Route("/api/next", _reading(session)),
        Route("/api/judge", _writing(session.judge), methods=["POST"]),
        Route("/api/undo", _writing(session.undo), methods=["POST"]),
        Mount("/static", StaticFiles(directory=PAGE)),
    ]
    app.add_middleware(BaseHTTPMiddleware, dispatch=_guard(host, token))
    return app


def serve(session: Session, host: str, port: int, token: str | None, announce: Callable[[str], None]) -> None:
    """Serve until interrupted; ``announce`` gets the address to open once it is listened on.

    Raises:
        UserError: if the address cannot be listened on.
    """
    token = access_token(host, token)
    listener = _listen(host, port)
    app = create_app(session, host, token)
    import uvicorn

    shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    announce(f"http://{shown}:{listener.getsockname()[1]}/" + (f"?token={quote(token, safe='')}" if token else ""))
    # No access log: its lines hold annotators' names.
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
    uvicorn.Server(config).run(sockets=[listener])


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError:
        raise UserError(
            "the annotation pages need Gradio, which is not installed: pip install 'lite-chex[annotate]'"
        ) from None
    return gradio


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"--host {host} --port {port}: cannot listen there ({reason}); choose another port") from None
    return listener


def _guard(host: str, token: str | None) -> Callable[..., Awaitable[Response]]:
    """Checks host, origin and token of each request, and sets the security headers of each answer."""
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

    def refuse(request: Request) -> Response | None:
        name = (urlsplit(f"//{request.headers.get('host', '')}").hostname or "").lower()
        if host in LOOPBACK and name not in LOOPBACK:
            return JSONResponse({"error": "This server answers to localhost only."}, 421)
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return JSONResponse({"error": "Requests from other pages are refused."}, 403)
        if token is None:
            return None
        given = request.query_params.get("token")
        if request.url.path == "/" and given is not None and _same(given, token):
            # The token leaves the address bar, and with it the browser's history.
            response = RedirectResponse("/", 303)
            response.set_cookie(_cookie(request), token, httponly=True, samesite="lax", max_age=30 * 86400)
            return response
        if _same(request.cookies.get(_cookie(request), ""), token) or request.url.path == "/static/style.css":
            return None
        if request.url.path == "/":
            return HTMLResponse(_ASK_TOKEN, 401)
        return JSONResponse({"error": "The token is missing or wrong: open the printed address again."}, 401)

    async def dispatch(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = refuse(request) or await call_next(request)
        response.headers.update(HEADERS)
        return response

    return dispatch


def _cookie(request: Request) -> str:
    """The cookie's name, with the port: browsers send a host's cookies to all its ports, so to other sessions too."""
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"litechex_token_{port if port.isdecimal() else 80}"


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


async def _index(request: Request) -> Response:
    from starlette.responses import FileResponse

    return FileResponse(PAGE / "index.html")


def _config(session: Session) -> Callable[[Request], Awaitable[Response]]:
    async def handler(request: Request) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse(session.config())

    return handler


def _reading(session: Session) -> Callable[[Request], Awaitable[Response]]:
    async def handler(request: Request) -> Response:
        return await _answer(lambda: session.next(request.query_params.get("annotator", "")))

    return handler


def _writing(action: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def handler(request: Request) -> Response:
        from starlette.responses import JSONResponse

        kind = request.headers.get("content-type", "").partition(";")[0]
        if kind != "application/json" or int(request.headers.get("content-length") or LARGEST_BODY + 1) > LARGEST_BODY:
            return JSONResponse({"error": "Send JSON of at most 64 kB."}, 415)
        try:
            body = await request.json()
        except (ValueError, RecursionError):  # no JSON, or nested thousands deep
            body = None
        if not isinstance(body, dict):
            return JSONResponse({"error": "Send one JSON object."}, 400)
        return await _answer(lambda: action(body))

    return handler


async def _answer(action: Callable[[], dict[str, Any]]) -> Response:
    """Run a blocking call beside the event loop; what it returns is committed before it is answered."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse

    try:
        return JSONResponse(await run_in_threadpool(action))
    except Refused as refusal:
        return JSONResponse({"error": str(refusal)}, 400)
