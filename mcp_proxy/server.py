"""Serving: HTTP by uvicorn and Hypercorn, the stdio door, or both, on uvloop; and one orderly stop.

A stop first turns ``/health/ready`` to 503, then lets calls in flight finish, then closes listeners, upstreams and
children. A second signal skips the waiting. The end of stdin is the stdio client's wish to stop. How connections are
served is `serving`.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

from mcp_proxy.app import ProxyApp
from mcp_proxy.base.errors import StartError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.edge.types import App
from mcp_proxy.gateway.stdio import StdioDoor
from mcp_proxy.serving.choosing import loop_factory, server_named
from mcp_proxy.serving.collector import set_up_collector
from mcp_proxy.serving.listeners import Listeners, wanted_ports
from mcp_proxy.serving.terms import GRACE, Serve, Serving
from mcp_proxy.settings import Settings

_CHOOSING = {"PORT": "--port or PORT", "MCP_PROXY_ADMIN_PORT": "--admin-port or MCP_PROXY_ADMIN_PORT"}


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports listened on; ``admin`` None: there is none for management alone."""

    main: int
    admin: int | None


OnListening = Callable[[Ports], Coroutine[Any, Any, None]]


def run(
    app: ProxyApp, settings: Settings, on_listening: OnListening | None = None, stdio: StdioDoor | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, or until the client of ``stdio`` has left.

    ``on_listening`` gets the ports and runs along; without it nothing listens. Raises `StartError` when the address
    cannot be had.
    """
    set_up_collector()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_Service(app, settings, stdio).run(on_listening))


def server_of(settings: Settings) -> Serve:
    """The one that the settings name, in this process or in workers. Raises `StartError` where it cannot be had."""
    serve = server_named(settings.server)
    if settings.workers == 1:
        return serve
    if not hasattr(socket, "AF_UNIX"):
        raise StartError("--workers needs Unix sockets, which this system has not; without it one process serves")
    from mcp_proxy.serving.workers.crew import serve_by

    return serve_by(settings.workers, settings.server)


class _Service:
    """One run of the program, from its listeners to their end."""

    def __init__(self, app: ProxyApp, settings: Settings, stdio: StdioDoor | None) -> None:
        self._app = app
        self._runtime = app.runtime
        self._settings = settings
        self._stdio = stdio
        self._tasks = TaskSet(app.runtime.task_failed)

    async def run(self, on_listening: OnListening | None) -> None:
        stopping = _Stop(asyncio.get_running_loop())
        try:
            if on_listening is not None:
                await self._serve_http(on_listening, stopping)
            else:
                await self._runtime.start()
                await self._until_stopped(stopping)
        finally:
            await self._runtime.stop()
            if self._stdio is not None:
                await self._stdio.close()
            await self._tasks.close()
            self._runtime.log.info("stopped")

    async def _serve_http(self, on_listening: OnListening, stopping: _Stop) -> None:
        """The server starts and stops the runtime, by the application's lifespan."""
        settings, runtime = self._settings, self._runtime
        serve = server_of(settings)
        listeners = Listeners(settings.host, settings.certfile, settings.keyfile)
        listeners.tls("http/1.1")  # Before anything is bound, since it may not be usable.
        ports = self._listen(listeners)

        async def until_stopped() -> None:
            self._tasks.spawn(on_listening(ports), "listening")
            await self._until_stopped(stopping)

        serving = Serving(
            cast(App, self._app.asgi_app),
            listeners,
            until_stopped,
            self._tasks,
            runtime.log,
            runtime.clock,
            runtime.ids,
        )
        await serve(serving)

    def _listen(self, listeners: Listeners) -> Ports:
        """Listen, and tell whom it concerns where. Raises `StartError`."""
        settings, runtime = self._settings, self._runtime
        asked = {"PORT": settings.port, "MCP_PROXY_ADMIN_PORT": settings.admin_port}
        bound: dict[str, int] = {}
        # Those that the system chooses come last: it must not choose what was asked for.
        for name, port in sorted(asked.items(), key=lambda one: one[1] == 0):
            if port is None:
                continue
            # One port that moves must not take the place that the other was given.
            others = {other for other in asked.values() if other != port}
            wanted = wanted_ports(port, auto=settings.auto_port, others=others)
            bound[name] = listeners.listen(wanted, _CHOOSING[name])
            if port not in (0, bound[name]):
                runtime.log.warning("port_in_use", setting=name, asked=port, port=bound[name])
        runtime.admin_port = bound.get("MCP_PROXY_ADMIN_PORT")
        return Ports(bound["PORT"], runtime.admin_port)

    async def _until_stopped(self, stopping: _Stop) -> None:
        """Wait for a signal or the end of the client, then stop in order."""
        client_left = False
        if self._stdio is None:
            await stopping.wait()
        else:
            client_left = await self._first(self._stdio.run(), stopping.wait())
        log, gate = self._runtime.log, self._runtime.gate
        log.info("stopping", calls_in_flight=gate.inflight)
        gate.not_ready = True
        await self._first(self._drain(client_left), stopping.wait_again())
        if self._stdio is not None:
            await self._stdio.close()

    async def _drain(self, client_left: bool) -> None:
        """No new calls, then none in flight."""
        if self._stdio is None:
            await asyncio.sleep(self._settings.drain_delay)
            await self._runtime.drain()
            return
        if client_left and await self._stdio.finish(self._settings.drain_timeout):
            # What it had sent before it left was to be served, and has been.
            await self._runtime.drain()
        else:
            finishing = self._tasks.spawn(self._stdio.finish(self._settings.drain_timeout + GRACE), "stdio drain")
            await (self._runtime.stop() if client_left else self._runtime.drain())
            await finishing
        await self._stdio.finish(GRACE, lasting=True)

    async def _first(self, work: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> bool:
        """Run both until one has ended; whether that was ``work``."""
        both = TaskSet(self._runtime.task_failed)
        try:
            working = both.spawn(work, "serving")
            await asyncio.wait([working, both.spawn(other, "signal")], return_when=asyncio.FIRST_COMPLETED)
            return working.done()
        finally:
            await both.close()


class _Stop:
    """Counts the signals that ask to stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._first = asyncio.Event()
        self._second = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signal)

    def _signal(self) -> None:
        (self._second if self._first.is_set() else self._first).set()

    async def wait(self) -> None:
        await self._first.wait()

    async def wait_again(self) -> None:
        await self._second.wait()
