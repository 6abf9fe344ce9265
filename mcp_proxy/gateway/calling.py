"""The methods that reach a server: calls of tools, prompts, resources, completions; for modern clients round by round.

Everything goes through `core.calls`; here is only what MCP clients add to it. Source: basic/patterns/mrtr (2026-07-28).
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from msgspec.structs import replace

from mcp_proxy.base.errors import TOOL_NOT_FOUND, ProxyError
from mcp_proxy.base.json import decode
from mcp_proxy.base.protocol import (
    INVALID_PARAMS,
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_VERSION,
)
from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.core.calls import CallPath, Outcome, Progress, require
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.routing import About, Call
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.clients import identity, modern_client, session_client, visit
from mcp_proxy.gateway.envelope import Headers, Refusal, check_mirrored
from mcp_proxy.gateway.hook import NAME as HOOK
from mcp_proxy.gateway.hook import Hook
from mcp_proxy.gateway.meta.definitions import MetaTool
from mcp_proxy.gateway.meta.router import MetaTools, meant
from mcp_proxy.gateway.parking import Parked, Parking, Wanted, answers_of
from mcp_proxy.gateway.seal import Seal

_HOP_META = frozenset({META_VERSION, META_CLIENT_INFO, META_CLIENT_CAPABILITIES, META_LOG_LEVEL, "progressToken"})
"""``_meta`` keys that one hop says to the next; everything else passes."""


class Calling:
    """``tools/call``, ``prompts/get``, ``resources/read`` and ``completion/complete``."""

    def __init__(
        self,
        manager: McpClientManager,
        calls: CallPath,
        meta: MetaTools,
        hook: Hook | None,
        parking: Parking,
        seal: Seal,
    ) -> None:
        self._manager = manager
        self._calls = calls
        self._meta = meta
        self._hook = hook
        self._parking = parking
        self._seal = seal

    async def tool(self, asked: Asked) -> Mapping[str, Any]:
        """``tools/call``."""
        name = text(asked, "name")
        arguments = _object(asked, "arguments")
        if name == HOOK and self._hook is not None and self._hook.is_for(asked.principal, asked.namespace):
            return await self._hook.call(asked)
        if (own := self._meta.find(name, asked.principal, asked.namespace)) is not None:
            return await self._meta_tool(own, asked, arguments)
        if asked.headers is not None and asked.client.era is Era.MODERN and self._may_be_mirrored(asked, name):
            await self._check_mirrored(asked, asked.headers, name, arguments)
        return await self._call(asked, name, About.TOOL)

    async def _meta_tool(self, own: MetaTool, asked: Asked, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """A tool of ours. The one that calls others is their call, by the same way as every call."""
        asked.record.tool = own.name
        given = self._meta.checked(own, asked.principal, arguments)
        if own.word != "call":
            return await self._meta.answer(own, asked, given)
        try:
            return await self.tool(meant(asked, given))
        except ProxyError as error:
            raise await self._meta.explained(error, asked, given) from None

    async def prompt(self, asked: Asked) -> Mapping[str, Any]:
        """``prompts/get``."""
        _object(asked, "arguments")
        return await self._call(asked, text(asked, "name"), About.PROMPT)

    async def resource(self, asked: Asked) -> Mapping[str, Any]:
        """``resources/read``."""
        return await self._call(asked, text(asked, "uri"), About.RESOURCE)

    async def completion(self, asked: Asked) -> Mapping[str, Any]:
        """``completion/complete``."""
        ref = asked.request.params.get("ref")
        if not isinstance(ref, dict):
            raise Refusal(INVALID_PARAMS, "ref must be an object")
        _object(asked, "argument")
        kind, name, uri = ref.get("type"), ref.get("name"), ref.get("uri")
        # Servers go by the type: only what the caller's rights are checked for may go along.
        if isinstance(name, str) and kind != "ref/resource":
            return await self._call(_referring(asked, ref, without="uri"), name, About.PROMPT)
        if isinstance(uri, str) and kind != "ref/prompt":
            return await self._call(_referring(asked, ref, without="name"), uri, About.RESOURCE)
        raise Refusal(INVALID_PARAMS, "ref needs a name or a uri")

    def _may_be_mirrored(self, asked: Asked, name: str) -> bool:
        """Whether any tool of that name has arguments that are repeated as headers."""
        table = self._manager.catalog_for(asked.client).tools
        for by_name in (table.by_shown, table.by_full, table.by_bare):
            for entry in by_name.get(name, ()):
                if entry.item.mirrored:
                    return True
        return False

    async def _check_mirrored(self, asked: Asked, headers: Headers, name: str, arguments: Mapping[str, Any]) -> None:
        """The headers that repeat arguments, where the tool that is meant has any (streamable-http, Custom Headers)."""
        # Which tool is meant, and whether there is one for this caller, is for the same rules to say as in the call.
        require(asked.principal, Scope.TOOLS_CALL)
        target = await self._manager.resolve_tool(
            asked.principal, name, asked.namespace, client=asked.client, shown=asked.namespace is None
        )
        tool = target.entries[0].item
        schema = tool.definition.get("inputSchema") or {}
        check_mirrored(asked.request.id, tool.mirrored, schema, arguments, headers)

    def _call(self, asked: Asked, name: str, about: About) -> Awaitable[Mapping[str, Any]]:
        """One request to a server, by the way that fits the client. Raises `ProxyError`, `Refusal`."""
        asked.record.tool = name
        params = _passed_on(asked.request.params)
        return (self._round if asked.client.era is Era.MODERN else self._whole)(asked, name, about, params)

    async def _whole(self, asked: Asked, name: str, about: About, params: dict[str, Any]) -> Mapping[str, Any]:
        client, session = asked.client, asked.session
        if session is not None:
            client = session_client(session, asked.channel, asked.request.params)
        return (await self._send(asked, _call(asked, name, about, params, client))).fields

    async def _send(self, asked: Asked, call: Call, progress: Progress | None = None) -> Outcome:
        progress = progress or Progress(call.name)
        try:
            return await self._calls.call(call, progress)
        finally:
            asked.record.tool, asked.record.server = progress.tool, progress.server

    # Rounds of modern clients

    async def _round(self, asked: Asked, name: str, about: About, params: dict[str, Any]) -> Mapping[str, Any]:
        purpose = f"{asked.request.method} {name} at {asked.namespace or ''}"
        server = None
        if (state := params.get("requestState")) is not None:
            content = self._seal.open(state, asked.principal, purpose)
            if "park" in content:
                self._check_still_allowed(asked, content["park"])
                done = await self._parking.resume(content["park"], visit(asked), answers_of(params))
                return self._outcome(asked, purpose, done)
            server = content["server"]
            params["requestState"] = content["state"]
            if content["state"] is None:
                del params["requestState"]
        client = modern_client(asked)
        call = _call(asked, name, about, params, client, pinned=server)
        if (client.asks or client.log_level is not None) and self._manager.has_legacy:
            return self._outcome(asked, purpose, await self._parkable(asked, call))
        return self._outcome(asked, purpose, await self._send(asked, call))

    async def _parkable(self, asked: Asked, call: Call) -> Outcome | Wanted:
        """A call that a legacy server may interrupt with questions."""

        def make(parked: Parked) -> Awaitable[Outcome]:
            parked.progress = Progress(call.name)
            return self._send(asked, replace(call, client=modern_client(asked, parked)), parked.progress)

        capabilities = asked.client.capabilities
        return await self._parking.start(asked.principal.who, identity(asked), visit(asked), capabilities, make)

    def _check_still_allowed(self, asked: Asked, key: str) -> None:
        """A token may say less than the one that made the call: what it no longer sees it cannot go on with."""
        require(asked.principal, Scope.TOOLS_CALL)
        parked = self._parking.find(key)
        progress = parked.progress if parked is not None else None
        spec = self._manager.specs.get(progress.server or "") if progress is not None else None
        if progress is None or spec is None:
            return
        asked.record.tool, asked.record.server = progress.tool, progress.server
        if not asked.principal.sees_tool(progress.tool or "", spec.name, spec.group):
            raise ProxyError(TOOL_NOT_FOUND, "this token no longer reaches what the call is about")

    def _outcome(self, asked: Asked, purpose: str, done: Outcome | Wanted) -> Mapping[str, Any]:
        """The result, or what is still needed, with a state that only this caller can bring back, to this request."""
        if isinstance(done, Wanted):
            state = self._seal.close({"park": done.key}, asked.principal, purpose)
            return {"resultType": "input_required", "inputRequests": done.requests, "requestState": state}
        if not done.input_required:
            return done.fields
        given = done.fields.get("requestState")
        content = {"server": done.server, "state": None if given is None else decode(given)}
        return {**done.fields, "requestState": self._seal.close(content, asked.principal, purpose)}


def text(asked: Asked, field: str) -> str:
    """A parameter that must be a string with something in it. Raises `Refusal`."""
    value = asked.request.params.get(field)
    if type(value) is not str or not value:
        raise Refusal(INVALID_PARAMS, f"{field} must be a string")
    return value


def _object(asked: Asked, field: str) -> dict[str, Any]:
    """A parameter that is an object, if it is there. Raises `Refusal`."""
    value = asked.request.params.get(field)
    if value is None:
        return {}
    if type(value) is not dict:
        raise Refusal(INVALID_PARAMS, f"{field} must be an object")
    return value


def _referring(asked: Asked, ref: Mapping[str, Any], *, without: str) -> Asked:
    """The request with a reference that lacks one of its members."""
    kept = {key: value for key, value in ref.items() if key != without}
    return replace(asked, request=replace(asked.request, params={**asked.request.params, "ref": kept}))


def _passed_on(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters without what was said to this hop alone."""
    passed = dict(params)
    meta = passed.pop("_meta", None)
    if type(meta) is dict and not _HOP_META.issuperset(meta):
        passed["_meta"] = {key: value for key, value in meta.items() if key not in _HOP_META}
    return passed


def _call(
    asked: Asked, name: str, about: About, params: Mapping[str, Any], client: Client, *, pinned: str | None = None
) -> Call:
    return Call(
        name=name,
        params=params,
        principal=asked.principal,
        request_id=asked.record.request_id,
        door=asked.record.door,
        method=asked.request.method,
        about=about,
        server=pinned or asked.namespace,
        pinned=pinned is not None,
        shown=asked.namespace is None,
        prefer=None if asked.session is None else asked.session.prefers,
        client=client,
    )
