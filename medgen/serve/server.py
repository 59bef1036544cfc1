"""Answers requests on a port until it is told to stop."""

from __future__ import annotations

import socket
import sys

import uvicorn
from starlette.types import ASGIApp

from medgen.access import Access
from medgen.errors import BadInput

CONNECTIONS = 200
BACKLOG = 128
GRACE = 3


def answer(app: ASGIApp, access: Access, port: int) -> None:
    """Listen, say where, and answer until interrupted.

    Raises:
        BadInput: The address cannot be listened on, or the application cannot start.
    """
    listening = _listen(access.host, port)
    bound = listening.getsockname()[1]
    name = f"[{access.host}]" if ":" in access.host else access.host
    sys.stderr.write(f"medgen answers at http://{name}:{bound} (stop it with Ctrl-C)\n")
    config = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=CONNECTIONS,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    server = uvicorn.Server(config)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        return
    finally:
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        raise BadInput(
            f"cannot listen on {host} port {port} ({error.strerror}): choose another --port"
        ) from error
    return listening
