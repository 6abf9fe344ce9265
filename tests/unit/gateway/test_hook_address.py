from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mcp_proxy.base.errors import NOT_FOUND, ProxyError
from mcp_proxy.base.protocol import LEGACY_VERSIONS, META_CLIENT_CAPABILITIES, META_VERSION
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.edge import presence
from mcp_proxy.gateway.streamable import StreamableHttp
from tests.unit.gateway.http_fakes import BOTH, EVENTS, JSON, Bench, Exchange, call, note, request

pytestmark = pytest.mark.anyio

PATH = "/hook/mcp"
MODERN = (b"mcp-protocol-version", b"2026-07-28")
META = {META_VERSION: "2026-07-28", META_CLIENT_CAPABILITIES: {"sampling": {}}}


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(presence, "LOOK_AFTER", 0)
    bench = Bench()
    yield bench
    bench.door.sessions.close()
    await bench.close()


@pytest.fixture
def http(bench: Bench) -> StreamableHttp:
    return StreamableHttp(bench.door, tasks=bench.tasks, max_body=10_000, clock=bench.clock)


def at_hook(http: StreamableHttp, message: Any = None, *headers: tuple[bytes, bytes], **more: Any) -> Exchange:
    return request(http, message, *headers, **{"path": PATH, **more})


@pytest.mark.parametrize("method", ["server/discover", "tools/list", "initialize"])
@pytest.mark.parametrize("headers", [(MODERN,), ()], ids=["header", "envelope alone"])
async def test_a_modern_request_is_told_the_legacy_revisions(
    method: str, headers: tuple[Any, ...], http: StreamableHttp, bench: Bench
) -> None:
    answer = await at_hook(http, call(4, method, _meta=META), *headers, BOTH).done()
    assert (answer.status, answer.json["id"], answer.json["error"]["code"]) == (400, 4, -32022)
    assert answer.json["error"]["data"] == {"supported": list(LEGACY_VERSIONS), "requested": "2026-07-28"}
    assert (answer.record.error, bench.door.asked) == ("bad_request", [])


async def test_other_modern_messages_are_told_so_too(http: StreamableHttp) -> None:
    for message in (note("notifications/cancelled", requestId=1), {"jsonrpc": "2.0", "id": 1, "result": {}}):
        answer = await at_hook(http, message, MODERN).done()
        assert (answer.status, answer.json["id"], answer.json["error"]["code"]) == (400, None, -32022)


async def test_sessions_are_as_everywhere(http: StreamableHttp, bench: Bench) -> None:
    opened = await at_hook(http, call(0, "initialize", capabilities={"sampling": {}}), JSON, path=f"{PATH}/").done()
    key = (b"mcp-session-id", opened.header(b"mcp-session-id") or b"")
    told = await at_hook(http, note("notifications/initialized"), key).done()
    answer = await at_hook(http, call(1), key, BOTH).done()
    assert (opened.status, told.status, answer.status) == (200, 202, 200)
    asked = bench.door.asked[-1]
    assert (asked.client.era, asked.namespace, asked.client.capabilities) == (Era.LEGACY, None, {"sampling": {}})
    stream = at_hook(http, None, EVENTS, key, method="GET")
    await stream.until(lambda it: len(it.sent) > 1)
    assert asked.session is not None
    assert asked.session.notify(b'{"jsonrpc":"2.0","method":"x"}')
    await stream.until(lambda it: it.events)
    assert (await at_hook(http, None, key, method="DELETE").done()).status == 204
    assert (await stream.done()).ended
    assert bench.door.ended == [asked.session]


async def test_it_is_the_same_house(http: StreamableHttp, bench: Bench) -> None:
    opened = await at_hook(http, call(0, "initialize"), JSON).done()
    key = (b"mcp-session-id", opened.header(b"mcp-session-id") or b"")
    assert (await request(http, call(1), key, BOTH).done()).status == 200


@pytest.mark.parametrize("path", ["/hook", "/hook/", "/hook/mcp/math", "/hook//mcp", "/hook/mcp//", "/hookmcp"])
async def test_there_is_nothing_beside_it(path: str, http: StreamableHttp) -> None:
    with pytest.raises(ProxyError) as refused:
        await at_hook(http, call(), path=path).done()
    assert refused.value.kind is NOT_FOUND
