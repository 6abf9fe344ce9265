"""Completions for MCP servers that ask for them (sampling) while the client in front cannot make any.

What they ask is `bridge.sampling_asked`, when they are heard `core.upstream`; the answers come from the sources that the
LLM door has. Which servers may ask stands in the configuration.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.protocol import INTERNAL_ERROR
from mcp_proxy.bridge import sampling_asked
from mcp_proxy.bridge.chat import ChatRequest, ChatResult
from mcp_proxy.bridge.completions import Completions
from mcp_proxy.bridge.errors import REFUSED, ChatError
from mcp_proxy.bridge.routes import Routes
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.upstream.client import SAMPLING, House
from mcp_proxy.core.upstream.failures import RpcError
from mcp_proxy.llm.answer import collected
from mcp_proxy.llm.audit import Watched, write_completion, write_received, write_sent
from mcp_proxy.llm.tenancy import TOO_MANY_PARALLEL
from mcp_proxy.telemetry.logs import Logger
from mcp_proxy.telemetry.record import RequestRecord

AT_ONCE = 8
"""Completions that one server may have made at the same time."""
API = "sampling"
"""What the log calls it."""
ANY_MODEL = "auto"
"""The model for servers that name none of ours, where the operator has one of that name."""
_REJECTED = -1
"""What a client says when its user does not want it answered (client/sampling, Error Handling)."""
_UNREAD = ChatRequest("", ())


class ForServers:
    """Makes completions for the servers that ``globs`` name, by their own names or those of their groups."""

    def __init__(
        self,
        globs: Iterable[str],
        completions: Callable[[], Completions],
        *,
        clock: Clock,
        ids: IdSource,
        log: Logger,
        log_bodies: bool,
    ) -> None:
        """``completions`` is asked when the first server asks: it may need the servers itself."""
        self._globs = tuple(globs)
        self._completions = completions
        self._clock = clock
        self._ids = ids
        self._log = log
        self._log_bodies = log_bodies
        self._under_way: Counter[str] = Counter()

    def house_of(self, server: ServerSpec) -> House | None:
        """What answers this server; None for one that is not named."""
        names = [name for name in (server.name, server.group) if name]
        if not any(fnmatchcase(name, glob) for glob in self._globs for name in names):
            return None
        return partial(self._answer, server.name)

    async def _answer(self, server: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """A `House`. Raises `RpcError`."""
        caller = Principal(f"server:{server}", frozenset())
        now = self._clock.monotonic
        watched = Watched(_UNREAD, caller, now, keeps_text=self._log_bodies)
        record = RequestRecord(
            self._ids(), SAMPLING, "", "", "", now(), door="llm", principal=caller.subject, server=server
        )
        if self._log_bodies:
            write_received(self._log, record, API, params)
        try:
            return await self._completed(server, params, watched)
        except ChatError as error:
            record.error = error.problem.code
            raise RpcError(_REJECTED if error.problem is REFUSED else INTERNAL_ERROR, error.text) from None
        except asyncio.CancelledError:
            record.error = "cancelled"
            raise
        finally:
            write_completion(self._log, watched, record, API)
            if self._log_bodies:
                write_sent(self._log, record, API, watched)

    async def _completed(self, server: str, params: Mapping[str, Any], watched: Watched) -> Mapping[str, Any]:
        """Raises `ChatError`."""
        watched.ask = ask = sampling_asked.read(params)
        if self._under_way[server] >= AT_ONCE:
            raise ChatError(TOO_MANY_PARALLEL, f"{AT_ONCE} completions are being made for this server already")
        self._under_way[server] += 1
        try:
            result = await self._result(ask, watched)
        finally:
            self._under_way[server] -= 1
            if not self._under_way[server]:
                del self._under_way[server]
        return sampling_asked.write(result, tools=bool(ask.tools))

    async def _result(self, ask: ChatRequest, watched: Watched) -> ChatResult:
        completions = self._completions()
        meant = replace(ask, model=model_of(completions.routes, ask.model))
        tenant = watched.caller.subject
        result = await collected(watched.follow(completions.stream(meant, tenant=tenant, course=watched.course)))
        assert isinstance(result, ChatResult), "nothing was said that could be passed on"
        return result


def model_of(routes: Routes, hint: str) -> str:
    """The model for a hint, which is a wish: where none of ours is meant by it, and there is an ``auto``, that is taken."""
    return ANY_MODEL if ANY_MODEL in routes.names and not routes.knows(hint) else hint
