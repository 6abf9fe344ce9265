"""The client behind a request: what upstreams are told of it, and how they reach it. A value; which link serves it is `upstream`.

A door without such a client (REST) speaks as `PROXY`, who can be asked nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any

import msgspec
from msgspec.structs import replace

from mcp_proxy.base.version import VERSION
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era

PROXY_INFO: Mapping[str, Any] = {"name": "mcp-proxy-api", "version": VERSION}
SAMPLING = "sampling/createMessage"
ASKS = {SAMPLING: "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}
"""What servers may ask of clients: the methods, and the capability that each needs."""
_PROFILED = {"elicitation": ("form", "url"), "roots": (), "sampling": ("context", "tools")}
"""The capabilities that make a difference to what servers list, and their members."""
_NOT_FORWARDED = frozenset({"tasks"})
"""Capabilities that would have to be served here, and are not."""

OnIncoming = Callable[[Incoming], None]
"""Takes notifications of the upstream. Must not block."""
OnRequest = Callable[[Incoming], Awaitable[Mapping[str, Any]]]
"""Answers a request of the upstream's with a result. Raises `RpcError` for a refusal."""
House = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Makes the completions that one server asks for, where its client cannot: from the params of the request to its result.

Raises `RpcError` for a refusal. Cancelling it ends the work.
"""
_HOUSE_OFFERS: Mapping[str, Any] = {"sampling": {"tools": {}}}


class Client(msgspec.Struct, frozen=True, dict=True):
    """Who asks.

    ``key`` names whose links of its own these are (a session, or one call that may have to wait); None: it has none.
    ``on_message`` gets what belongs to its request and comes before the answer, ``on_request`` what it is asked.
    ``house`` is asked for completions in its place; see `housed`.
    """

    era: Era = Era.MODERN
    info: Mapping[str, Any] = msgspec.field(default_factory=lambda: PROXY_INFO)
    capabilities: Mapping[str, Any] = msgspec.field(default_factory=dict)
    log_level: str | None = None
    progress: bool = False
    key: str | None = None
    on_message: OnIncoming | None = None
    on_request: OnRequest | None = None
    house: House | None = None

    def housed(self, house: House | None) -> Client:
        """The same client at a server that ``house`` makes completions for; itself, where it can make them."""
        return self if house is None or "sampling" in self.capabilities else replace(self, house=house)

    @property
    def asks(self) -> bool:
        """Whether servers may ask the client itself for anything."""
        return bool(self.capabilities) and any(name in self.capabilities for name in ASKS.values())

    @property
    def profile(self) -> str:
        """Equal for clients that a server would list the same things to; "" for those that offer nothing."""
        return self._profile if self.capabilities else ""

    @cached_property
    def _profile(self) -> str:
        if not self.asks:
            return ""
        # Of a client's own object only what the protocol gives a meaning: what else it says must not make it another.
        words = [name for name in _PROFILED if name in self.capabilities]
        for name, members in _PROFILED.items():
            declared = self.capabilities.get(name)
            if isinstance(declared, Mapping):
                words += [f"{name}.{member}" for member in members if member in declared]
        return f"{self.era} {' '.join(words)}"

    @property
    def needs_own_link(self) -> bool:
        """Whether a legacy upstream must not take it for somebody else: it can be asked, or has set a log level."""
        return self.key is not None and (self.log_level is not None or self.asks)

    @property
    def declared(self) -> Mapping[str, Any]:
        """What servers are told that can be asked: of the client, or in its place."""
        return self.capabilities if self.house is None else {**self.capabilities, **_HOUSE_OFFERS}

    def handshake_capabilities(self) -> dict[str, Any]:
        """What a legacy upstream is told on a link that is opened for this client."""
        return {name: value for name, value in self.declared.items() if name not in _NOT_FORWARDED}


PROXY = Client()
