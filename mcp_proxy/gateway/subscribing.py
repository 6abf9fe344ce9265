"""The methods by which clients ask to be told: ``resources/subscribe`` of sessions, ``subscriptions/listen`` of modern clients.

Sources: server/resources (2025-11-25), basic/patterns/subscriptions (2026-07-28). Telling them is `notices`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mcp_proxy.base.errors import ProxyError
from mcp_proxy.base.protocol import INVALID_PARAMS, INVALID_REQUEST, META_SUBSCRIPTION_ID
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.calls import UpstreamRefusal, require
from mcp_proxy.core.upstream.failures import RpcError
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.calling import text
from mcp_proxy.gateway.envelope import Refusal
from mcp_proxy.gateway.following import Following
from mcp_proxy.gateway.meta.router import MetaTools
from mcp_proxy.gateway.notices import LISTINGS, Audience, Notices
from mcp_proxy.gateway.session import Session
from mcp_proxy.telemetry.logs import Logger

MOST_FOLLOWED = 100
"""Resources that one session, or one subscription, may follow: each can cost a connection to its server."""


class Subscribing:
    """Who is told of what. ``ending`` is set when the service stops: listening then ends, with its result."""

    def __init__(
        self, following: Following, notices: Notices, meta: MetaTools, ending: asyncio.Event, log: Logger
    ) -> None:
        self._following = following
        self._meta = meta
        self._notices = notices
        self._ending = ending
        self._log = log

    def welcome(self, session: Session) -> None:
        """A new session is told of all lists, on its own stream, as long as it has one."""
        namespace = session.introduction.namespace
        kinds = frozenset(LISTINGS) if session.principal.has(Scope.TOOLS_READ) else frozenset[str]()
        kinds = self._that_change(kinds, session.principal, namespace)
        audience = Audience(session.principal, session.client, namespace, _Standing(session), kinds)
        self._notices.add(session.key, audience)

    def farewell(self, session: Session) -> None:
        """The session has ended."""
        self._notices.remove(session.key)
        self._following.remove_all(session.key)

    def _that_change(self, kinds: frozenset[str], principal: Principal, namespace: str | None) -> frozenset[str]:
        """The lists of those that can change for this caller: a compact list of tools does not."""
        return kinds - {"tools"} if self._meta.is_compact(principal, namespace) else kinds

    async def subscribe(self, asked: Asked) -> Mapping[str, Any]:
        """``resources/subscribe``."""
        require(asked.principal, Scope.TOOLS_CALL)
        uri = text(asked, "uri")
        if asked.session is None:
            raise Refusal(INVALID_REQUEST, "a subscription needs a session: send initialize first")
        if self._following.count(asked.session.key) >= MOST_FOLLOWED:
            raise Refusal(INVALID_PARAMS, f"a session can subscribe to {MOST_FOLLOWED} resources")
        await self._follow(asked.session.key, uri, asked)
        return {}

    async def unsubscribe(self, asked: Asked) -> Mapping[str, Any]:
        """``resources/unsubscribe``."""
        uri = text(asked, "uri")
        if asked.session is not None:
            self._following.remove(asked.session.key, uri)
        return {}

    async def listen(self, asked: Asked) -> Mapping[str, Any]:
        """``subscriptions/listen``: tells the client of what it asks for, until it leaves or the service stops."""
        wanted = asked.request.params.get("notifications")
        if not isinstance(wanted, dict):
            raise Refusal(INVALID_PARAMS, "notifications must be an object")
        require(asked.principal, Scope.TOOLS_READ)
        owner = object()
        kinds = frozenset(kind for kind in LISTINGS if wanted.get(f"{kind}ListChanged") is True)
        request_id = asked.request.id
        channel = _Held(asked)
        heard = self._that_change(kinds, asked.principal, asked.namespace)
        audience = Audience(asked.principal, asked.client, asked.namespace, channel, heard, request_id)
        self._notices.add(owner, audience)
        try:
            honoured: dict[str, Any] = {f"{kind}ListChanged": True for kind in LISTINGS if kind in kinds}
            if followed := await self._follow_all(owner, wanted.get("resourceSubscriptions"), asked):
                honoured["resourceSubscriptions"] = followed
            channel.begin(audience, honoured)
            await self._ending.wait()
        finally:
            self._notices.remove(owner)
            self._following.remove_all(owner)
        return {"_meta": {META_SUBSCRIPTION_ID: request_id}}

    async def _follow_all(self, owner: object, uris: object, asked: Asked) -> list[str]:
        """The URIs that can be followed; the acknowledgement names them."""
        if uris is None:
            return []
        if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            raise Refusal(INVALID_PARAMS, "resourceSubscriptions must be a list of URIs")
        require(asked.principal, Scope.TOOLS_CALL)
        if len(uris) > MOST_FOLLOWED:
            raise Refusal(INVALID_PARAMS, f"resourceSubscriptions names more than {MOST_FOLLOWED} URIs")
        followed = []
        for uri in dict.fromkeys(uris):
            try:
                await self._follow(owner, uri, asked)
            except ProxyError as error:
                self._log.info("follow_refused", request_id=asked.record.request_id, reason=error.message)
            else:
                followed.append(uri)
        return followed

    async def _follow(self, owner: object, uri: str, asked: Asked) -> None:
        try:
            await self._following.add(owner, uri, asked.principal, asked.namespace)
        except RpcError as error:
            raise UpstreamRefusal(error, error.message, status=None, details={}) from None


class _Standing:
    """A session's own stream as a `Channel`, whichever stream that is at the moment."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def send(self, message: bytes) -> bool:
        return self._session.notify(message)


class _Held:
    """The stream of a subscription: what happens before it is acknowledged comes after the acknowledgement."""

    def __init__(self, asked: Asked) -> None:
        self._channel = asked.channel
        self._waiting: list[bytes] | None = []

    def send(self, message: bytes) -> bool:
        if self._waiting is not None:
            self._waiting.append(message)
            return True
        return self._channel.send(message)

    def begin(self, audience: Audience, honoured: Mapping[str, Any]) -> None:
        """Acknowledge, and go on with what has happened since."""
        waiting, self._waiting = self._waiting or [], None
        audience.tell("notifications/subscriptions/acknowledged", {"notifications": honoured})
        for message in waiting:
            self._channel.send(message)
