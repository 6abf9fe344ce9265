"""``GET /openapi.json``: what can be called, by everybody and by the caller. What the document says is `openapi`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from mcp_proxy.api.messages import ApiReply, ApiRequest
from mcp_proxy.api.openapi import Described, document, in_braces, operation_ids
from mcp_proxy.base.json import encode
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.catalog.snapshot import Catalog
from mcp_proxy.core.catalog.view import view
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.settings import Settings

_MOST_KEPT = 32 * 1024 * 1024
"""Bytes of documents that are kept; the last one is, whatever its size."""


@dataclass(frozen=True, slots=True)
class _Key:
    """What a document depends on. ``revision`` None: no tools are shown."""

    base_url: str
    revision: int | None = None
    servers: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Document:
    body: bytes
    etag: str


class Description:
    """The handler. Documents are kept for as long as the catalogue and the caller's rights stay the same."""

    def __init__(self, manager: McpClientManager, settings: Settings, served: Sequence[tuple[str, str]]) -> None:
        """``served`` are methods and rules of the routes; it may grow until the first document is made."""
        self._manager = manager
        self._settings = settings
        self._served = served
        self._kept: OrderedDict[_Key, _Document] = OrderedDict()
        self._bytes = 0
        self._making = asyncio.Lock()

    async def openapi(self, request: ApiRequest) -> ApiReply:
        """For everybody; tools for tokens that may read and call them. 304 where ``If-None-Match`` has the ETag."""
        key, made_of = _Key(self._settings.public_url or request.base_url), None
        principal = request.principal
        if principal is not None and principal.has(Scope.TOOLS_READ) and principal.has(Scope.TOOLS_CALL):
            await self._manager.settled()
            made_of = (self._manager.catalog, principal)
            key = _Key(key.base_url, made_of[0].revision, principal.servers, principal.tools)
        found = await self._document(key, made_of)
        headers = (
            (b"etag", found.etag.encode()),
            (b"cache-control", b"private, no-cache"),
            (b"vary", b"Authorization"),
        )
        if _names(request.if_none_match, found.etag):
            return ApiReply(304, b"", headers)
        return ApiReply(200, found.body, headers)

    async def _document(self, key: _Key, made_of: tuple[Catalog, Principal] | None) -> _Document:
        async with self._making:  # many may ask at once for what is to be made once
            found = self._kept.get(key)
            if found is None:
                # Thousands of schemas take a while.
                found = await asyncio.to_thread(self._make, key.base_url, made_of)
                self._keep(key, found)
            self._kept.move_to_end(key)
            return found

    def _make(self, base_url: str, made_of: tuple[Catalog, Principal] | None) -> _Document:
        tools: list[Described] = []
        if made_of is not None:
            catalog, principal = made_of
            ids = operation_ids(catalog.tools.shown)
            tools = [
                Described(ids[one.entry.namespace, one.entry.name], one.entry.namespace, one.entry.tool)
                for one in view(catalog, principal).tools
            ]
        served = {(method, in_braces(rule)) for method, rule in self._served}
        body = encode(document(served, tools, base_url=base_url, tokens=not self._settings.no_auth))
        # Of the content, so that it holds across restarts and between replicas of this service.
        return _Document(body, f'"{sha256(body).hexdigest()[:32]}"')

    def _keep(self, key: _Key, made: _Document) -> None:
        self._kept[key] = made
        self._bytes += len(made.body)
        while self._bytes > _MOST_KEPT and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1].body)


def _names(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110 §13.1.2, the weak comparison."""
    if if_none_match is None:
        return False
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return etag in given or given == ["*"]
