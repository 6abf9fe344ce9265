"""Changing which servers there are, while everything runs: by files, and by what the API asks for.

Every change goes: read, check as a whole, keep, apply the difference. One change at a time; what cannot be applied
changes nothing. Where servers are written is `config.sources`, what the API keeps `config.state`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import wraps
from hashlib import sha256
from typing import Any, Concatenate, ParamSpec, TypeVar

from mcp_proxy.base.errors import CONFLICT, SERVER_NOT_FOUND, TOOL_NOT_FOUND, UNPROCESSABLE, ProxyError
from mcp_proxy.base.json import encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.describe import MASK, describe
from mcp_proxy.config.model import RefusedServer, ServerSpec
from mcp_proxy.config.sources import Configured, Origin, Problem, Sources
from mcp_proxy.config.state import State, StateStore, StoreError
from mcp_proxy.core.admission import Admission
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.pins import Pins
from mcp_proxy.telemetry.logs import Logger

P = ParamSpec("P")
R = TypeVar("R")


def _to_its_end(
    change: Callable[Concatenate[Registry, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Registry, P], Coroutine[Any, Any, R]]:
    """A change that has begun is finished though its asker leaves: half of one could undo the next, which was answered."""

    @wraps(change)
    async def whole(self: Registry, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.shield(self._changes.spawn(change(self, *args, **kwargs), change.__name__))

    return whole


class Registry:
    """The servers as configured, and the ways to change them. ``start`` values come from `Sources.start`."""

    def __init__(
        self,
        manager: McpClientManager,
        sources: Sources,
        store: StateStore,
        state: State,
        configured: Configured,
        *,
        admission: Admission,
        pins: Pins,
        log: Logger,
    ) -> None:
        self._manager = manager
        self._sources = sources
        self._store = store
        self._state = state
        self._configured = configured
        self._admission = admission
        self._pins = pins
        self._log = log
        self._lock = asyncio.Lock()
        self._changes = TaskSet(self._failed)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Sources that cannot be used as they are; what they said before is in force."""
        return self._configured.problems

    @property
    def revision(self) -> int:
        """Grows with every change that the API made."""
        return self._state.revision

    # Files

    async def reload(self) -> None:
        """Read the files again, and apply what differs."""
        async with self._lock:
            configured = await asyncio.to_thread(self._sources.reload, self._state)
            self._report(configured)
            self._apply(configured)

    def _report(self, configured: Configured) -> None:
        for problem in configured.problems:
            if problem not in self._configured.problems:
                self._log.error("config_error", source=problem.source, line=problem.line, reason=problem.reason)
        for problem in self._configured.problems:
            if problem.source not in {one.source for one in configured.problems}:
                self._log.info("config_mended", source=problem.source)

    def _apply(self, configured: Configured) -> None:
        self._configured = configured
        known = set(self._manager.refused)
        changes = self._manager.apply(configured.servers)
        for refused in configured.servers.refused:
            if refused not in known:
                self._log.warning("server_refused", server=refused.name, source=refused.source, reason=refused.reason)
        if changes:
            self._log.info(
                "servers_changed",
                added=changes.added,
                removed=changes.removed,
                changed=changes.changed,
                replaced=changes.replaced,
            )

    def _failed(self, name: str, error: BaseException) -> None:
        """A refusal is the asker's to hear; for anything else it may have left."""
        if not isinstance(error, ProxyError):
            self._log.error("task_failed", task=name, reason=f"{type(error).__name__}: {error}")

    # What the API asks for

    @_to_its_end
    async def add(self, entries: Mapping[str, Any], principal: Principal) -> tuple[str, ...]:
        """Add servers, all or none. Raises `ProxyError`: 409 for a name that is taken, 403, 422 naming the field."""
        specs = await self._admitted(entries)
        async with self._lock:
            for name in entries:
                if name in self._names():
                    raise ProxyError(CONFLICT, f"there is a server or group called {name!r}", details={"server": name})
                _within(principal, name)
            servers = {**self._state.servers, **{name: dict(entry) for name, entry in entries.items()}}
            state = State(self._state.revision + 1, servers, self._state.disabled, self._state.enabled)
            await self._commit(state, entries)
        return tuple(spec.name for spec in specs)

    @_to_its_end
    async def remove(self, name: str, principal: Principal, if_match: str | None = None) -> None:
        """Remove a server that the API added. Raises `ProxyError`: 404; 409 for one of a file, or one that was changed."""
        async with self._lock:
            self._own(name, principal, if_match, "removed")
            servers = {other: entry for other, entry in self._state.servers.items() if other != name}
            await self._commit(State(self._state.revision + 1, servers, self._state.disabled, self._state.enabled))
            await self._pins.forget(name)

    @_to_its_end
    async def patch(
        self, name: str, patch: Mapping[str, Any], principal: Principal, if_match: str | None = None
    ) -> None:
        """Merge ``patch`` into a server (RFC 7396); a masked secret keeps the secret. Raises `ProxyError`.

        Servers of files can only be switched on and off.
        """
        # What `GET` shows beside the entry may come back with it.
        patch = {key: value for key, value in patch.items() if key not in ("source", "origin")}
        if set(patch) <= {"disabled", "isActive", "enabled"} and patch:
            off = _switched_off(patch)
            return await self.switch(name, on=not off, principal=principal, if_match=if_match)
        async with self._lock:
            entry = self._own(name, principal, if_match, "changed")
            merged = _merged(entry, patch)
            _refuse_rename(name, merged)
            await self._admitted({name: merged})
            servers = {**self._state.servers, name: merged}
            state = State(self._state.revision + 1, servers, self._state.disabled, self._state.enabled)
            await self._commit(state, (name,))
        return None

    @_to_its_end
    async def switch(self, name: str, *, on: bool, principal: Principal, if_match: str | None = None) -> None:
        """Switch any server on or off; what a file says of it is overlaid, not rewritten. Raises `ProxyError`."""
        async with self._lock:
            self._found(name, principal, if_match)
            state = self._state
            servers, disabled, enabled = dict(state.servers), set(state.disabled), set(state.enabled)
            if name in servers and self.origin(name) is Origin.STATE:
                kept = {
                    key: value for key, value in servers[name].items() if key not in ("disabled", "isActive", "enabled")
                }
                servers[name] = kept if on else {**kept, "disabled": True}
            else:
                disabled.discard(name)
                enabled.discard(name)
                plain = State(state.revision, servers, frozenset(disabled), frozenset(enabled))
                configured = await asyncio.to_thread(self._sources.reload, plain)
                written: Sequence[ServerSpec | RefusedServer] = (*configured.servers.specs, *configured.servers.refused)
                if on == any(one.disabled for one in written if one.name == name):
                    (enabled if on else disabled).add(name)  # where it is written, the opposite stands
            await self._commit(State(state.revision + 1, servers, frozenset(disabled), frozenset(enabled)))

    # Pinned tools

    def pins(self, name: str, principal: Principal) -> dict[str, Any]:
        """What is pinned of a server's tools, and what is held back; see `Pins.describe`. Raises `ProxyError`: 404."""
        spec = self._check(name, principal, None)
        shown = self._pins.describe(spec)
        for part in ("tools", "held"):
            shown[part] = {
                tool: one for tool, one in shown[part].items() if principal.sees_tool(tool, name, spec.group)
            }
        return shown

    @_to_its_end
    async def approve(self, name: str, tools: Sequence[str] | None, principal: Principal) -> tuple[str, ...]:
        """Accept tools that are held back as they are now, all of them or those named. Raises `ProxyError`: 404, 409."""
        held = self.pins(name, principal)["held"]
        for tool in tools or ():
            if tool not in held:
                raise ProxyError(TOOL_NOT_FOUND, f"{name} has no tool {tool[:200]!r} that is held back")
        async with self._lock:
            approved = await self._pins.approve(name, list(held) if tools is None else tools)
        self._log.info("tools_approved", server=name, tools=approved)
        self._manager.refresh()
        return approved

    async def _commit(self, state: State, written: Collection[str] = ()) -> None:
        """Keep the state, then let it take effect: what is answered has survived a crash.

        ``written``: servers that must be usable as they are written now. Raises `ProxyError`: 422, 409.
        """
        configured = await asyncio.to_thread(self._sources.reload, state)
        fresh = (one for one in configured.problems if one not in self._configured.problems)
        bad = next((one for one in fresh if one.source == str(self._store.path)), None)
        if bad is not None:
            raise ProxyError(UNPROCESSABLE, bad.reason)
        refused = next((one for one in configured.servers.refused if one.name in written), None)
        if refused is not None:
            text = f"{refused.name}: {refused.reason}"
            raise ProxyError(UNPROCESSABLE, text, details={"server": refused.name})
        try:
            await asyncio.to_thread(self._store.save, state)
        except StoreError as error:
            self._log.error("state_not_kept", reason=str(error))
            raise ProxyError(CONFLICT, f"the change could not be kept, and nothing was changed: {error}") from None
        self._state = state
        self._report(configured)
        self._apply(configured)

    async def _admitted(self, entries: Mapping[str, Any]) -> Sequence[ServerSpec]:
        """The entries as servers. Raises `ProxyError` naming server and field."""
        specs = []
        for name, entry in entries.items():
            spec = self._admission.check_entry(name, entry)
            await self._admission.check(spec)
            specs.append(spec)
        return specs

    # Looking things up

    def _names(self) -> set[str]:
        specs = self._manager.specs.values()
        return {word for spec in specs for word in (spec.name, spec.group) if word} | {
            one.name for one in self._manager.refused
        }

    def _check(self, name: str, principal: Principal, if_match: str | None) -> ServerSpec:
        """A server that can be used as it is written. Raises `ProxyError`: 404, 409."""
        found = self._found(name, principal, if_match)
        if isinstance(found, RefusedServer):
            raise ProxyError(SERVER_NOT_FOUND, f"{name} is not usable as configured: {found.reason}")
        return found

    def _found(self, name: str, principal: Principal, if_match: str | None) -> ServerSpec | RefusedServer:
        """Any server there is, refused ones too: these are listed, and have to be switched off or removed like others."""
        found = self._manager.specs.get(name) or next((one for one in self._manager.refused if one.name == name), None)
        group = found.group if isinstance(found, ServerSpec) else None
        if found is None or not principal.sees_server(name, group):
            raise ProxyError(SERVER_NOT_FOUND, f"there is no server called {name[:200]!r}; GET /servers lists them")
        tag = etag(found) if isinstance(found, ServerSpec) else None
        if if_match is not None and if_match.strip() not in ("*", tag):
            raise ProxyError(
                CONFLICT, f"{name} has been changed since it was read; read it again", details={"server": name}
            )
        return found

    def _own(self, name: str, principal: Principal, if_match: str | None, what: str) -> Mapping[str, Any]:
        """The entry of a server that the API added. Raises `ProxyError`."""
        found = self._found(name, principal, if_match)
        entry = self._state.servers.get(name) if self.origin(name) is Origin.STATE else None
        if entry is None:
            raise ProxyError(
                CONFLICT,
                f"{name} is written in {found.source}, and can only be {what} there",
                details={"source": found.source},
            )
        return entry

    def origin(self, name: str) -> Origin | None:
        """Where a server is written."""
        return self._configured.origins.get(name)

    def config(self, principal: Principal) -> list[dict[str, Any]]:
        """Every server as configured, secrets masked, with where it is written."""
        return [
            {**describe(spec), "source": spec.source, "origin": str(self.origin(spec.name) or "")}
            for spec in self._manager.specs.values()
            if principal.sees_server(spec.name, spec.group)
        ]


