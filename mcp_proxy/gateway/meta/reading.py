"""The meta tools that look: ``list``, ``help``, ``use``, ``search``. They reach no server and show what the caller sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from mcp_proxy.base.errors import INVALID_ARGUMENTS, SERVER_NOT_FOUND, TOOL_NOT_FOUND, UPSTREAM_UNAVAILABLE, ProxyError
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.names import Shown
from mcp_proxy.core.catalog.resolve import resolve_tool
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.catalog.view import view
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.meta.definitions import USUALLY_FOUND, named
from mcp_proxy.gateway.meta.finding import Finder, near
from mcp_proxy.gateway.meta.results import Row, fitted, one_line, result, tool_in_full, tool_in_short
from mcp_proxy.gateway.sight import Seen, Sight

_MOST_INSTRUCTIONS = 4000
"""Characters of what a server says of itself."""
_USAGE = """\
Behind this server are other MCP servers, and their tools can be called here.
- mcp.router.search {"query": "…"} finds tools by what they do, with their arguments.
- mcp.router.list {} shows the servers; mcp.router.help {"instance_name": "…"} the tools of one of them.
- mcp.router.help {"tool_name": "…"} shows everything about one tool.
- mcp.router.call {"tool_name": "…", "arguments": {…}} calls it. Tools can be called by their names, too.
- mcp.router.use {"instance_name": "…"} shows a server's tools, and in a session lets their names mean that server."""
_PREFERRED = "From now on, in this session, the names of these tools mean {}."
_NOT_PREFERRED = (
    "This changes nothing for later requests, since each stands alone: "
    "call the tools by these full names, or give instance_name to mcp.router.call."
)


