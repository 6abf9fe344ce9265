"""A negotiated connection: era, version and methods on top of a wire.

Each upstream is asked once what it speaks (`negotiate`); afterwards every request carries what its era wants. Source:
basic/versioning (2026-07-28), basic/lifecycle (2025-11-25).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mcp_proxy.base.json import Fields, JsonError, Raw, decode, encode
from mcp_proxy.base.protocol import (
    LATEST_LEGACY,
    LATEST_MODERN,
    LEGACY_VERSIONS,
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_SERVER_INFO,
    META_VERSION,
    MODERN_VERSIONS,
    UNSUPPORTED_VERSION,
)
from mcp_proxy.base.version import VERSION
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.streamable import StreamableHttpWire
from mcp_proxy.core.upstream.wire import Era, OnIncoming, Outgoing, Terms, Wire

CLIENT_INFO = {"name": "mcp-proxy-api", "version": VERSION}
_MAX_PAGES = 1000


def _modern_meta(version: str) -> dict[str, Any]:
    return {META_VERSION: version, META_CLIENT_INFO: CLIENT_INFO, META_CLIENT_CAPABILITIES: {}}


async def negotiate(wire: Wire, *, probe_timeout: float, modern_possible: bool = True) -> Terms:
    """Find out what the upstream speaks: modern if it does, else the legacy handshake. Sets ``wire.terms``.

    Raises `WireError`, `RpcError`. A server that ignores the probe (or is slow to start) is asked again the legacy way
    after ``probe_timeout`` seconds.
    """
    if modern_possible and (terms := await _probe(wire, probe_timeout)) is not None:
        wire.terms = terms
        return terms
    try:
        wire.terms = await _handshake(wire)
    except RpcError as error:
        # It began to answer the probe after we gave up on it: now it insists on its own era.
        if error.code != UNSUPPORTED_VERSION or (terms := await _probe(wire, probe_timeout * 4)) is None:
            raise
        wire.terms = terms
        return terms
    await wire.notify("notifications/initialized")
    return wire.terms


async def _probe(wire: Wire, timeout: float) -> Terms | None:
    """Ask ``server/discover``; None means "not modern, as far as one can tell"."""
    out = Outgoing("server/discover", {"_meta": _modern_meta(LATEST_MODERN)}, cancellable=False)
    try:
        async with asyncio.timeout(timeout):
            result = _object(await wire.request(out, Attempt()))
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
    return Terms(Era.MODERN, mutual[-1], _mapping(result.get("capabilities")), _mapping(info))


async def _handshake(wire: Wire) -> Terms:
    params = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": CLIENT_INFO}
    result = _object(await wire.request(Outgoing("initialize", params, cancellable=False), Attempt()))
    version = result.get("protocolVersion")
    if version not in LEGACY_VERSIONS:
        raise WireError(Failure.BAD_REPLY, Phase.STREAMING, "it chose a protocol version that does not exist")
    return Terms(Era.LEGACY, version, _mapping(result.get("capabilities")), _mapping(result.get("serverInfo")))


def _object(fields: Fields) -> dict[str, Any]:
    """A result of ours to read, decoded. Raises `WireError`."""
    try:
        return {name: decode(value) for name, value in fields.items()}
    except JsonError:
        raise WireError(Failure.BAD_REPLY, Phase.STREAMING, "a result that cannot be read") from None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


class Link:
    """An upstream that can be talked to. Does not reconnect: see `upstream`."""

    def __init__(self, wire: Wire, terms: Terms) -> None:
        self.wire = wire
        self.terms = terms
        self._meta = Raw(encode(_modern_meta(terms.version))) if terms.era is Era.MODERN else None

    def __repr__(self) -> str:
        return f"<Link {self.terms.era} {self.terms.version} {self.wire!r}>"

    async def request(
        self,
        method: str,
        params: Mapping[str, Any],
        attempt: Attempt,
        *,
        headers: Mapping[str, str] | None = None,
        on_message: OnIncoming | None = None,
    ) -> Fields:
        """One request in the upstream's era; the raw result. Raises `RpcError`, `WireError`."""
        if self._meta is not None:
            params = {**params, "_meta": self._meta}
        return await self.wire.request(Outgoing(method, params, headers or {}, on_message), attempt)

    async def list_tools(self) -> list[dict[str, Any]]:
        """All pages of ``tools/list``. Raises `RpcError`, `WireError`; a cursor that comes back ends the list."""
        if "tools" not in self.terms.capabilities and self.terms.capabilities:
            return []
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(_MAX_PAGES):
            page = _object(await self.request("tools/list", {"cursor": cursor} if cursor else {}, Attempt()))
            found = page.get("tools")
            if not isinstance(found, list):
                raise WireError(Failure.BAD_REPLY, Phase.STREAMING, "tools/list without a list of tools")
            tools += [tool for tool in found if isinstance(tool, dict) and isinstance(tool.get("name"), str)]
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or not cursor or cursor in seen:
                break
            seen.add(cursor)
        return tools

    async def check(self) -> None:
        """Ask for a sign of life. Raises `RpcError`, `WireError`."""
        await self.request("server/discover" if self.terms.era is Era.MODERN else "ping", {}, Attempt())

    async def listen(self) -> bool:
        """Receive announcements until the upstream ends the stream; False, at once, where there is none to hold."""
        if not self.terms.list_changed:
            return False
        if self.terms.era is Era.MODERN:
            await self.request("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, Attempt())
            return True
        if isinstance(self.wire, StreamableHttpWire):
            await self.wire.stream()
            return True
        return False
