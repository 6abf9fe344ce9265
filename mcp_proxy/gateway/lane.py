"""A legacy client's model, as the broker of completions uses it: each completion is a sampling request to that client.

The client may be asked many things at once, each is answered or refused by itself, and what nobody waits for any more is
taken back. How completions become sampling requests is `bridge.sampling`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mcp_proxy.base.json import Raw, encode
from mcp_proxy.base.protocol import METHOD_NOT_FOUND
from mcp_proxy.bridge.broker import LaneLost, LaneRefused, NotSent
from mcp_proxy.core.upstream.failures import RpcError
from mcp_proxy.gateway.outlet import AskingChannel
from mcp_proxy.gateway.session import Left, Session, Unreached

MOST = 1000
"""Questions that one client may be asked at once, however wide its window gets."""
PING_EVERY, PING_PATIENCE = 10.0, 10.0
"""Seconds between two looks whether the client is still there, and how long it may take to say so."""
_REJECTED = -1
"""What clients answer for a person that said no (client/sampling, Error Handling)."""
_MESSAGE = 500


class LegacyLane:
    """A `bridge.broker.Lane` on a session. ``channel``: the way of the client's own call that keeps the lane open."""

    def __init__(self, key: str, session: Session, channel: AskingChannel) -> None:
        self.key = key
        self.session = session
        self._channel = channel
        self._at_work = 0
        offered = session.introduction.capabilities.get("sampling")
        self.tools = isinstance(offered, Mapping) and "tools" in offered

    def __repr__(self) -> str:
        return f"<LegacyLane {self.key} {self.session.introduction.info.get('name', '')!r}>"

    @property
    def room(self) -> int:
        """See `Lane.room`."""
        return 0 if self.session.closed else MOST

    async def sample(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Lane.sample`."""
        self._at_work += 1
        try:
            return await self.session.ask("sampling/createMessage", Raw(encode(params)), self._channel)
        except Unreached:
            raise NotSent from None
        except Left:
            raise LaneLost from None
        except RpcError as error:
            text = error.message[:_MESSAGE] or "the client gave no reason"
            raise LaneRefused(f"the client answers: {text}", rejected=error.code == _REJECTED) from None
        finally:
            self._at_work -= 1

    async def watch(self) -> None:
        """Return when the client is no longer there: a killed one closes nothing by itself."""
        while not self.session.closed:
            await asyncio.sleep(PING_EVERY)
            if not await self.answers():
                return

    async def answers(self) -> bool:
        """Whether the client is there just now. Some do one thing at a time, and answer no ping while they are at work."""
        try:
            async with asyncio.timeout(PING_PATIENCE):
                await self.session.ask("ping", None, self._channel)
        except TimeoutError:
            return self._at_work > 0
        except (Unreached, Left):
            return False
        except RpcError as error:
            return error.code == METHOD_NOT_FOUND  # it answers, which is all that is asked
        return True
