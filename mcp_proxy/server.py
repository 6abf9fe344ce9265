"""Serving the application: Hypercorn in this process on uvloop, and an orderly stop.

A stop first turns ``/health/ready`` to 503, then lets calls in flight finish, then closes listeners, upstreams and
children. A second signal skips the waiting.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config, Sockets

from mcp_proxy.app import ProxyApp
from mcp_proxy.base.errors import StartError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.settings import Settings

_GRACE = 3.0
"""Seconds that idle connections and streams get once no call is in flight."""


def run(app: ProxyApp, settings: Settings, on_listening: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Serve until SIGTERM or SIGINT; ``on_listening`` gets the port and runs along. Raises `StartError` when the address cannot be had."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(app, settings, on_listening))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # a platform without it
        return None
    return uvloop.new_event_loop


async def _serve(app: ProxyApp, settings: Settings, on_listening: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    config = _config(settings)
    config.bind_now()
    stopping = _Stop(asyncio.get_running_loop())
    tasks = TaskSet(app.runtime.task_failed)

    async def until_stopped() -> None:
        tasks.spawn(on_listening(config.port()), "listening")
        await stopping.wait()
        await _drain(app, settings, stopping)

    server = tasks.spawn(hypercorn_serve(app, config, shutdown_trigger=until_stopped), "server")
    closing = tasks.spawn(_limit_shutdown(server, stopping), "shutdown limit")
    try:
        with suppress(asyncio.CancelledError):
            await server
    finally:
        closing.cancel()
        await app.runtime.stop()
        await tasks.close()
        app.runtime.log.info("stopped")


async def _drain(app: ProxyApp, settings: Settings, stopping: _Stop) -> None:
    """Not ready, then no new calls, then none in flight; cut short by a second signal."""
    app.runtime.log.info("stopping", calls_in_flight=app.runtime.gate.inflight)
    app.runtime.gate.not_ready = True
    drain = TaskSet(app.runtime.task_failed)
    try:

        async def orderly() -> None:
            await asyncio.sleep(settings.drain_delay)
            await app.runtime.drain()

        first = [drain.spawn(orderly(), "drain"), drain.spawn(stopping.wait_again(), "second signal")]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await drain.close()
        stopping.drained.set()


async def _limit_shutdown(server: asyncio.Task[None], stopping: _Stop) -> None:
    """After the drain the server has a moment to close; idle connections must not hold it up for ever."""
    await stopping.drained.wait()
    await asyncio.wait([server], timeout=_GRACE + 1)
    server.cancel()


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

    _sockets: Sockets | None = None

    def bind_now(self) -> None:
        """Bind and listen. Raises `StartError`."""
        where = self.bind[0]
        if self.ssl_enabled:
            check_certificate(self)
        try:
            self._sockets = super().create_sockets()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StartError(f"{where} is in use; choose another port with --port or PORT") from None
            if error.errno == errno.EACCES:
                raise StartError(f"{where} is not permitted; choose a port above 1023") from None
            raise StartError(f"cannot listen on {where}: {error.strerror or type(error).__name__}") from None
        for sock in (*self._sockets.secure_sockets, *self._sockets.insecure_sockets):
            sock.set_inheritable(False)
            sock.listen(self.backlog)

    def port(self) -> int:
        """The port listened on; chosen by the system where 0 was asked for."""
        sockets = self.create_sockets()
        bound: int = (*sockets.secure_sockets, *sockets.insecure_sockets)[0].getsockname()[1]
        return bound

    def create_sockets(self) -> Sockets:
        """What `bind_now` made."""
        assert self._sockets is not None
        return self._sockets


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
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    config.bind = [f"{host}:{settings.port}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.graceful_timeout = _GRACE
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
