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
from mcp_proxy.core.upstream.client import ASKS, PROXY_INFO, Client, OnIncoming
from mcp_proxy.core.upstream.failures import RpcError
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.gateway import wording
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.outlet import AskingChannel
from mcp_proxy.gateway.parking import Parked, Visit
from mcp_proxy.gateway.session import Session


def lister(asked: Asked) -> Client:
    """For lists: whose links these are, and what the client offers."""
    key = asked.session.key if asked.session is not None else None
    return Client(asked.era, asked.info or PROXY_INFO, asked.capabilities, asked.log_level, key=key)


def keyed(client: Client, key: str) -> Client:
    """The same client with links of its own."""
    return replace(client, key=key)


def session_client(session: Session, channel: AskingChannel, params: Mapping[str, Any]) -> Client:
    """A legacy client with a session; ``channel`` and ``params`` are those of its request."""
    told = session.introduction
    token = progress_token(params)

    def on_message(message: Incoming) -> None:
        if (body := translated(message, token)) is not None:
            session.notify(body, channel)

    async def on_request(request: Incoming) -> Mapping[str, Any]:
        if ASKS.get(request.method) not in told.capabilities:
            raise RpcError(INVALID_REQUEST, f"the client does not offer {request.method}")
        return await session.ask(request.method, request.params, channel)

    client = Client(
        Era.LEGACY,
        told.info or PROXY_INFO,
        told.capabilities,
        session.log_level,
        progress=token is not None,
        key=session.key,
        on_message=on_message,
        on_request=on_request,
    )
    # A server is told that nothing can be asked, rather than left waiting.
    return client if client.asks else replace(client, on_request=None)


def modern_client(asked: Asked, parked: Parked | None = None) -> Client:
    """A modern client; with ``parked`` legacy servers can ask it, on links of that call's own."""
    first = visit(asked)
    on_message: OnIncoming | None = None
    if first.token is not None or asked.log_level is not None:

        def forward(message: Incoming) -> None:
            if message.method == "notifications/message" and asked.log_level is None:
                return  # a modern client asks for log messages, or gets none
            if parked is None:
                _say(message, first)
            else:
                parked.tell(partial(_say, message))

        on_message = forward
    return Client(
        Era.MODERN,
        asked.info or PROXY_INFO,
        asked.capabilities,
        asked.log_level,
        progress=first.token is not None,
        key=None if parked is None else parked.lease,
        on_message=on_message,
        on_request=None if parked is None else parked.ask,
    )


def _say(message: Incoming, to: Visit) -> bool:
    """Whether the client could be told; also True for what it does not want to hear."""
    body = translated(message, to.token)
    return body is None or to.channel.send(body)


def visit(asked: Asked) -> Visit:
    """The request, for a call that may go on in the client's next one."""
    return Visit(asked.channel, progress_token(asked.request.params), logs=asked.log_level is not None)


def identity(asked: Asked) -> str:
    """Equal for modern calls that may use one another's links: the same caller, who says the same of itself."""
    said = encode([asked.principal.who, asked.info, asked.capabilities, asked.log_level])
    return sha256(said).hexdigest()


def progress_token(params: Mapping[str, Any]) -> str | int | None:
    """The token with which a client wants to hear of progress, if it does (basic/utilities/progress)."""
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return token if isinstance(token, (str, int)) and not isinstance(token, bool) else None


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
