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

STARTS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
"""Messages that begin an answer and carry its headers."""
