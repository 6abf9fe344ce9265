"""How the APIs say in headers what is left of a minute. Counting is `tenancy`.

Sources: OpenAI's guide on rate limits, Anthropic's API reference on rate limits (response headers of both).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from mcp_proxy.edge.types import Header

_ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Standing:
    """``reset``: seconds until all of ``limit`` is there again."""

    limit: int
    remaining: int
    reset: float


def rate_headers(api_name: str, requests: Standing | None, tokens: Standing | None, time: float) -> list[Header]:
    """The headers of `apis.Api` ``api_name`` at Unix ``time``; none for what is not limited (None)."""
    fields = _anthropic if api_name == _ANTHROPIC else _openai
    return [
        (name.encode(), value.encode())
        for what, standing in (("requests", requests), ("tokens", tokens))
        if standing is not None
        for name, value in fields(what, standing, time)
    ]


def _openai(what: str, standing: Standing, _: float) -> Iterator[tuple[str, str]]:
    yield f"x-ratelimit-limit-{what}", str(standing.limit)
    yield f"x-ratelimit-remaining-{what}", str(standing.remaining)
    yield f"x-ratelimit-reset-{what}", duration(standing.reset)


def _anthropic(what: str, standing: Standing, time: float) -> Iterator[tuple[str, str]]:
    yield f"anthropic-ratelimit-{what}-limit", str(standing.limit)
    yield f"anthropic-ratelimit-{what}-remaining", str(standing.remaining)
    yield f"anthropic-ratelimit-{what}-reset", moment(time + standing.reset)


def duration(seconds: float) -> str:
    """Whole seconds, rounded up, as ``45s``, ``6m0s``."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def moment(time: float) -> str:
    """A Unix time, rounded up to a second, as RFC 3339 in UTC: ``2026-03-01T12:00:00Z``."""
    return datetime.fromtimestamp(math.ceil(time), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
