"""One HTTP exchange with an upstream: the seam behind which the HTTP client stands.

Knows nothing of MCP. What goes wrong is a `WireError` here, with what is known of how far the request got. Redirects are
never followed: they would carry credentials to where nobody sent them. Which implementation is used is `exchanges`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from mcp_proxy.core.upstream.failures import Attempt


class KeptHeaders(dict[str, str]):
    """Headers that go with one method to one URL again and again: what an exchange makes of them is kept with them."""

    __slots__ = ("head",)

    head: bytes


class Response(Protocol):
    """An HTTP response whose body is still to be read. It must be closed, unless it is complete."""

    @property
    def status(self) -> int: ...

    @property
    def complete(self) -> bool:
        """Whether nothing more will come, so that closing it does nothing."""
        ...

    def header(self, name: str) -> str: ...

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises `WireError` (too large, lost)."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `WireError` when it breaks off."""
        ...

    async def close(self) -> None:
        """Give the connection back if the body has been read to its end, else drop it."""
        ...


class Exchange(Protocol):
    """Sends requests to one upstream over connections it keeps."""

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, attempt: Attempt
    ) -> Response:
        """Send one request and wait for the response's head. Raises `WireError`."""
        ...

    async def close(self) -> None: ...
