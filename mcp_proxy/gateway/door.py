"""The MCP door: what each method means, for clients of either era. Transports bring requests here and carry answers away.

Lists come from the catalogue; everything that reaches a server goes through the one call path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    INVALID_ARGUMENTS,
    OVERLOADED,
    SERVER_NOT_FOUND,
    ProxyError,
)
from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.json import Raw, encode
from mcp_proxy.base.protocol import (
    INVALID_PARAMS,
    LATEST_LEGACY,
    LEGACY_VERSIONS,
    LOG_LEVELS,
    METHOD_NOT_FOUND,
    MODERN_VERSIONS,
)
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.broker import Broker
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.calls import CallPath
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.registry import Registry
from mcp_proxy.core.upstream.client import PROXY_INFO
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.gateway import wording
from mcp_proxy.gateway.ambient import Ambient
from mcp_proxy.gateway.asked import Answer, Asked
from mcp_proxy.gateway.calling import Calling
from mcp_proxy.gateway.envelope import MAX_INTRODUCTION, Notification, Refusal
from mcp_proxy.gateway.following import Following
from mcp_proxy.gateway.hook import Hook
from mcp_proxy.gateway.lists import Lists
from mcp_proxy.gateway.meta.router import MetaTools
from mcp_proxy.gateway.notices import Notices
from mcp_proxy.gateway.parking import Parking
from mcp_proxy.gateway.seal import Seal
from mcp_proxy.gateway.session import Introduction, Session, Sessions
from mcp_proxy.gateway.sight import Sight
from mcp_proxy.gateway.subscribing import Subscribing
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import Logger

_CAPABILITIES: Mapping[str, Any] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
}
_LEGACY_CAPABILITIES: Mapping[str, Any] = {**_CAPABILITIES, "logging": {}}
_REAP = 15.0
_LEASE = 3600.0
"""Seconds that a client of the modern era may take for a completion that nobody else limits."""

Handler = Callable[[Asked], Awaitable[Mapping[str, Any]]]


class McpDoor:
    """Serves MCP requests. `start`, `drain` and `close` belong to the runtime. A `core.events.Listener`."""

    def __init__(
        self,
        manager: McpClientManager,
        calls: CallPath,
        registry: Registry,
        settings: Settings,
        *,
        clock: Clock,
        ids: IdSource,
        log: Logger,
        seal_key: bytes,
        broker: Broker | None = None,
    ) -> None:
        """``ids`` must not be predictable. ``seal_key`` signs what clients carry between requests.

        ``broker``: what clients' models answer for; None: they are not asked to.
        """
        self._manager = manager
        self._log = log
        self._log_bodies = settings.log_bodies
        self._tasks = TaskSet(self._task_failed)
        self._ending = asyncio.Event()
        self.sessions = Sessions(
            limit=settings.max_sessions,
            idle=settings.session_idle,
            clock=clock,
            ids=ids,
            on_end=self._left,
            on_renewed=self._renewed,
        )
        self.following = Following(manager, self._tasks)
        self.notices = Notices(manager, self.following, self._tasks)
        self.parking = Parking(
            limit=settings.max_parked,
            patience=settings.park_timeout,
            idle=min(settings.session_idle, 60.0),
            clock=clock,
            ids=ids,
            tasks=self._tasks,
            forget=manager.forget_client,
        )
        sight = Sight(manager, self.parking)
        self._meta = MetaTools(settings, manager, registry, sight)
        self._released = asyncio.Event()
        self._hook: Hook | None = None
        self._ambient: Ambient | None = None
        if broker is not None:
            if settings.llm_ambient:
                self._ambient = Ambient(broker, ids=ids, tasks=self._tasks)
            lease = settings.llm_timeout or _LEASE
            self._hook = Hook(
                broker,
                Seal(seal_key, clock, lease),
                clock=clock,
                ids=ids,
                tasks=self._tasks,
                ending=self._released,
                lease=lease,
                on_error=self._task_failed,
                ambient=self._ambient,
            )
        lists = Lists(sight, self._meta, self._hook)
        calling = Calling(
            manager, calls, self._meta, self._hook, self.parking, Seal(seal_key, clock, settings.park_timeout)
        )
        self._subscribing = Subscribing(self.following, self.notices, self._meta, self._ending, log)
        shared: dict[str, Handler] = {
            "tools/list": lists.tools,
            "tools/call": calling.tool,
            "prompts/list": lists.prompts,
            "prompts/get": calling.prompt,
            "resources/list": lists.resources,
            "resources/templates/list": lists.templates,
            "resources/read": calling.resource,
            "completion/complete": calling.completion,
        }
        modern: dict[str, Handler] = {
            "server/discover": self._discover,
            "subscriptions/listen": self._subscribing.listen,
        }
        legacy: dict[str, Handler] = {
            "ping": self._ping,
            "logging/setLevel": self._set_level,
            "resources/subscribe": self._subscribing.subscribe,
            "resources/unsubscribe": self._subscribing.unsubscribe,
        }
        self._methods = {Era.MODERN: shared | modern, Era.LEGACY: shared | legacy}
        manager.listeners.append(self)

    # Life

    def start(self) -> None:
        """Begin to look after sessions and parked calls."""
        self._tasks.spawn(self.sessions.watch(), "sessions")
        self._tasks.spawn(self._watch_parking(), "parking")

    async def _watch_parking(self) -> None:
        while True:
            await asyncio.sleep(_REAP)
            self.parking.reap()

    def drain(self) -> None:
        """The program is to stop: what only waits for a client ends."""
        self.parking.drain()
        self._ending.set()

    def release(self) -> None:
        """No more completions are waited for: the calls that offer models end."""
        self._released.set()

    def end_where(self, revoked: Callable[[Principal], bool]) -> None:
        """What clients whose token is no longer good offer is not used any more."""
        if self._hook is not None:
            self._hook.end_where(revoked)

    async def close(self) -> None:
        """End all sessions and calls."""
        self._ending.set()
        self._released.set()
        self.sessions.close()
        await self._tasks.close()

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._log.error("task_failed", task=name, reason=f"{type(error).__name__}: {error}")

    def _renewed(self, session: Session) -> None:
        self._subscribing.welcome(session)

    def _left(self, session: Session) -> None:
        self._subscribing.farewell(session)
        if self._ambient is not None:
            self._ambient.farewell(session)
        self._manager.forget_client(session.key)

    # Requests (`asked.Door`)

    async def answer(self, asked: Asked) -> Answer:
        """See `asked.Door.answer`."""
        record, request = asked.record, asked.request
        if record.method != request.method:  # stdio's records have it as their method
            record.rpc_method = request.method[:100]
        era = asked.client.era
        handler = self._methods[era].get(request.method)
        try:
            if handler is None:
                status = 404 if era is Era.MODERN else 200
                raise Refusal(METHOD_NOT_FOUND, f"Method not found: {request.method[:100]}", status=status)
            answer = wording.result(request.id, await handler(asked), request.method, era)
        except Exception as error:  # noqa: BLE001 - boundary: a bug of ours must not leave the client without an answer
            answer = self._failed(asked, error)
        if self._log_bodies:
            record.request = {"method": request.method, "params": request.params}
            record.response = Raw(answer.body)
        return answer

    def _failed(self, asked: Asked, error: Exception) -> Answer:
        request, record, era = asked.request, asked.record, asked.client.era
        if isinstance(error, Refusal):
            record.error = record.error or BAD_REQUEST.type
            answer = wording.refusal(error, request.id)
            return answer if era is Era.MODERN else Answer(answer.body, 200, answer.headers)
        if isinstance(error, ProxyError):
            record.error = error.kind.type
            if error.kind is INVALID_ARGUMENTS and request.method == "tools/call":
                return wording.tool_failure(request.id, error, era)
            return wording.error(request.id, error, era, record.request_id, request.method)
        self._log.exception("unhandled_exception", request_id=record.request_id, exc_info=error)
        record.error = INTERNAL_ERROR.type
        return wording.fault(request.id, record.request_id)

    def refuse(self, refusal: Refusal) -> Answer:
        """See `asked.Door.refuse`."""
        return wording.refusal(refusal)

    def check_namespace(self, name: str, principal: Principal) -> None:
        """See `asked.Door.check_namespace`."""
        named = self._manager.find(name, principal)
        if name not in {word for spec in named.members for word in (spec.name, spec.group)}:
            raise ProxyError(SERVER_NOT_FOUND, f"there is no server called {name[:200]!r}; GET /servers lists them")

    def introduce(self, asked: Asked) -> tuple[Session | None, Answer]:
        """See `asked.Door.introduce`."""
        request = asked.request
        try:
            introduction = _introduction(asked)
            session = self.sessions.open(asked.principal, introduction)
        except Refusal as refusal:
            return None, wording.refusal(refusal, request.id)
        except ProxyError as error:
            asked.record.error = error.kind.type
            answer = wording.error(request.id, error, Era.LEGACY, asked.record.request_id)
            wait = ((b"retry-after", b"5"),) if error.kind is OVERLOADED else ()
            return None, Answer(answer.body, error.status, wait)
        self._subscribing.welcome(session)
        fields: dict[str, Any] = {
            "protocolVersion": introduction.version,
            "capabilities": _LEGACY_CAPABILITIES,
            "serverInfo": PROXY_INFO,
        }
        if told := self._instructions(asked):
            fields["instructions"] = told
        return session, wording.result(request.id, fields, request.method, Era.LEGACY)

    def notified(self, session: Session | None, message: Notification) -> None:
        """See `asked.Door.notified`."""
        if session is None:
            return
        if message.method == "notifications/cancelled":
            session.cancel(message.params.get("requestId"))
        elif message.method == "notifications/initialized":
            if self._ambient is not None:
                self._ambient.welcome(session)
        elif message.method == "notifications/roots/list_changed":
            self._manager.tell(session.key, message.method)

    # Legacy methods

    async def _ping(self, asked: Asked) -> Mapping[str, Any]:
        return {}

    async def _set_level(self, asked: Asked) -> Mapping[str, Any]:
        level = asked.request.params.get("level")
        if level not in LOG_LEVELS:
            raise Refusal(INVALID_PARAMS, f"level must be one of {', '.join(LOG_LEVELS)}")
        if asked.session is not None:
            asked.session.set_log_level(level)
        return {}

    # Modern methods

    async def _discover(self, asked: Asked) -> Mapping[str, Any]:
        fields: dict[str, Any] = {"supportedVersions": MODERN_VERSIONS, "capabilities": _CAPABILITIES}
        if told := self._instructions(asked):
            fields["instructions"] = told
        return fields

    def _instructions(self, asked: Asked) -> str | None:
        """What the servers say of themselves, to callers who may know what there is."""
        if not asked.principal.has(Scope.TOOLS_READ):
            return None
        hint = self._meta.hint(asked.principal, asked.namespace)
        told = self._manager.instructions(asked.principal, asked.namespace)
        return "\n\n".join(text for text in (hint, told) if text) or None

    # What servers report (`core.events.Listener`)

    def catalog_changed(self) -> None:
        """See `Listener.catalog_changed`."""
        self.notices.catalog_changed()

    def announced(self, spec: ServerSpec, kinds: frozenset[str]) -> None:
        """See `Listener.announced`."""
        self.notices.announced(spec, kinds)

    def resource_updated(self, spec: ServerSpec, message: Incoming) -> None:
        """See `Listener.resource_updated`."""
        self.notices.resource_updated(spec, message)

    def client_told(self, key: str, spec: ServerSpec, message: Incoming) -> None:
        """See `Listener.client_told`."""
        method = message.method
        body = wording.notification(method, message.params)
        if method.endswith("/list_changed"):
            self.notices.told(key, method.split("/")[1])
        elif method == "notifications/progress":
            pass  # of a request that is over, with a token that is none of the client's
        elif (session := self.sessions.get(key)) is not None:
            if session.principal.sees_server(spec.name, spec.group):
                session.tell(body)
        elif (parked := self.parking[key]) is not None and (parked.visit.logs or method != "notifications/message"):
            parked.tell(lambda to: to.channel.send(body))


def _introduction(asked: Asked) -> Introduction:
    """What ``initialize`` says of the client. Raises `Refusal`."""
    params = asked.request.params
    version, capabilities, info = (params.get(name) for name in ("protocolVersion", "capabilities", "clientInfo"))
    if not isinstance(version, str):
        raise Refusal(INVALID_PARAMS, "protocolVersion must be a string", status=200)
    if not isinstance(capabilities, dict | None) or not isinstance(info, dict | None):
        raise Refusal(INVALID_PARAMS, "capabilities and clientInfo must be objects", status=200)
    if len(encode([capabilities, info])) > MAX_INTRODUCTION:
        raise Refusal(
            INVALID_PARAMS, f"capabilities and clientInfo are larger than {MAX_INTRODUCTION} bytes", status=200
        )
    known = version if version in LEGACY_VERSIONS else LATEST_LEGACY
    return Introduction(known, capabilities or {}, info or {}, asked.namespace)
