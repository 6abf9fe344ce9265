"""The shapes of ASGI 3, as the edge uses them. Servers and frameworks have their own, narrower ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
"""Name in lower case, value."""

HEADERS_KEY = "mcp_proxy.headers"
"""Where the scope that the edge hands in keeps its headers by name: a dict; of several with one name, the first."""
