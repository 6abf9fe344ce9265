"""A negotiated connection: era, version and methods on top of a wire.

Each upstream is asked once what it speaks (`negotiate`); afterwards every request carries what its era wants. Source:
basic/versioning (2026-07-28), basic/lifecycle (2025-11-25).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from mcp_proxy.base.json import Fields, JsonError, Raw, decode, decode_fields, encode
from mcp_proxy.base.protocol import (
    INVALID_REQUEST,
    LATEST_LEGACY,
    LATEST_MODERN,
    LEGACY_VERSIONS,
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_SERVER_INFO,
    META_VERSION,
    METHOD_NOT_FOUND,
    MODERN_VERSIONS,
    UNSUPPORTED_VERSION,
)
from mcp_proxy.core.upstream.client import PROXY, Client, OnIncoming, OnRequest
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.streamable import StreamableHttpWire
from mcp_proxy.core.upstream.terms import Era, Terms
from mcp_proxy.core.upstream.wire import ACKNOWLEDGED, Outgoing, Wire

_MAX_PAGES = 1000
_MAX_ITEMS = 50_000
_NONE: Mapping[str, str] = {}
LISTS = {
    "tools": ("tools/list", "tools", "name"),
    "prompts": ("prompts/list", "prompts", "name"),
    "resources": ("resources/list", "resources", "uri"),
    "resourceTemplates": ("resources/templates/list", "resources", "uriTemplate"),
}
"""The four lists, by their field in results: the method, the capability it needs, the field every item must have."""


def _modern_meta(version: str, client: Client) -> dict[str, Any]:
    meta = {META_VERSION: version, META_CLIENT_INFO: client.info, META_CLIENT_CAPABILITIES: client.declared}
    if client.log_level is not None:
        meta[META_LOG_LEVEL] = client.log_level
    return meta


async def negotiate(
    wire: Wire, *, probe_timeout: float, modern_possible: bool = True, client: Client = PROXY, base: Client = PROXY
) -> Terms:
    """Find out what the upstream speaks: modern if it does, else the legacy handshake. Sets ``wire.terms``.

    For a ``client`` of its own the link has to be a legacy one, and says who that client is. One that is shared speaks for
    ``base``.

    Raises `WireError`, `RpcError`. A server that ignores the probe (or is slow to start) is asked again the legacy way
    after ``probe_timeout`` seconds.
    """
    if client is not PROXY:
        wire.terms = await _handshake(wire, client)
        await wire.notify("notifications/initialized")
        return wire.terms
    if modern_possible and (terms := await _probe(wire, probe_timeout, base)) is not None:
        wire.terms = terms
        return terms
    try:
        wire.terms = await _handshake(wire, base)
    except RpcError as error:
        # It began to answer the probe after we gave up on it: now it insists on its own era.
        if error.code != UNSUPPORTED_VERSION or (terms := await _probe(wire, probe_timeout * 4, base)) is None:
            raise
        wire.terms = terms
        return terms
    await wire.notify("notifications/initialized")
    return wire.terms


async def _probe(wire: Wire, timeout: float, base: Client) -> Terms | None:
    """Ask ``server/discover``; None means "not modern, as far as one can tell"."""
    try:
        async with asyncio.timeout(timeout):
            result = await _discover(wire, base)
    except (RpcError, TimeoutError):
        return None
    except WireError as error:
        if error.failure in (Failure.UNREACHABLE, Failure.LOST) or error.status in (401, 403, 429):
            raise
        return None
    versions = result.get("supportedVersions")
    mutual = [v for v in MODERN_VERSIONS if isinstance(versions, list) and v in versions]
    if not mutual:
        return None
    meta = result.get("_meta")
    info = meta.get(META_SERVER_INFO, {}) if isinstance(meta, dict) else {}
    return Terms(
        Era.MODERN, mutual[-1], _mapping(result.get("capabilities")), _mapping(info), _text(result.get("instructions"))
    )


async def _discover(wire: Wire, base: Client) -> dict[str, Any]:
    """Ask once, and once more when the refusal names the very version that was asked with."""
    out = Outgoing("server/discover", {"_meta": _modern_meta(LATEST_MODERN, base)}, cancellable=False)
    try:
        return _object(await wire.request(out, Attempt()))
    except RpcError as error:
        supported = error.data.get("supported") if isinstance(error.data, dict) else None
        if error.code != UNSUPPORTED_VERSION or not isinstance(supported, list) or LATEST_MODERN not in supported:
            raise
    return _object(await wire.request(out, Attempt()))


async def _handshake(wire: Wire, client: Client) -> Terms:
    capabilities = client.handshake_capabilities()
    params = {"protocolVersion": LATEST_LEGACY, "capabilities": capabilities, "clientInfo": client.info}
    result = _object(await wire.request(Outgoing("initialize", params, cancellable=False), Attempt()))
    version = result.get("protocolVersion")
    if version not in LEGACY_VERSIONS:
        raise WireError(Failure.BAD_REPLY, Phase.STREAMING, "it chose a protocol version that does not exist")
    return Terms(
        Era.LEGACY,
        version,
        _mapping(result.get("capabilities")),
        _mapping(result.get("serverInfo")),
        _text(result.get("instructions")),
    )


def _object(fields: Fields) -> dict[str, Any]:
    """A result of ours to read, decoded. Raises `WireError`."""
    try:
        return {name: decode(value) for name, value in fields.items()}
    except JsonError:
        raise WireError(Failure.BAD_REPLY, Phase.STREAMING, "a result that cannot be read") from None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class Link:
    """An upstream that can be talked to. Does not reconnect: see `upstream`."""

    def __init__(self, wire: Wire, terms: Terms, base: Client = PROXY) -> None:
        """``base``: whom requests of no client in particular are for. One that can be asked is asked on behalf of all."""
        self.wire = wire
        self.terms = terms
        self._base = base
        self._modern = terms.era is Era.MODERN
        self._meta = Raw(encode(_modern_meta(terms.version, base))) if self._modern else None
        self._askable: list[OnRequest] = []
        wire.on_request = self._asked

    def __repr__(self) -> str:
        return f"<Link {self.terms.era} {self.terms.version} {self.wire!r}>"

    def request(
        self,
        method: str,
        params: Mapping[str, Any],
        attempt: Attempt,
        *,
        headers: Mapping[str, str] | None = None,
        client: Client = PROXY,
        on_message: OnIncoming | None = None,
        on_request: OnRequest | None = None,
    ) -> Awaitable[Fields]:
        """One request in the upstream's era, for ``client``; the raw result. Raises `RpcError`, `WireError`."""
        if self._meta is not None:
            params = self._modern_params(params, client)
        out = Outgoing(
            method,
            params,
            headers or _NONE,
            on_message,
            None if self._modern else on_request,  # modern servers send no requests (basic, Messages)
            progress=client.progress,
            logs=client.log_level is not None,
        )
        return self.wire.request(out, attempt) if out.on_request is None else self._asking(out, out.on_request, attempt)

    async def _asking(self, out: Outgoing, client: OnRequest, attempt: Attempt) -> Fields:
        """A request during which the upstream may ask the client."""
        self._askable.append(client)
        try:
            return await self.wire.request(out, attempt)
        finally:
            self._askable.remove(client)

    def _modern_params(self, params: Mapping[str, Any], client: Client) -> Mapping[str, Any]:
        """``params`` with what every modern request says of its client."""
        own = params.get("_meta")
        if client is PROXY:
            client = self._base
        if client is self._base and not own:
            return {**params, "_meta": self._meta}
        kept = own if isinstance(own, Mapping) else _NONE
        return {**params, "_meta": {**kept, **_modern_meta(self.terms.version, client)}}

    @property
    def asks(self) -> bool:
        """Whether a legacy upstream may ask something on a shared link, also where no request of ours is."""
        return not self._modern and self._base.on_request is not None

    async def _asked(self, request: Incoming) -> Mapping[str, Any]:
        """A request of the upstream's that does not say what it belongs to: on a link of one client, the latest it made."""
        if self._base.on_request is not None:
            return await self._base.on_request(request)
        if not self._askable:
            raise RpcError(METHOD_NOT_FOUND, f"{request.method} is not offered by this client")
        return await self._askable[-1](request)

    async def list_all(self, client: Client = PROXY) -> dict[str, list[dict[str, Any]]]:
        """All pages of all lists that it offers, by their field in results. Raises `RpcError`, `WireError`.

        A list that is refused though its capability is declared counts as empty, unless it is that of the tools.
        """
        offered = {kind for kind, (_, capability, _) in LISTS.items() if self.terms.offers(capability)}
        return {kind: await self._list(kind, client) if kind in offered else [] for kind in LISTS}

    async def _list(self, kind: str, client: Client) -> list[dict[str, Any]]:
        """All pages of one list; a cursor that comes back ends it."""
        method, _, key = LISTS[kind]
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(_MAX_PAGES):
            params = {"cursor": cursor} if cursor else {}
            try:
                page = _object(await self.request(method, params, Attempt(), client=client))
            except RpcError:
                if kind == "tools":
                    raise
                break
            found = page.get(kind)
            if not isinstance(found, list):
                raise WireError(Failure.BAD_REPLY, Phase.STREAMING, f"{method} without a list of {kind}")
            items += [item for item in found if isinstance(item, dict) and isinstance(item.get(key), str)]
            if len(items) > _MAX_ITEMS:
                raise WireError(Failure.TOO_LARGE, Phase.STREAMING, f"{method} names more than {_MAX_ITEMS} {kind}")
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or not cursor or cursor in seen:
                break
            seen.add(cursor)
        return items

    async def check(self) -> None:
        """Ask for a sign of life. Raises `RpcError`, `WireError`."""
        await self.request("server/discover" if self.terms.era is Era.MODERN else "ping", {}, Attempt())

    async def listen(self) -> bool:
        """Receive announcements until the upstream ends the stream; False, at once, where there is none to hold."""
        changes = self.terms.list_changed
        if self._modern:
            if not changes:
                return False
            wanted = {f"{kind}ListChanged": True for kind in changes}
            await self.request("subscriptions/listen", {"notifications": wanted}, Attempt())
            return True
        wanted_open = changes or self.terms.declares("resources", "subscribe") or self.asks
        if isinstance(self.wire, StreamableHttpWire) and wanted_open:
            await self.wire.stream()
            return True
        return False

    async def hold(self) -> bool:
        """Hold the standing stream open until it ends: on a link of a client's own the upstream may ask there; False, at
        once, where the transport has none. Raises `WireError`."""
        if isinstance(self.wire, StreamableHttpWire):
            await self.wire.stream()
            return True
        return False

    async def follow(self, uri: str, accepted: asyncio.Future[None]) -> None:
        """Receive ``notifications/resources/updated`` for ``uri`` from a modern upstream until it ends the stream.

        ``accepted`` resolves when the upstream has agreed. Raises `RpcError` (also when it does not), `WireError`.
        """

        def acknowledged(message: Incoming) -> None:
            if message.method == ACKNOWLEDGED and not accepted.done():
                if _honours(message, uri):
                    accepted.set_result(None)
                else:
                    accepted.set_exception(
                        RpcError(INVALID_REQUEST, "the server tells nobody of changes of this resource")
                    )

        wanted = {"notifications": {"resourceSubscriptions": [uri]}}
        await self.request("subscriptions/listen", wanted, Attempt(), on_message=acknowledged)


def _honours(acknowledgement: Incoming, uri: str) -> bool:
    try:
        fields = decode_fields(acknowledgement.params or Raw(b"{}"))
        agreed = decode(fields["notifications"]) if "notifications" in fields else {}
    except JsonError:
        return False
    uris = agreed.get("resourceSubscriptions") if isinstance(agreed, dict) else None
    return isinstance(uris, list) and uri in uris
