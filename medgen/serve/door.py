"""The server's door: who comes in, how often, and what every answer carries.

`Doorway` is around everything, the two dependencies are before every route but the open ones.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medgen.serve.limits import BODY_BYTES
from medgen.serve.metrics import Metrics

SECURE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
bearer = HTTPBearer(auto_error=False, description="What `medgen serve --token` was given.")


async def not_too_often(request: Request) -> None:
    """Refuse a client that has had its share of this minute."""
    client = request.client.host if request.client else "unknown"
    state = request.app.state
    if not state.rate.admits(client):
        raise HTTPException(
            429,
            f"more than {state.limits.rate} requests in a minute: wait",
            headers={"Retry-After": "60"},
        )


async def shows_the_token(
    request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> None:
    """Refuse a client without the token, where there is one."""
    if not request.app.state.access.admits(shown.credentials if shown else ""):
        raise HTTPException(
            401,
            "a token is needed: send Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )


class Doorway:
    """Puts safe headers on every answer that has none of its own, counts answers, weighs bodies.

    Args:
        app: What answers.
        metrics: Where answers are counted, by route.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURE.items():
                    headers.setdefault(name, value)
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if route != "none" else "any"
                self.metrics.requests.labels(method, route, message["status"]).inc()
            await send(message)

        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > BODY_BYTES:
            line = f"the body has {announced} bytes: {BODY_BYTES} at most"
            await JSONResponse({"detail": line}, 413)(scope, receive, headed)
            return
        await self.app(scope, receive, headed)
