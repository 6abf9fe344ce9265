from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.admission.guard import AddressGuard
from mcp_proxy.core.upstream import child as child_module
from mcp_proxy.core.upstream import dial
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.core.upstream.dial import Dialer
from mcp_proxy.core.upstream.failures import Failure, Phase, WireError
from mcp_proxy.core.upstream.guardian import Guardian
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.terms import Era
from tests.unit.core.upstream.processes import gone
from tests.unit.core.upstream.scripted import Answer, Request, ScriptedExchange, as_events, as_json, result

pytestmark = pytest.mark.anyio

LEGACY_SERVER = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "initialize":
        answer = {"result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {}}}
    elif "id" in message:
        answer = {"error": {"code": -32601, "message": "no"}}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
"""
SILENT = "import os, sys\nsys.stderr.write(f'{os.getpid()}\\n'); sys.stderr.flush()\nsys.stdin.read()"


class Bench:
    """A dialer whose HTTP wires get a scripted exchange."""

    def __init__(self) -> None:
        self.tasks = TaskSet(lambda *_: None)
        self.guardian = Guardian()
        self.dialer = Dialer(1.0, 10_000, self.guardian, self.tasks)
        self.exchanges: list[ScriptedExchange] = []
        self.guards: list[AddressGuard | None] = []
        self.script: Callable[[Request], Answer] = lambda _: Answer(404)
        self.stderr: list[str] = []
        self.links: list[Link] = []

    def exchange(self, _: float, guard: AddressGuard | None) -> ScriptedExchange:
        self.guards.append(guard)
        self.exchanges.append(ScriptedExchange(lambda request: self.script(request)))
        return self.exchanges[-1]

    async def dial(self, spec: ServerSpec) -> tuple[Link, Transport]:
        async with asyncio.timeout(20):
            link, transport = await self.dialer.dial(spec, lambda _: None, self.stderr.append)
        self.links.append(link)
        return link, transport


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(child_module, "_GRACE", 0.5)
    bench = Bench()
    monkeypatch.setattr(dial, "new_exchange", bench.exchange)
    yield bench
    for link in bench.links:
        await link.wire.close()
    await bench.tasks.close()
    await bench.guardian.close()


def url(transport: Transport) -> ServerSpec:
    return ServerSpec("up", transport, "test", url="http://up.test/mcp", headers={"X-Key": "k"})


def command(code: str, **more: float) -> ServerSpec:
    return ServerSpec("cmd", Transport.STDIO, "test", command=sys.executable, args=("-c", code), **more)  # type: ignore[arg-type]


def legacy(request: Request) -> Answer:
    if request.method != "POST":
        return Answer(405)
    message = request.message
    if "id" not in message:
        return Answer(202)
    if message["method"] == "initialize":
        return as_json(result(message["id"], {"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": {}}))
    return Answer(400)


async def test_a_command_is_started_and_spoken_to_in_its_era(bench: Bench) -> None:
    link, transport = await bench.dial(command(LEGACY_SERVER))
    assert transport is Transport.STDIO
    assert (link.terms.era, link.terms.version) == (Era.LEGACY, "2025-06-18")


async def test_a_command_that_does_not_answer_in_time_is_stopped(bench: Bench) -> None:
    with pytest.raises(WireError) as raised:
        await bench.dial(command(SILENT, connect_timeout=1.0))
    assert (raised.value.failure, raised.value.phase) == (Failure.TIMEOUT, Phase.NOT_SENT)
    assert raised.value.message == "it did not answer within 1 s"
    await gone(int(bench.stderr[0]))


async def test_a_command_that_ends_at_once_is_lost_without_waiting(bench: Bench) -> None:
    with pytest.raises(WireError) as raised:
        await bench.dial(command("raise SystemExit(3)"))
    assert raised.value.failure is Failure.LOST


async def test_a_dial_that_is_cancelled_leaves_no_process(bench: Bench) -> None:
    task = bench.tasks.spawn(bench.dialer.dial(command(SILENT), lambda _: None, bench.stderr.append), "dial")
    async with asyncio.timeout(10):
        while not bench.stderr:  # noqa: ASYNC110 - the child is another process
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task], timeout=10)
    await gone(int(bench.stderr[0]))


async def test_a_url_is_dialled_with_its_headers(bench: Bench) -> None:
    bench.script = legacy
    link, transport = await bench.dial(url(Transport.STREAMABLE_HTTP))
    assert transport is Transport.STREAMABLE_HTTP
    assert link.terms.version == "2025-03-26"
    assert all(request.headers["X-Key"] == "k" for request in bench.exchanges[0].requests)


async def test_a_url_without_a_word_is_streamable_http_when_it_can_be(bench: Bench) -> None:
    bench.script = legacy
    assert (await bench.dial(url(Transport.AUTO)))[1] is Transport.STREAMABLE_HTTP
    assert len(bench.exchanges) == 1


@pytest.mark.parametrize("status", [400, 404, 405, 406, 415])
async def test_a_url_without_a_word_is_tried_as_sse_when_it_cannot(bench: Bench, status: int) -> None:
    def script(request: Request) -> Answer:
        return as_events(b"data: x\n\n") if request.method == "GET" else Answer(status)

    bench.script = script
    with pytest.raises(WireError) as raised:
        await bench.dial(url(Transport.AUTO))
    assert [request.method for request in bench.exchanges[1].requests] == ["GET"]
    assert raised.value.status == status  # the first word of the server is the one that is reported
    assert all(exchange.closed for exchange in bench.exchanges)


@pytest.mark.parametrize(
    "answer",
    [Answer(401), Answer(403), Answer(500), Answer(error=WireError(Failure.UNREACHABLE, Phase.NOT_SENT, "refused"))],
)
async def test_other_trouble_is_no_reason_to_try_another_transport(bench: Bench, answer: Answer) -> None:
    bench.script = lambda _: answer
    with pytest.raises(WireError):
        await bench.dial(url(Transport.AUTO))
    assert len(bench.exchanges) == 1
    assert bench.exchanges[0].closed


async def test_a_transport_that_was_named_is_the_only_one_tried(bench: Bench) -> None:
    with pytest.raises(WireError):
        await bench.dial(url(Transport.STREAMABLE_HTTP))
    assert len(bench.exchanges) == 1


# For one client


CLIENT = Client(Era.LEGACY, {"name": "editor"}, {"roots": {}, "tasks": {}}, key="k")


async def dial_for(bench: Bench, transport: Transport) -> Link:
    async with asyncio.timeout(20):
        return await bench.dialer.dial_for(CLIENT, url(Transport.AUTO), transport, lambda _: None, bench.stderr.append)


async def test_a_link_for_one_client_is_legacy_and_in_its_name(bench: Bench) -> None:
    bench.script = legacy
    link = await dial_for(bench, Transport.STREAMABLE_HTTP)
    bench.links.append(link)
    assert link.terms.era is Era.LEGACY
    first, second = (request.message for request in bench.exchanges[0].requests)
    assert (first["method"], second["method"]) == ("initialize", "notifications/initialized")
    assert first["params"]["clientInfo"] == {"name": "editor"}
    assert first["params"]["capabilities"] == {"roots": {}}


async def test_a_link_for_one_client_that_cannot_be_had_leaves_nothing_open(bench: Bench) -> None:
    bench.script = lambda _: Answer(400)
    with pytest.raises(WireError, match="HTTP 400"):
        await dial_for(bench, Transport.STREAMABLE_HTTP)
    assert len(bench.exchanges) == 1  # the transport is known by now: no other is tried
    assert bench.exchanges[0].closed


async def test_connections_are_guarded_for_the_servers_that_are_said_to_be(bench: Bench) -> None:
    bench.script = legacy
    guard = AddressGuard()
    await bench.dial(url(Transport.STREAMABLE_HTTP))
    bench.dialer = replace(bench.dialer, guarded=lambda spec: guard if spec.name == "up" else None)
    await bench.dial(url(Transport.STREAMABLE_HTTP))
    await bench.dial(replace(url(Transport.STREAMABLE_HTTP), name="other"))
    assert bench.guards == [None, guard, None]
