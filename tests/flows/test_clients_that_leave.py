"""A client that closes its connection ends its call, at the mounted route as at the framework's."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.faults.harness import faulty_http, faulty_stdio
from tests.harness import ProxyProcess, eventually, make_token

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/tools", "/tools/up/count"])
async def test_a_client_that_leaves_ends_its_call_down_to_the_upstream(path: str) -> None:
    async with faulty_stdio() as command, ProxyProcess(servers={"up": command.entry}) as proxy:
        await proxy.connected(timeout=30)
        args = {"fault": "hang"}
        body = json.dumps({"method": "count", "args": args} if path == "/tools" else args).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {make_token()}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await eventually(lambda: command.ledger.events("received"), 10)
        writer.close()
        await eventually(lambda: command.ledger.events("cancelled"), 10, what="the upstream is told")
        gone = await eventually(lambda: proxy.log_lines(event="request", path=path), 10)
        assert (gone[0]["status_code"], gone[0]["error"]) == (499, "client_gone")
        assert (await proxy.call("count")).status == 200


async def test_a_slow_call_whose_client_stays_is_answered() -> None:
    async with faulty_http() as upstream, ProxyProcess(servers={"up": {"type": "http", "url": upstream.url}}) as proxy:
        await proxy.connected(timeout=30)
        answer = await proxy.call("count", {"fault": "slow", "ms": 600})
        assert (answer.status, upstream.ledger.count("count")) == (200, 1)