def etag(spec: ServerSpec) -> str:
    """Equal as long as a server is configured the same (RFC 9110 §8.8.3, quoted)."""
    fixed = [dict(override.fixed) for override in spec.tools.override.values()]
    secrets = [dict(spec.env), dict(spec.headers), spec.url, list(spec.args), fixed]
    return f'"{sha256(encode([describe(spec), secrets])).hexdigest()[:16]}"'


def _within(principal: Principal, name: str) -> None:
    """A token that is narrowed to some servers cannot add others."""
    if not principal.sees_server(name):
        raise ProxyError(SERVER_NOT_FOUND, f"this token is for other servers than {name!r}", details={"server": name})


def _merged(entry: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396, where a value that is shown masked means: as it was."""
    merged = dict(entry) if isinstance(entry, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = _merged(merged.get(key), value)
        elif isinstance(value, list):
            merged[key] = _unmasked_list(merged.get(key), value)
        elif isinstance(value, str) and MASK in value:
            if key not in merged:
                raise ProxyError(
                    UNPROCESSABLE, f"{key} is masked, and there is no value to keep", details={"field": key}
                )
        else:
            merged[key] = value
    return merged


def _unmasked_list(before: Any, after: list[Any]) -> list[Any]:
    """A list in which masked members keep what stood at their place."""
    old = before if isinstance(before, list) else []
    kept = []
    for position, value in enumerate(after):
        if isinstance(value, str) and MASK in value:
            if position >= len(old):
                raise ProxyError(UNPROCESSABLE, "a masked member of a list has no value to keep")
            kept.append(old[position])
        else:
            kept.append(value)
    return kept


def _refuse_rename(name: str, entry: Mapping[str, Any]) -> None:
    if entry.get("name", name) != name:
        raise ProxyError(UNPROCESSABLE, "a server cannot be renamed: add it anew", details={"field": "name"})


def _switched_off(patch: Mapping[str, Any]) -> bool:
    """What ``disabled`` or its twins say. Raises `ProxyError` for anything but true and false."""
    for key, value in patch.items():
        if not isinstance(value, bool):
            raise ProxyError(UNPROCESSABLE, f"{key} must be true or false", details={"field": key})
    return patch.get("disabled", False) or not patch.get("enabled", True) or not patch.get("isActive", True)
