"""Tools over REST: call one, list them. The calling itself is `core.calls`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mcp_proxy.api.messages import ApiReply, ApiRequest, only_fields, reply, string_field
from mcp_proxy.base.errors import BAD_REQUEST, ProxyError
from mcp_proxy.base.json import JsonError, Raw, decode_fields, encode
from mcp_proxy.base.protocol import META_SERVER_INFO
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.calls import CallPath, Outcome, Progress
from mcp_proxy.core.catalog.names import Entry
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.routing import Call

_LISTED = ("description", "inputSchema", "outputSchema", "title", "annotations")
_EMPTY_LIST = Raw(b"[]")
_FALSE = Raw(b"false")


class Tools:
    """Handlers of ``/tools``."""

    def __init__(self, calls: CallPath, manager: McpClientManager, *, log_bodies: bool) -> None:
        self._calls = calls
        self._manager = manager
        self._log_bodies = log_bodies

    async def call(self, request: ApiRequest) -> ApiReply:
        """``POST /tools``: ``{"method", "args"?, "server"?}``."""
        principal = request.caller(Scope.TOOLS_CALL)
        body = request.json_object()
        only_fields(body, ("method", "args", "server"))
        method = string_field(body, "method", required=True)
        assert method is not None
        args = body.get("args")
        if args is not None and not isinstance(args, dict):
            raise ProxyError(BAD_REQUEST, "args must be an object", details={"field": "args"})
        return await self._call(request, principal, method, args or {}, string_field(body, "server"))

    async def call_named(self, request: ApiRequest) -> ApiReply:
        """``POST /tools/{server}/{tool}``: the body is the arguments."""
        principal = request.caller(Scope.TOOLS_CALL)
        arguments = request.json_object(optional=True)
        return await self._call(request, principal, request.params["tool"], arguments, request.params["server"])

    async def call_instance(self, request: ApiRequest) -> ApiReply:
        """``POST /api/call``: ``{"instance", "tool", "params"?}``."""
        principal = request.caller(Scope.TOOLS_CALL)
        body = request.json_object()
        only_fields(body, ("instance", "tool", "params"))
        instance, tool = (string_field(body, name, required=True) for name in ("instance", "tool"))
        params = body.get("params")
        if params is not None and not isinstance(params, dict):
            raise ProxyError(BAD_REQUEST, "params must be an object", details={"field": "params"})
        assert tool is not None
        return await self._call(request, principal, tool, params or {}, instance)

    async def by_server(self, request: ApiRequest) -> ApiReply:
        """``GET /api/tools``: the tools of each server that is visible, by its name."""
        principal = request.caller(Scope.TOOLS_READ)
        await self._manager.settled()
        specs = self._manager.specs.values()
        rows: dict[str, list[dict[str, Any]]] = {
            spec.name: [] for spec in specs if principal.sees_server(spec.name, spec.group)
        }
        for entry in self._manager.catalog.tools.entries:
            if principal.sees_tool(entry.name, entry.server, entry.spec.group):
                rows[entry.server].append({"name": entry.name, **_definition(entry)})
        return reply(rows)

    async def of_server(self, request: ApiRequest) -> ApiReply:
        """``GET /api/tools/{server}``."""
        principal = request.caller(Scope.TOOLS_READ)
        await self._manager.settled()
        named = self._manager.find(request.params["server"], principal)
        names = {named.preferred} if named.preferred else {spec.name for spec in named.members}
        return reply(
            [
                {"name": entry.name, **_definition(entry)}
                for entry in self._manager.catalog.tools.entries
                if entry.server in names and principal.sees_tool(entry.name, entry.server, entry.spec.group)
            ]
        )

    async def _call(
        self, request: ApiRequest, principal: Principal, method: str, arguments: Mapping[str, Any], server: str | None
    ) -> ApiReply:
        record = request.record
        progress = Progress(method)
        if self._log_bodies:
            record.request = {"method": method, "args": arguments, "server": server}
        try:
            outcome = await self._calls.call(
                Call(
                    name=method,
                    params={"name": method, "arguments": arguments},
                    principal=principal,
                    request_id=record.request_id,
                    door=record.door,
                    server=server,
                ),
                progress,
            )
        except ProxyError as error:
            if self._log_bodies:
                record.response = error.body(record.request_id)
            raise
        finally:
            record.tool, record.server = progress.tool, progress.server
        answer = _answer(outcome, record.request_id)
        if self._log_bodies:
            record.response = answer
        return ApiReply(200, encode(answer))

    async def list(self, request: ApiRequest) -> ApiReply:
        """``GET /tools/list?server=``: one row per definition, bare names."""
        principal = request.caller(Scope.TOOLS_READ)
        await self._manager.settled()
        catalog = self._manager.catalog
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for entry in self._visible(catalog.tools.entries, request, principal):
            key = (entry.tool.name, entry.tool.digest)
            row = rows.setdefault(key, {"name": entry.tool.name, "servers": [], **_definition(entry)})
            row["servers"].append(entry.server)
        return reply({"tools": list(rows.values()), "revision": catalog.revision})

    async def list_shown(self, request: ApiRequest) -> ApiReply:
        """``GET /tools``: one row per namespace, names as at the MCP door."""
        principal = request.caller(Scope.TOOLS_READ)
        await self._manager.settled()
        catalog = self._manager.catalog
        # A group's row is there as soon as one member that has the tool is visible.
        visible: dict[tuple[str, str], Entry[Tool]] = {}
        for entry in self._visible(catalog.tools.entries, request, principal):
            visible.setdefault((entry.namespace, entry.tool.name), entry)
        rows = [
            {"name": shown.name, "server": shown.entry.namespace, **_definition(member)}
            for shown in catalog.tools.shown
            if (member := visible.get((shown.entry.namespace, shown.entry.tool.name))) is not None
        ]
        return reply({"tools": rows, "revision": catalog.revision})

    def _visible(
        self, entries: Iterable[Entry[Tool]], request: ApiRequest, principal: Principal
    ) -> Iterable[Entry[Tool]]:
        seen = (e for e in entries if principal.sees_tool(e.tool.name, e.server, e.spec.group))
        asked = request.query.get("server")
        if not asked:
            return seen
        if self._manager.is_refused(asked, principal):
            return ()
        named = self._manager.find(asked, principal)
        names = {named.preferred} if named.preferred else {spec.name for spec in named.members}
        return (e for e in seen if e.server in names)


def _definition(entry: Entry[Tool]) -> dict[str, Any]:
    return {key: entry.tool.definition[key] for key in _LISTED if key in entry.tool.definition}


def _answer(outcome: Outcome, request_id: str) -> dict[str, Any]:
    """The upstream's result as it is, in the shape of this door; fields it does not know pass."""
    fields = outcome.fields
    answer: dict[str, Any] = {"content": fields.get("content", _EMPTY_LIST)}
    for name, value in fields.items():
        if name == "_meta":
            if (meta := _own_meta(value)) is not None:
                answer["_meta"] = meta
        elif name != "resultType":
            answer[name] = value
    answer.setdefault("isError", _FALSE)
    answer["server"] = outcome.server
    answer["request_id"] = request_id
    return answer


def _own_meta(raw: Raw) -> dict[str, Raw] | None:
    """``_meta`` without what one hop says to the next."""
    try:
        meta = decode_fields(raw)
    except JsonError:
        return None
    meta.pop(META_SERVER_INFO, None)
    return meta or None
