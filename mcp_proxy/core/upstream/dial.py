"""Opening a link to a server as configured: which wire, which era, within the time allowed.

Stateless apart from what all upstreams share (the guardian). Keeping links open is `upstream`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.admission.guard import AddressGuard
from mcp_proxy.core.upstream.answering import LARGEST
from mcp_proxy.core.upstream.child import child_environment
from mcp_proxy.core.upstream.client import PROXY, Client, OnIncoming
from mcp_proxy.core.upstream.exchanges import new_exchange
from mcp_proxy.core.upstream.failures import Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.guardian import Guardian
from mcp_proxy.core.upstream.link import Link, negotiate
from mcp_proxy.core.upstream.sse_wire import SseWire
from mcp_proxy.core.upstream.stdio import StdioWire
from mcp_proxy.core.upstream.streamable import StreamableHttpWire
from mcp_proxy.core.upstream.wire import Wire

_STDIO_START = 60.0
"""Seconds a command may take to answer for the first time: package runners download before they start."""
_PROBE = 3.0


def _unguarded(_: ServerSpec) -> AddressGuard | None:
    return None


@dataclass(frozen=True, slots=True)
class Dialer:
    """Opens links. ``connect_timeout`` is in seconds, ``max_result`` in bytes, and so is ``max_question``, which holds for what is
    asked over streamable HTTP.

    ``guarded`` gives the guard for the addresses of a server that came over the API, None for any other.
    """

    connect_timeout: float
    max_result: int
    guardian: Guardian
    tasks: TaskSet
    guarded: Callable[[ServerSpec], AddressGuard | None] = _unguarded
    max_question: int = LARGEST

    async def dial_for(
        self,
        client: Client,
        spec: ServerSpec,
        transport: Transport,
        on_incoming: OnIncoming,
        on_stderr: Callable[[str], None],
    ) -> Link:
        """A legacy link that is ``client``'s alone, over the transport that is known by now. Raises `WireError`, `RpcError`."""
        return await self._dial(spec, transport, on_incoming, on_stderr, client)

    async def dial(
        self, spec: ServerSpec, on_incoming: OnIncoming, on_stderr: Callable[[str], None], base: Client = PROXY
    ) -> tuple[Link, Transport]:
        """Connect and negotiate; the link and the transport it turned out to be. Raises `WireError`, `RpcError`.

        ``on_stderr`` takes the lines that a command writes to its stderr. ``base``: whom the link speaks for where it
        speaks for no client in particular.
        """
        listeners = (on_incoming, on_stderr)
        if spec.transport is not Transport.AUTO:
            return await self._dial(spec, spec.transport, *listeners, base=base), spec.transport
        try:
            link = await self._dial(spec, Transport.STREAMABLE_HTTP, *listeners, base=base)
            return link, Transport.STREAMABLE_HTTP
        except (WireError, RpcError) as error:
            if not _may_be_sse(error):
                raise
            first = error
        try:
            return await self._dial(spec, Transport.SSE, *listeners, base=base), Transport.SSE
        except (WireError, RpcError):
            raise first from None

    async def _dial(
        self,
        spec: ServerSpec,
        transport: Transport,
        on_incoming: OnIncoming,
        on_stderr: Callable[[str], None],
        client: Client = PROXY,
        base: Client = PROXY,
    ) -> Link:
        reach = spec.connect_timeout or self.connect_timeout
        allowed = spec.connect_timeout or _STDIO_START if transport is Transport.STDIO else reach * 2
        wire: Wire | None = None
        try:
            async with asyncio.timeout(allowed):
                wire = self._wire(spec, transport, reach, on_incoming, on_stderr)
                await self._open(wire, spec)
                modern = transport is not Transport.SSE
                probe = min(_PROBE, allowed / 2)
                terms = await negotiate(wire, probe_timeout=probe, modern_possible=modern, client=client, base=base)
                return Link(wire, terms, base)
        except BaseException as error:
            if wire is not None:
                await wire.close()
            if isinstance(error, TimeoutError):
                text = f"it did not answer within {allowed:g} s"
                raise WireError(Failure.TIMEOUT, Phase.NOT_SENT, text) from None
            raise

    def _wire(
        self,
        spec: ServerSpec,
        transport: Transport,
        reach: float,
        on_incoming: OnIncoming,
        on_stderr: Callable[[str], None],
    ) -> Wire:
        if transport is Transport.STDIO:
            return StdioWire(
                max_result=self.max_result,
                guardian=self.guardian,
                tasks=self.tasks,
                on_incoming=on_incoming,
                on_stderr=on_stderr,
            )
        assert spec.url is not None
        sse = transport is Transport.SSE
        make = SseWire if sse else partial(StreamableHttpWire, max_question=self.max_question)
        return make(
            new_exchange(reach, self.guarded(spec)), spec.url, spec.headers,
            max_result=self.max_result, tasks=self.tasks, on_incoming=on_incoming,
        )  # fmt: skip

    async def _open(self, wire: Wire, spec: ServerSpec) -> None:
        if isinstance(wire, SseWire):
            await wire.open()
        elif isinstance(wire, StdioWire):
            assert spec.command is not None
            await wire.open((spec.command, *spec.args), child_environment(os.environ, spec.env), spec.cwd)


def _may_be_sse(error: WireError | RpcError) -> bool:
    """Whether the server looks like one that speaks only the older HTTP+SSE transport at this URL."""
    if isinstance(error, RpcError):
        return False
    return error.status in (400, 404, 405, 406, 415) or error.failure is Failure.BAD_REPLY
