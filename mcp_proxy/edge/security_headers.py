"""Headers that keep browsers from doing more with an answer than showing it as data.

An answer that sets one of them itself (a page with its own policy, a cacheable document) keeps its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from mcp_proxy.edge.types import Header

SECURITY_HEADERS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_NAMES = frozenset(name for name, _ in SECURITY_HEADERS)


def with_security(headers: Sequence[Header], more: Sequence[Header] = ()) -> list[Header]:
    """The headers of an answer, those of `SECURITY_HEADERS` that are not among them, and ``more``."""
    if _NAMES.isdisjoint(map(bytes.lower, dict(headers))):
        return [*headers, *SECURITY_HEADERS, *more]
    present = {name.lower() for name, _ in headers}
    return [*headers, *(header for header in SECURITY_HEADERS if header[0] not in present), *more]
