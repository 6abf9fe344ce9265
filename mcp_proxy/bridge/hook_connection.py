"""How a companion reaches a service: a session of the legacy era over streamable HTTP, by the wires that upstreams have.

Nothing is listened on: questions come in the stream of our own call, answers go as requests. What is answered is
`companion`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mcp_proxy.base.json import Fields
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.base.version import VERSION
from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.upstream.client import Client, OnRequest
from mcp_proxy.core.upstream.dial import Dialer
from mcp_proxy.core.upstream.failures import Attempt
from mcp_proxy.core.upstream.guardian import Guardian
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection; opening the session may take twice as long."""
_LARGEST = 32 * 1024 * 1024
LARGEST_QUESTION = 16 * 1024 * 1024
"""Bytes of a question: as much as programs may send the service, so that their pictures come through."""


def _unheard(_: Incoming) -> None:
    """Progress is a sign of life, logs and changes of lists are nothing to us."""


CLIENT = Client(
    era=Era.LEGACY,
    info={"name": "mcp-proxy-api-hook", "version": VERSION},
    capabilities={"sampling": {"tools": {}}},
    progress=True,
    on_message=_unheard,
)
"""What the service is told of us: a client that can be asked many things at once, with tools."""


@dataclass(frozen=True, slots=True)
class HookConnection:
    """A `companion.Connection` on a link that was negotiated for `CLIENT`."""

    link: Link

    async def hook(self, on_request: OnRequest) -> Fields:
        """See `Connection.hook`."""
        call = {"name": "hook", "arguments": {}}
        return await self.link.request(
            "tools/call", call, Attempt(), client=CLIENT, on_message=_unheard, on_request=on_request
        )

    async def check(self) -> None:
        """See `Connection.check`."""
        await self.link.check()

    async def close(self) -> None:
        """See `Connection.close`. Takes seconds at most."""
        await self.link.wire.close()


@dataclass(frozen=True, slots=True)
class HookDialer:
    """Opens connections to the MCP endpoint at ``url``. ``tasks`` answer and post; they end with their owner."""

    url: str
    headers: Mapping[str, str]
    tasks: TaskSet

    async def __call__(self) -> HookConnection:
        """A new session. Raises `WireError`, `RpcError`."""
        spec = ServerSpec("service", Transport.STREAMABLE_HTTP, "command line", url=self.url, headers=self.headers)
        dialer = Dialer(CONNECT_TIMEOUT, _LARGEST, Guardian(), self.tasks, max_question=LARGEST_QUESTION)
        return HookConnection(await dialer.dial_for(CLIENT, spec, spec.transport, _unheard, lambda _: None))
