"""Clients as servers get to know them: what is told of them, how they are asked, how notifications reach them. No I/O of its own.

The value that is made here is `core.upstream.client.Client`; who is served how is decided by the door's methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from mcp_proxy.base.json import JsonError, Raw, decode_fields, encode
from mcp_proxy.base.protocol import INVALID_REQUEST
from mcp_proxy.core.upstream.client import ASKS, Client
from mcp_proxy.core.upstream.failures import RpcError
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.gateway import wording
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.outlet import AskingChannel
from mcp_proxy.gateway.parking import Parked, Visit
from mcp_proxy.gateway.session import Session

STATELESS = Client(Era.LEGACY)
"""A legacy client that came without a session, of which nothing is known."""


def keyed(client: Client, key: str) -> Client:
    """The same client with links of its own."""
    return replace(client, key=key)


def session_client(session: Session, channel: AskingChannel, params: Mapping[str, Any]) -> Client:
    """A legacy client with a session, and the way to it; ``channel`` and ``params`` are those of its request."""
    client, token = session.client, progress_token(params)

    def on_message(message: Incoming) -> None:
        if (body := translated(message, token)) is not None:
            session.notify(body, channel)

    async def on_request(request: Incoming) -> Mapping[str, Any]:
        if ASKS.get(request.method) not in client.capabilities:
            raise RpcError(INVALID_REQUEST, f"the client does not offer {request.method}")
        return await session.ask(request.method, request.params, channel)

    # A server is told that nothing can be asked, rather than left waiting.
    asked = on_request if client.asks else None
    return replace(client, progress=token is not None, on_message=on_message, on_request=asked)


def modern_client(asked: Asked, parked: Parked | None = None) -> Client:
    """A modern client, and the way to it; with ``parked`` legacy servers can ask it, on links of that call's own."""
    client, token = asked.client, progress_token(asked.request.params)
    if parked is not None:
        client = replace(client, key=parked.lease, on_request=parked.ask)
    if token is None and client.log_level is None:
        return client
    first = visit(asked)

    def forward(message: Incoming) -> None:
        if message.method == "notifications/message" and client.log_level is None:
            return  # a modern client asks for log messages, or gets none
        if parked is None:
            _say(message, first)
        else:
            parked.tell(partial(_say, message))

    return replace(client, progress=token is not None, on_message=forward)


def _say(message: Incoming, to: Visit) -> bool:
    """Whether the client could be told; also True for what it does not want to hear."""
    body = translated(message, to.token)
    return body is None or to.channel.send(body)


def visit(asked: Asked) -> Visit:
    """The request, for a call that may go on in the client's next one."""
    return Visit(asked.channel, progress_token(asked.request.params), logs=asked.client.log_level is not None)


def identity(asked: Asked) -> str:
    """Equal for modern calls that may use one another's links: the same caller, who says the same of itself."""
    client = asked.client
    said = encode([asked.principal.who, client.info, client.capabilities, client.log_level])
    return sha256(said).hexdigest()


def progress_token(params: Mapping[str, Any]) -> str | int | None:
    """The token with which a client wants to hear of progress, if it does (basic/utilities/progress)."""
    meta = params.get("_meta")
    token = meta.get("progressToken") if type(meta) is dict else None
    return token if type(token) in (str, int) else None


def translated(message: Incoming, token: str | int | None) -> bytes | None:
    """A notification with the client's own progress token; None for progress that it did not ask for."""
    params: Any = message.params
    if message.method == "notifications/progress":
        if token is None or params is None:
            return None
        try:
            params = {**decode_fields(params), "progressToken": Raw(encode(token))}
        except JsonError:
            return None
    return wording.notification(message.method, params)
