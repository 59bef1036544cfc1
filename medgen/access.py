"""Who may talk to a server of medgen: this machine alone, or whoever shows the token.

The rule that the web page, the HTTP API and the MCP server share; knows nothing of HTTP.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass, field

from medgen.errors import BadInput

SHORTEST_TOKEN = 16
TOKEN_VARIABLE = "MEDGEN_TOKEN"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """Where a server listens, and the token that it asks for, if any.

    Raises:
        BadInput: It would listen to other machines without a token, or with a short one.
    """

    host: str
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if is_loopback(self.host):
            if self.token == "":
                raise BadInput(
                    f"the token is empty: give one, or leave --token and {TOKEN_VARIABLE} out"
                )
            return
        if not self.token:
            raise BadInput(
                f"--host {self.host} lets other machines in: give --token or {TOKEN_VARIABLE} "
                "too, or keep 127.0.0.1"
            )
        if len(self.token) < SHORTEST_TOKEN:
            raise BadInput(
                f"the token has {len(self.token)} characters: give {SHORTEST_TOKEN} or more when "
                "other machines are let in"
            )

    @property
    def local(self) -> bool:
        """Whether only this machine is listened to."""
        return is_loopback(self.host)

    def admits(self, token: str) -> bool:
        """Whether this is the token; takes as long whether it is or not."""
        return self.token is None or hmac.compare_digest(token.encode(), self.token.encode())
