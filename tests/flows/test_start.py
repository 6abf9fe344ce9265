"""The start waits for nobody: the service answers before any upstream has, whatever those do. Order, not times."""

from __future__ import annotations

import pytest

from tests.faults.harness import faulty_http, faulty_stdio
from tests.flows.inside import serving
from tests.harness import ProxyProcess, eventually

pytestmark = pytest.mark.anyio


async def test_the_service_is_live_while_every_upstream_is_still_being_connected_to():
    async with faulty_http("hang-on-connect") as mute, faulty_http("initialize-silent", "discover-silent") as dumb:
        servers = {"mute": {"url": mute.url}, "dumb": {"url": dumb.url}, "sse": {"url": mute.sse_url, "type": "sse"}}
        async with serving(servers, settle=False) as inside:
            assert (await inside.get("/health/live", token=None)).status == 200
            assert (await inside.get("/health/ready", token=None)).status == 200
            assert set((await inside.states()).values()) == {"connecting"}
            assert {row["state"] for row in (await inside.get("/servers")).json["servers"]} == {"connecting"}


async def test_upstreams_that_refuse_or_do_not_exist_stop_nothing():
    async with faulty_stdio("exit-at-start") as short:
        servers = {
            "refusing": {"url": "http://127.0.0.1:9/mcp"},
            "nowhere": {"url": "http://no-such-host.invalid/mcp"},
            "missing": {"command": "/nonexistent/program"},
            "short": short.entry,
        }
        async with serving(servers, settle=False) as inside:
            assert (await inside.get("/health/live", token=None)).status == 200
            await inside.in_state(refusing="down", missing="down")
            assert (await inside.get("/health/live", token=None)).status == 200


async def test_a_slow_upstream_delays_no_other():
    async with (
        faulty_http("hang-on-connect") as mute,
        faulty_http() as good,
        serving({"mute": {"url": mute.url}, "good": {"url": good.url}}, settle=False) as inside,
    ):
        await inside.in_state(good="connected")
        assert (await inside.states())["mute"] == "connecting"
        assert (await inside.call("good.count")).status == 200
        assert (await inside.states())["mute"] == "connecting", "the call has not waited for it"


async def test_the_process_serves_before_its_upstreams_have_answered():
    async with faulty_http("hang-on-connect") as mute, faulty_stdio("slow-start") as slow:
        servers = {"mute": {"url": mute.url}, "slow": slow.entry}
        async with ProxyProcess(servers=servers) as proxy:
            assert (await proxy.get("/health", token=None)).json["servers"]["mute"] == "connecting"
            await eventually(lambda: proxy.log_lines(event="upstream_connected", server="slow"))
            events = [line["event"] for line in proxy.log_lines()]
            assert events.index("serving") < events.index("upstream_connected")
            assert events.index("request") < events.index("upstream_connected")
