"""The MCP server on a port: streamable HTTP at /mcp, behind the token where there is one."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from medgen.access import Access

SCHEME = "bearer "


class TokenFirst:
    """Refuses what comes without the token.

    Args:
        app: What answers the rest.
        access: The token.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""
        app: ASGIApp = self.app
        if scope["type"] == "http":
            shown = Headers(scope=scope).get("authorization", "")
            token = shown[len(SCHEME) :] if shown.lower().startswith(SCHEME) else ""
            if not self.access.admits(token):
                app = JSONResponse(
                    {"detail": "a token is needed: send Authorization: Bearer TOKEN"},
                    401,
                    headers={"WWW-Authenticate": "Bearer"},
                )
        await app(scope, receive, send)


def http_application(server: MCPServer[Any], access: Access) -> ASGIApp:
    """The tools over HTTP.

    On this machine alone, requests under another host's name or from a web page are refused.
    """
    hosts = ["localhost", "127.0.0.1", "[::1]", access.host]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=access.local,
        allowed_hosts=[*hosts, *(f"{host}:*" for host in hosts)],
    )
    app: ASGIApp = server.streamable_http_app(transport_security=security)
    return TokenFirst(app, access)