class Reading:
    """Each method answers one meta tool; ``given`` are its arguments, which fit its schema, without those that are null."""

    def __init__(self, manager: McpClientManager, sight: Sight, separator: str) -> None:
        self._manager = manager
        self._sight = sight
        self._separator = separator
        self._finder = Finder()

    async def list(self, asked: Asked, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """``mcp.router.list``."""
        seen = await self._sight.of(asked)
        provider = given.get("provider_name")
        counts = _visible_tools(seen, asked.principal)
        servers = [
            one
            for one in self._manager.describe(asked.principal)
            if provider is None or self._provider_of(one["name"]) == provider
        ]
        kept, more = fitted(servers, lambda one: self._server_row(one, counts[one["name"]]))
        if not kept:
            lines = ["There is no server" + (f" of the provider {provider!r}." if provider else " that you may use.")]
        else:
            lines = [f"{len(servers)} server{'s' if len(servers) > 1 else ''}:", *_texts(kept, more)]
            lines.append(self._say('mcp.router.help {"instance_name": "…"} shows the tools of one.'))
        return result(lines, {"servers": [row.data for row in kept], "more": more})

    async def help(self, asked: Asked, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """``mcp.router.help``."""
        seen = await self._sight.of(asked)
        server = self._named(asked.principal, given) if "instance_name" in given else None
        if "tool_name" in given:
            return self._help_on_tool(asked, seen, given["tool_name"], server)
        if server is not None:
            tools = self._tools_at(server, asked, seen)
            kept, more = fitted(tools, lambda one: tool_in_short(*one))
            lines = [f"{server} has {_counted(len(tools))}.", *_texts(kept, more)]
            return result(lines, {"server": server, "tools": [row.data for row in kept], "more": more})
        kept, more = fitted(seen.view.tools, lambda one: tool_in_short(*_described(one)))
        lines = [self._say(_USAGE), "", "Tools:" if kept else "There are no tools at present.", *_texts(kept, more)]
        return result(lines, {"tools": [row.data for row in kept], "more": more})

    def _help_on_tool(self, asked: Asked, seen: Seen, name: str, server: str | None) -> Mapping[str, Any]:
        """The whole definition, however long: without it the tool cannot be called."""
        liked = asked.session.prefers if asked.session is not None else None
        try:
            target = resolve_tool(
                seen.catalog, self._manager.specs, asked.principal, name, server, shown=server is None, prefer=liked
            )
        except ProxyError as error:
            raise self.explained(error, asked, seen, name, server) from None
        entry = target.entries[0]
        full_names = {(one.entry.namespace, one.entry.name): one.name for one in seen.view.tools}
        row = tool_in_full(full_names.get((entry.namespace, entry.name), name), entry.namespace, entry.item.definition)
        return result([row.text], {"tool": row.data})

    async def use(self, asked: Asked, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """``mcp.router.use``."""
        seen = await self._sight.of(asked)
        server = self._named(asked.principal, given)
        session = asked.session
        if session is not None:
            session.prefers = server
        told = self._manager.instructions(asked.principal, server)
        tools = self._tools_at(server, asked, seen)
        kept, more = fitted(tools, lambda one: tool_in_full(*one))
        lines = [f"{server} has {_counted(len(tools))}."]
        lines += [told[:_MOST_INSTRUCTIONS]] if told else []
        lines += ["", *_texts(kept, more), ""]
        lines.append(self._say(_NOT_PREFERRED if session is None else _PREFERRED.format(server)))
        data = {"server": server, "preferred": session is not None, "tools": [row.data for row in kept], "more": more}
        return result(lines, data)

    async def search(self, asked: Asked, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """``mcp.router.search``."""
        seen = await self._sight.of(asked)
        found = await self._finder.find(given["query"], seen.catalog, seen.view)
        limit = int(given.get("limit", USUALLY_FOUND))
        kept, _ = fitted(found[:limit], lambda one: tool_in_full(*_described(one)))
        more = len(found) - len(kept)
        lines = _texts(kept, more) or [self._say("No tool has any of these words. mcp.router.list shows the servers.")]
        return result(lines, {"tools": [row.data for row in kept], "more": more})

    # Errors that help a model on

    async def explain(self, error: ProxyError, asked: Asked, name: str, server: str | None) -> ProxyError:
        """The error of a call of ``name``, with what may have been meant."""
        if error.kind not in (SERVER_NOT_FOUND, TOOL_NOT_FOUND):
            return error
        return self.explained(error, asked, await self._sight.of(asked), name, server)

    def explained(self, error: ProxyError, asked: Asked, seen: Seen, name: str, server: str | None) -> ProxyError:
        """As `explain`. Errors that are no mistakes of name stay as they are, and so does one that says it already."""
        if error.details is not None and "near" in error.details:
            return error
        if error.kind is SERVER_NOT_FOUND and server is not None:
            return self._unknown_server(server, asked.principal)
        if error.kind is not TOOL_NOT_FOUND:
            return error
        shown = seen.view.tools if server is None else view(seen.catalog, asked.principal, server).tools
        found = near(name, {word for one in shown for word in (one.name, one.entry.name)})
        where = "there is no" if server is None else f"{server} has no"
        hint = f"did you mean {' or '.join(found)}?" if found else self._say("mcp.router.search finds tools")
        return ProxyError(TOOL_NOT_FOUND, f"{where} tool called {name[:200]!r}; {hint}", details={"near": found})

    def _unknown_server(self, name: str, principal: Principal) -> ProxyError:
        specs = [one for one in self._manager.specs.values() if principal.sees_server(one.name, one.group)]
        found = near(name, {word for one in specs for word in (one.name, one.group) if word})
        hint = f"did you mean {' or '.join(found)}?" if found else self._say("mcp.router.list shows them")
        text = f"there is no server called {name[:200]!r}; {hint}"
        return ProxyError(SERVER_NOT_FOUND, text, details={"near": found})

    # Servers and their tools

    def _named(self, principal: Principal, given: Mapping[str, Any]) -> str:
        """The server or group that is meant. Raises `ProxyError`."""
        name = given.get("instance_name")
        if name is None:
            return self._of_provider(principal, given.get("provider_name"))
        if self._manager.is_refused(name, principal):
            raise ProxyError(UPSTREAM_UNAVAILABLE, f"{name} is not usable as configured", details={"server": name})
        try:
            found = self._manager.find(name, principal)
        except ProxyError:
            raise self._unknown_server(name, principal) from None
        return found.preferred or found.members[0].group or name

    def _of_provider(self, principal: Principal, provider: str | None) -> str:
        specs = self._manager.specs.values()
        if provider is None:
            _unfit("/instance_name", "the server is required: instance_name, or provider_name")
        names = [one.name for one in specs if one.provider == provider and principal.sees_server(one.name, one.group)]
        if not names:
            text = self._say(f"there is no server of the provider {provider[:200]!r}; mcp.router.list shows them")
            raise ProxyError(SERVER_NOT_FOUND, text)
        if len(names) > 1:
            _unfit("/provider_name", f"several servers are of this provider: {', '.join(names)}; give instance_name")
        return names[0]

    def _provider_of(self, name: str) -> str | None:
        spec = self._manager.specs.get(name)
        return None if spec is None else spec.provider

    def _tools_at(self, server: str, asked: Asked, seen: Seen) -> Sequence[tuple[str, str, Mapping[str, Any]]]:
        """Full name, server and definition of each tool that is seen there."""
        full_names = {(one.entry.namespace, one.entry.name): one.name for one in seen.view.tools}
        return [
            (full_names.get((one.entry.namespace, one.entry.name), one.name), server, one.entry.item.definition)
            for one in view(seen.catalog, asked.principal, server).tools
        ]

    def _server_row(self, row: Mapping[str, Any], tools: int) -> Row:
        name, state = row["name"], row["state"]
        data: dict[str, Any] = {"name": name, "state": state, "tools": tools}
        if group := row["group"]:
            data["group"] = group
        if provider := self._provider_of(name):
            data["provider"] = provider
        described = self._description(name)
        if described:
            data["description"] = described
        belongs = f", of the group {group}" if group else ""
        return Row(f"- {name} ({state}{belongs}): {_counted(tools)}{f'. {described}' if described else ''}", data)

    def _description(self, name: str) -> str:
        """What the operator says of a server, else what it says of itself."""
        spec = self._manager.specs.get(name)
        if spec is None:
            return ""
        terms = self._manager.upstream(name).terms
        own = (terms.server_info.get("description"), terms.instructions) if terms is not None else ()
        return next((line for text in (spec.description, *own) if (line := one_line(text))), "")

    def _say(self, text: str) -> str:
        return named(text, self._separator)


def _visible_tools(seen: Seen, principal: Principal) -> Counter[str]:
    sees: Callable[..., bool] = principal.sees_tool
    return Counter(one.server for one in seen.catalog.tools.entries if sees(one.name, one.server, one.spec.group))


def _counted(tools: int) -> str:
    return f"{tools or 'no'} tool{'s' if tools != 1 else ''}"


def _described(one: Shown[Tool]) -> tuple[str, str, Mapping[str, Any]]:
    return one.name, one.entry.namespace, one.entry.item.definition


def _texts(rows: Iterable[Row], more: int) -> list[str]:
    return [*(row.text for row in rows), *([f"… and {more} more"] if more else [])]


def _unfit(path: str, reason: str) -> NoReturn:
    raise ProxyError(INVALID_ARGUMENTS, f"the arguments do not fit: {reason}", details={"path": path, "reason": reason})
