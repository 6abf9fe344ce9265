"""Clients that leave while their answer is being sent, and those of whom a server says so once they have it."""

from __future__ import annotations

import asyncio

import pytest

from mcp_proxy.edge import presence
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.event_stream import EventWriter
from mcp_proxy.edge.presence import Sending, while_connected
from mcp_proxy.edge.types import Message

pytestmark = pytest.mark.anyio


class _Server:
    """A server that says that the client has left before it has returned from sending this part of the answer."""

    def __init__(self, leaves_at: bytes) -> None:
        self._leaves_at = leaves_at
        self._left, self._told = asyncio.Event(), asyncio.Event()

    async def receive(self) -> Message:
        await self._left.wait()
        self._told.set()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message.get("body") == self._leaves_at:
            self._left.set()
            await self._told.wait()


async def _answered(server: _Server) -> str:
    sending = Sending(server.send)

    async def work() -> str:
        writer = EventWriter(sending)
        await writer.begin()
        await writer.write(b"first")
        await writer.end(b"last")
        return "noted"

    async with asyncio.timeout(10):
        return await while_connected(server.receive, work(), sending)


@pytest.fixture(autouse=True)
def _watched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_AFTER", 0)


async def test_a_client_that_has_all_of_its_answer_has_not_left() -> None:
    assert await _answered(_Server(leaves_at=b"last")) == "noted"


async def test_a_client_that_leaves_midway_has_left() -> None:
    with pytest.raises(ClientGone):
        await _answered(_Server(leaves_at=b"first"))
