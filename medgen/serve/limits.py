"""What a server allows one client and one request, and how often.

The numbers are those of `medgen serve --help`; a request over one of them is refused with a line
that names the limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from medgen.errors import BadInput
from medgen.records import Request

BODY_BYTES = 64_000


@dataclass(frozen=True)
class Limits:
    """Limits of a server; a run's own are those of one request.

    Attributes:
        queue: Runs that wait, at most.
        rate: Requests a minute of one client (by its address), at most.
        streams: Event streams open at once, at most.
        images: Images a run.
        rounds: Rounds a run.
        candidates: Candidates a round.
        steps: Sampling steps.
    """

    queue: int = 32
    rate: int = 600
    streams: int = 64
    images: int = 8
    rounds: int = 8
    candidates: int = 8
    steps: int = 100

    def check(self, request: Request) -> None:
        """Refuse a run that would take more than this server gives.

        Raises:
            BadInput: A figure is over its limit.
        """
        for name in ("images", "rounds", "candidates", "steps"):
            asked, most = getattr(request, name), getattr(self, name)
            if asked is not None and asked > most:
                raise BadInput(f"{name} is {asked}: this server allows {most}")


class Rate:
    """Counts the requests of each client, a minute at a time."""

    def __init__(self, a_minute: int) -> None:
        self._allowed = RateLimitItemPerMinute(a_minute)
        self._counts = FixedWindowRateLimiter(MemoryStorage())

    def admits(self, client: str) -> bool:
        """Count a request of a client; False when it has had its share of this minute."""
        return self._counts.hit(self._allowed, client)
