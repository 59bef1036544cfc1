"""Who may talk to the studio: host names, origins, the token, sizes of requests, and headers.

An ASGI middleware around everything else, so that no route can forget it. Knows HTTP; knows
nothing of runs, ratings or Gradio.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medgen.access import Access, is_loopback
from medgen.studio.pages import page

LOGIN = "/login"
UPLOAD_BYTES = 10_000_000
REQUEST_BYTES = 256_000
UPLOAD_PATH = "/gradio_api/upload"
FORM_OVERHEAD = 10_000
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# Gradio compiles its components' templates in the page, which needs eval; nothing comes from
# another host.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "SAMEORIGIN",
}


def kept_by_browser(access: Access) -> tuple[str, str]:
    """Name and value of the cookie that stands for the token, which it does not hold.

    Cookies do not know ports, so the name tells studios of one machine apart.
    """
    value = hashlib.sha256(f"medgen studio {access.token}".encode()).hexdigest()
    return f"medgen_studio_{value[:8]}", value


class Guard:
    """Refuses what the studio's rules do not allow before anything else sees it.

    Args:
        app: What answers the rest.
        access: Where the studio listens, and its token.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        limit = UPLOAD_BYTES + FORM_OVERHEAD if scope["path"] == UPLOAD_PATH else REQUEST_BYTES
        receive, send = _limited(receive, limit), _with_headers(send)
        request = Request(scope, receive)
        try:
            refused = self._refusal(request, limit) or await self._login(request)
        except HTTPException as error:  # a body that grew too large while it was read
            refused = PlainTextResponse(error.detail, status_code=error.status_code)
        await (refused or self.app)(scope, receive, send)

    def _refusal(self, request: Request, limit: int) -> Response | None:
        host = request.headers.get("host", "")
        if self.access.local and not is_loopback(_name(host)):
            return PlainTextResponse("this studio answers to localhost alone", status_code=403)
        origin = request.headers.get("origin")
        crossing = request.headers.get("sec-fetch-site") == "cross-site"
        followed_link = request.headers.get("sec-fetch-mode") == "navigate"
        if origin is not None:
            foreign = urlsplit(origin).netloc != host
        else:
            foreign = crossing and not (followed_link and request.method in SAFE)
        if foreign:
            return PlainTextResponse("another site's pages may not use this one", status_code=403)
        announced = request.headers.get("content-length", "0")
        if not announced.isdigit() or int(announced) > limit:
            return PlainTextResponse(f"more than {limit} bytes: send less", status_code=413)
        return None

    async def _login(self, request: Request) -> Response | None:
        if self.access.token is None:
            return None
        bearer = request.headers.get("authorization", "")
        if bearer.startswith("Bearer ") and self.access.admits(bearer.removeprefix("Bearer ")):
            return None
        name, value = kept_by_browser(self.access)
        if hmac.compare_digest(request.cookies.get(name, "").encode(), value.encode()):
            return None
        if request.url.path == LOGIN and request.method == "POST":
            body = (await request.body()).decode(errors="replace")
            return self._welcome(parse_qs(body).get("token", [""])[0])
        if request.url.path == "/" and "token" in request.query_params:
            return self._welcome(request.query_params["token"])
        if request.method in SAFE and "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(page("login.html.j2", wrong=False), status_code=401)
        return PlainTextResponse("a token is needed: Authorization: Bearer TOKEN", status_code=401)

    def _welcome(self, token: str) -> Response:
        if not self.access.admits(token):
            return HTMLResponse(page("login.html.j2", wrong=True), status_code=401)
        answer = RedirectResponse("/", status_code=303)
        name, value = kept_by_browser(self.access)
        answer.set_cookie(name, value, httponly=True, samesite="strict")
        return answer


def _name(host: str) -> str:
    """The host of a `Host` header, its port taken off."""
    return urlsplit(f"//{host}").hostname or ""


def _limited(receive: Receive, limit: int) -> Receive:
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise HTTPException(413, f"more than {limit} bytes: send less")
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def headed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return headed
