"""One request and its answer as the edge sees them: what is added to the answer, and how far it has come."""

from __future__ import annotations

from collections.abc import Awaitable

import msgspec

from mcp_proxy.edge.challenges import CHALLENGED, Challenges
from mcp_proxy.edge.security_headers import with_security
from mcp_proxy.edge.types import Header, Message, Receive, Scope, Send


class Exchange(msgspec.Struct, eq=False):
    """``receive`` and ``send`` for everything further in. ``added``: headers that every answer gets.

    ``code`` is the status that was sent, 0 before. A Struct, as it is made for every request.
    """

    scope: Scope
    to_receive: Receive
    to_send: Send
    added: tuple[Header, ...]
    challenges: Challenges
    code: int = 0
    started: bool = False
    accepted: bool = False
    """Whether it is a WebSocket that is, or was, open."""
    complete: bool = False
    gone: bool = False
    """Whether the client has left."""

    async def receive(self) -> Message:
        message = await self.to_receive()
        kind = message["type"]
        if kind == "http.disconnect":
            self.gone = True
        elif kind == "websocket.disconnect":
            self.gone, self.complete = True, self.accepted
        return message

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind in ("http.response.body", "websocket.http.response.body"):
            self.complete = not message.get("more_body", False)
        elif kind in ("http.response.start", "websocket.http.response.start"):
            self.started = True
            self.code = message["status"]
            headers = with_security(message.get("headers") or (), self.added)
            if self.code in CHALLENGED:
                headers = self.challenges.complete(self.scope, headers)
            message = {**message, "headers": headers}
        elif kind == "websocket.accept":  # the start of no document
            self.started = self.accepted = True
            self.code = 101
            message = {**message, "headers": [*(message.get("headers") or ()), *self.added]}
        elif kind == "websocket.close":
            self.started = self.complete = True
            self.code = self.code or 403
        return self.to_send(message)
