from __future__ import annotations

import asyncio

import pytest

from mcp_proxy.base.errors import PAYLOAD_TOO_LARGE, REQUEST_TIMEOUT, ProxyError
from mcp_proxy.edge.body import ClientGone, read_body_in_time
from mcp_proxy.edge.types import Message
from tests.unit.edge.conftest import messages

pytestmark = pytest.mark.anyio


async def test_a_body_is_read_to_its_end() -> None:
    parts = messages({"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"})
    assert await read_body_in_time(parts, 2) == b"ab"


async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("woken by nobody")

    with pytest.raises(ProxyError) as caught:
        await read_body_in_time(never, 10, 0.001)
    assert caught.value.kind is REQUEST_TIMEOUT


async def test_other_failures_stay_what_they_are() -> None:
    with pytest.raises(ProxyError) as caught:
        await read_body_in_time(messages({"type": "http.request", "body": b"abc"}), 2)
    assert caught.value.kind is PAYLOAD_TOO_LARGE
    with pytest.raises(ClientGone):
        await read_body_in_time(messages(), 2)
