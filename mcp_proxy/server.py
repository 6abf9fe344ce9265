"""Serving: HTTP with Hypercorn, the stdio door, or both, in this process on uvloop; and one orderly stop.

A stop first turns ``/health/ready`` to 503, then lets calls in flight finish, then closes listeners, upstreams and
children. A second signal skips the waiting. The end of stdin is the stdio client's wish to stop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import ssl
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config, Sockets

from mcp_proxy.app import ProxyApp
from mcp_proxy.base.errors import StartError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.connections import Connections, own_connections
from mcp_proxy.gateway.stdio import StdioDoor
from mcp_proxy.settings import Settings

_GRACE = 3.0
"""Seconds that idle connections and streams get once no call is in flight."""

_FURTHER_PORTS = 100
"""That are tried with --auto-port after the one asked for."""

_LAST_PORT = 65_535
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
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_Service(app, settings, stdio).run(on_listening))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # a platform without it
        return None
    return uvloop.new_event_loop


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
        """Hypercorn starts and stops the runtime, by the application's lifespan."""
        config = _config(self._settings)
        ports = self._bind(config)

        async def until_stopped() -> None:
            self._tasks.spawn(on_listening(ports), "listening")
            await self._until_stopped(stopping)

        async def serving() -> None:
            try:
                await hypercorn_serve(self._app, config, shutdown_trigger=until_stopped)
            except asyncio.InvalidStateError:
                # At the end it asks every connection for its outcome; one that is left even then has none.
                if not stopping.drained.is_set():
                    raise

        with own_connections() as connections:
            server = self._tasks.spawn(serving(), "server")
            closing = self._tasks.spawn(_limit_shutdown(server, connections, stopping), "shutdown limit")
            try:
                with suppress(asyncio.CancelledError):
                    await server
            finally:
                closing.cancel()

    def _bind(self, config: _BoundConfig) -> Ports:
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
            bound[name] = config.bind_now(wanted, _CHOOSING[name])
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
        try:
            await self._first(self._drain(client_left), stopping.wait_again())
            if self._stdio is not None:
                await self._stdio.close()
        finally:
            stopping.drained.set()

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
            finishing = self._tasks.spawn(self._stdio.finish(self._settings.drain_timeout + _GRACE), "stdio drain")
            await (self._runtime.stop() if client_left else self._runtime.drain())
            await finishing
        await self._stdio.finish(_GRACE, lasting=True)

    async def _first(self, work: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> bool:
        """Run both until one has ended; whether that was ``work``."""
        both = TaskSet(self._runtime.task_failed)
        try:
            working = both.spawn(work, "serving")
            await asyncio.wait([working, both.spawn(other, "signal")], return_when=asyncio.FIRST_COMPLETED)
            return working.done()
        finally:
            await both.close()


async def _limit_shutdown(server: asyncio.Task[None], connections: Connections, stopping: _Stop) -> None:
    """After the drain the server has a moment to close; idle connections must not hold it up for ever."""
    await stopping.drained.wait()
    await connections.end(_GRACE)
    await asyncio.wait([server], timeout=1)
    server.cancel()


def wanted_ports(port: int, *, auto: bool, others: Collection[int | None] = ()) -> list[int]:
    """The ports to try, in order: the one asked for, and with --auto-port those after it that are not ``others``."""
    further = range(port + 1, min(port + _FURTHER_PORTS, _LAST_PORT) + 1) if auto and port else ()
    return [port, *(one for one in further if one not in others)]


class _Stop:
    """Counts the signals that ask to stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._first = asyncio.Event()
        self._second = asyncio.Event()
        self.drained = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signal)

    def _signal(self) -> None:
        (self._second if self._first.is_set() else self._first).set()

    async def wait(self) -> None:
        await self._first.wait()

    async def wait_again(self) -> None:
        await self._second.wait()


class _BoundConfig(Config):
    """Hypercorn's configuration with sockets of our own making: an address in use is our one-line error, and no child
    inherits the listening socket."""

    host = ""
    """Brackets around an IPv6 address."""

    def __init__(self) -> None:
        super().__init__()
        self._made = Sockets([], [], [])

    def bind_now(self, ports: Sequence[int], choosing: str) -> int:
        """Listen on the first of the ports that is free, beside those listened on before, and return it.

        0 lets the system choose. Raises `StartError`, which says how a port is chosen.
        """
        if self.ssl_enabled:
            check_certificate(self)
        for port in ports:
            where = f"{self.host}:{port}"
            try:
                return self._listen(where)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                if error.errno == errno.EACCES:
                    raise StartError(f"{where} is not permitted; choose a port above 1023") from None
                raise StartError(f"cannot listen on {where}: {error.strerror or type(error).__name__}") from None
        used = f"{self.host}:{ports[0]} " + ("is" if len(ports) == 1 else f"to {ports[-1]} are")
        raise StartError(f"{used} in use; choose another port with {choosing}")

    def _listen(self, where: str) -> int:
        """The port, chosen by the system where 0 was asked for. Raises `OSError`."""
        self.bind = [where]
        made = super().create_sockets()
        [sock] = [*made.secure_sockets, *made.insecure_sockets]
        try:
            sock.set_inheritable(False)
            # Only this fails where somebody else has bound the same port and listens first.
            sock.listen(self.backlog)
        except OSError:
            sock.close()
            raise
        self._made.secure_sockets.extend(made.secure_sockets)
        self._made.insecure_sockets.extend(made.insecure_sockets)
        port: int = sock.getsockname()[1]
        return port

    def create_sockets(self) -> Sockets:
        """What `bind_now` made."""
        return self._made


def check_certificate(config: Config) -> None:
    """Raises `StartError` when the certificate or its key cannot be used."""
    for file in (config.certfile, config.keyfile):
        if file is not None and not os.access(file, os.R_OK):
            raise StartError(f"{file} cannot be read; see --certfile and --keyfile")
    try:
        config.create_ssl_context()
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        text = f"the certificate and key cannot be used ({reason}); see --certfile and --keyfile"
        raise StartError(text) from None


def _config(settings: Settings) -> _BoundConfig:
    config = _BoundConfig()
    config.host = f"[{settings.host}]" if ":" in settings.host else settings.host
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.graceful_timeout = _GRACE + 0.5  # By then `Connections.end` has left it nobody to wait for.
    config.shutdown_timeout = 60
    config.keep_alive_timeout = 75
    config.backlog = 2048
    config.h11_max_incomplete_size = 64 * 1024
    config.h2_max_concurrent_streams = 256
    config.websocket_max_message_size = 64 * 1024
    if settings.certfile is not None:
        config.certfile = str(settings.certfile)
        config.keyfile = str(settings.keyfile) if settings.keyfile is not None else None
    return config
