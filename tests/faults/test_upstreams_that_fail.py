"""Whole upstreams that fail: killed under load, slow to start, refusing, hanging; and what becomes of the others.

What was executed is counted in the upstreams' ledgers: nothing lost that was answered, nothing sent twice.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.faults.harness import faulty_http, faulty_stdio
from tests.harness import ProxyProcess, alive, eventually, make_token

pytestmark = pytest.mark.anyio


async def state_of(proxy: ProxyProcess, name: str) -> dict[str, Any]:
    rows = (await proxy.get("/servers")).json["servers"]
    return next(row for row in rows if row["name"] == name)


async def health(proxy: ProxyProcess) -> dict[str, Any]:
    found: dict[str, Any] = (await proxy.get("/health", token=None)).json
    return found


class Load:
    """Calls one after the other in several lanes until told to stop; every answer is kept."""

    def __init__(self, proxy: ProxyProcess, method: str, lanes: int = 4, **more: Any) -> None:
        self._proxy, self._method, self._more = proxy, method, more
        self._lanes = lanes
        self._stop = asyncio.Event()
        self.answers: list[tuple[str, int, str | None]] = []

    async def _lane(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            tag = f"{number}-{count}"
            answer = await self._proxy.call(self._method, {"text": tag, "tag": tag}, **self._more)
            error = answer.json.get("error", {}).get("type")
            self.answers.append((tag, answer.status, error))

    async def __aenter__(self) -> Load:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._lane(number)) for number in range(self._lanes)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def more(self, count: int, timeout: float = 20) -> None:
        """Wait for so many further answers."""
        wanted = len(self.answers) + count
        await eventually(lambda: len(self.answers) >= wanted, timeout)


async def test_one_of_three_killed_under_load_leaves_the_others_alone_and_comes_back_by_itself() -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        one, two, other = (
            await enter(faulty_http()),
            await enter(faulty_http("legacy-only")),
            await enter(faulty_stdio()),
        )
        servers = {
            "one": {"type": "http", "url": one.url, "group": "pair"},
            "two": {"type": "http", "url": two.url, "group": "pair"},
            "other": other.entry,
        }
        proxy = await enter(ProxyProcess(servers=servers, env={"MCP_PROXY_HEALTH_INTERVAL": "1"}))
        await proxy.connected(timeout=30)
        async with Load(proxy, "pair.echo") as pair, Load(proxy, "other.echo") as alone:
            await pair.more(20)
            await two.kill()
            await pair.more(40)
            await eventually(lambda: _is(proxy, "two", "down"), 10)
            assert (await health(proxy))["status"] == "degraded"
            await two.start()
            await eventually(lambda: _is(proxy, "two", "connected"), 20)
            await pair.more(40)
        assert (await health(proxy))["status"] == "ok"
        assert {status for _, status, _ in alone.answers} == {200}
        # Calls in flight on the killed server may have been executed: those say so, all others were answered.
        failed = [answer for answer in pair.answers if answer[1] != 200]
        assert {error for _, _, error in failed} <= {"outcome_unknown"}
        assert len(failed) <= 4
        executed = [call["arguments"]["tag"] for up in (one, two) for call in up.ledger.calls("echo")]
        assert len(executed) == len(set(executed)), "a call was executed twice"
        assert {tag for tag, status, _ in pair.answers if status == 200} <= set(executed)
        assert two.ledger.count("echo") > 0


async def _is(proxy: ProxyProcess, name: str, state: str) -> bool:
    return bool((await health(proxy))["servers"][name] == state)


async def test_urls_of_different_transport_and_era_are_all_listed_and_each_is_called() -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        modern = await enter(faulty_http("modern-only"))
        legacy = await enter(faulty_http("legacy-only"))
        sse = await enter(faulty_http("legacy-only"))
        urls = [modern.url, legacy.url, sse.sse_url]
        proxy = await enter(ProxyProcess(env={"MCP_URLS": ",".join(urls)}))
        await proxy.connected(timeout=30)
        rows = (await proxy.get("/servers")).json["servers"]
        assert [(row["transport"], row["era"], row["url"]) for row in rows] == [
            ("streamable-http", "modern", urls[0]),
            ("streamable-http", "legacy", urls[1]),
            ("sse", "legacy", urls[2]),
        ]
        tools = (await proxy.get("/tools/list")).json["tools"]
        assert {tool["name"]: len(tool["servers"]) for tool in tools} == {"echo": 3, "add": 3, "count": 3}
        for url, upstream in zip(urls, (modern, legacy, sse), strict=True):
            answer = await proxy.call("add", {"a": 2, "b": 3}, server=url)
            assert (answer.status, upstream.ledger.count("add")) == (200, 1)
        # They define their tools identically, so a bare name balances over all of them.
        answers = await asyncio.gather(*(proxy.call("echo", {"text": str(n)}) for n in range(60)))
        assert {answer.status for answer in answers} == {200}
        assert len({answer.json["server"] for answer in answers}) == 3


async def test_servers_that_refuse_hang_or_do_not_exist_delay_neither_the_start_nor_the_others() -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        good = await enter(faulty_stdio())
        hangs = await enter(faulty_http("hang-on-connect"))
        closes = await enter(faulty_http("close-on-accept"))
        crash = await enter(faulty_stdio("exit-at-start"))
        servers = {
            "good": good.entry,
            "hangs": {"url": hangs.url, "type": "http"},
            "closes": {"url": closes.url, "type": "http"},
            "refuses": {"url": "http://127.0.0.1:9/mcp", "type": "http"},
            "crash": crash.entry,
            "missing": {"command": "/nonexistent/command"},
            "unset": {"command": "x", "env": {"KEY": "${NOT_SET_ANYWHERE}"}},
            "off": {"command": "x", "disabled": True},
        }
        proxy = await enter(ProxyProcess(servers=servers))
        await proxy.connected("good", timeout=20)
        assert (await proxy.call("good.echo", {"text": "x"})).status == 200
        states = (await health(proxy))["servers"]
        assert states["unset"] == "failed"
        assert states["off"] == "disabled"
        await eventually(lambda: _is(proxy, "refuses", "down"), 10)
        assert "NOT_SET_ANYWHERE" in (await state_of(proxy, "unset"))["last_error"]
        assert "refused" in (await state_of(proxy, "refuses"))["last_error"]
        await eventually(lambda: _is(proxy, "missing", "down"), 5)
        assert "does not exist" in (await state_of(proxy, "missing"))["last_error"]
        for name in ("refuses", "crash", "missing", "unset", "off"):
            answer = await proxy.call("echo", {"text": "x"}, server=name)
            assert (answer.status, answer.json["error"]["type"]) == (503, "upstream_unavailable"), answer.json


PECULIAR = (
    "discover-silent",
    "slow-start",
    "legacy-only",
    "modern-only",
    "paged-tools",
    "cursor-loop",
    "bad-schema",
)


@pytest.mark.parametrize(
    ("transport", "mode"), [*((t, mode) for mode in PECULIAR for t in ("http", "stdio")), ("stdio", "noise")]
)
async def test_peculiar_upstreams_are_understood(transport: str, mode: str) -> None:
    async with AsyncExitStack() as stack:
        if transport == "http":
            upstream = await stack.enter_async_context(faulty_http(mode))
            servers: dict[str, Any] = {"odd": {"url": upstream.url, "type": "http"}}
            ledger = upstream.ledger
        else:
            command = await stack.enter_async_context(faulty_stdio(mode))
            servers, ledger = {"odd": command.entry}, command.ledger
        proxy = await stack.enter_async_context(ProxyProcess(servers=servers))
        await proxy.connected(timeout=30)
        answer = await proxy.call("add", {"a": 2, "b": 3})
        assert (answer.status, ledger.count("add")) == (200, 1), answer.json
        names = {tool["name"] for tool in (await proxy.get("/tools/list")).json["tools"]}
        assert {"echo", "add", "count"} <= names


async def test_ten_thousand_tools_are_listed_and_called() -> None:
    async with faulty_http("many-tools") as upstream, ProxyProcess(env={"MCP_URL": upstream.url}) as proxy:
        await proxy.connected(timeout=30)
        assert len((await proxy.get("/tools")).json["tools"]) > 10_000
        assert (await proxy.call("add", {"a": 2, "b": 3})).status == 200


async def test_a_lost_legacy_session_is_opened_again_and_the_call_answered() -> None:
    async with faulty_http("legacy-only") as upstream, ProxyProcess(env={"MCP_URL": upstream.url}) as proxy:
        await proxy.connected(timeout=20)
        await upstream.order("legacy-only", "lose-session", times=1)
        await upstream.order("lose-session", times=1)
        answers = [await proxy.call("count", {"tag": n}) for n in range(5)]
        assert [answer.status for answer in answers] == [200] * 5
        assert upstream.ledger.count("count") == 5


async def test_a_child_that_dies_mid_call_is_started_again_and_the_call_is_not_repeated() -> None:
    async with faulty_stdio() as command, ProxyProcess(servers={"child": command.entry}) as proxy:
        await proxy.connected(timeout=20)
        for fault in ("die", "die-before"):
            answer = await proxy.call("count", {"fault": fault})
            assert (answer.status, answer.json["error"]["type"]) == (502, "outcome_unknown"), answer.json
            await proxy.connected(timeout=20)
        assert (await proxy.call("count", {"tag": "after"})).status == 200
        assert command.ledger.count("count", fault="die") == 1
        assert command.ledger.count("count", fault="die-before") == 0
        assert len(command.pids()) == 3
        assert len(command.running()) == 1


async def test_an_idempotent_call_is_sent_again_where_that_is_allowed() -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(faulty_http())
        two = await stack.enter_async_context(faulty_http())
        rules = {"idempotent": ["add"]}
        servers = {
            "one": {"type": "http", "url": one.url, "group": "pair", "retry": rules},
            "two": {"type": "http", "url": two.url, "group": "pair", "retry": rules},
        }
        proxy = await stack.enter_async_context(ProxyProcess(servers=servers))
        await proxy.connected(timeout=20)
        await one.order("close-before", times=1)
        answer = await proxy.call("add", {"a": 2, "b": 3, "tag": "again"}, server="one")
        assert (answer.status, answer.json["server"]) == (200, "two"), answer.json
        assert one.ledger.count("add") + two.ledger.count("add") == 1


async def test_a_server_named_outside_a_group_is_never_left() -> None:
    async with faulty_http() as one, faulty_http() as two:
        urls = f"{one.url},{two.url}"
        async with ProxyProcess(env={"MCP_URLS": urls, "MCP_PROXY_HEALTH_INTERVAL": "1"}) as proxy:
            await proxy.connected(timeout=20)
            await one.kill()
            answer = await proxy.call("echo", {"text": "x"}, server=one.url)
            assert (answer.status, answer.json["error"]["type"]) == (503, "upstream_unavailable"), answer.json
            answers = [await proxy.call("echo", {"text": "x"}) for _ in range(10)]
            assert {a.json["server"] for a in answers} == {answers[0].json["server"]}
            assert {a.status for a in answers} == {200}


async def test_a_slow_upstream_takes_only_its_own_share() -> None:
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(faulty_http())
        good = await stack.enter_async_context(faulty_http())
        servers = {
            "slow": {"type": "http", "url": slow.url, "max_concurrency": 2},
            "good": {"type": "http", "url": good.url},
        }
        env = {"MCP_PROXY_MAX_INFLIGHT_PER_UPSTREAM": "8"}
        proxy = await stack.enter_async_context(ProxyProcess(servers=servers, env=env))
        await proxy.connected(timeout=20)
        many = [proxy.call("count", {"fault": "slow", "ms": 300}, server="slow") for _ in range(30)]
        answers, others = await asyncio.gather(
            asyncio.gather(*many), asyncio.gather(*(proxy.call("count", server="good") for _ in range(8)))
        )
        assert {answer.status for answer in others} == {200}
        assert sorted({answer.status for answer in answers}) == [200, 503]
        refused = [answer for answer in answers if answer.status == 503]
        assert {answer.json["error"]["type"] for answer in refused} == {"overloaded"}
        assert all(answer.headers["retry-after"] for answer in refused)
        assert slow.ledger.count("count") == len(answers) - len(refused)


async def test_an_upstream_whose_answers_fail_is_left_alone_for_a_while() -> None:
    async with faulty_http() as upstream, ProxyProcess(env={"MCP_URL": upstream.url}) as proxy:
        await proxy.connected(timeout=20)
        await upstream.order("status-500")
        answers = [await proxy.call("count") for _ in range(8)]
        assert [a.status for a in answers[:5]] == [502] * 5
        assert [a.status for a in answers[5:]] == [503] * 3
        assert upstream.ledger.count("count") == 5
        assert (await state_of(proxy, next(iter((await health(proxy))["servers"]))))["state"] == "degraded"
        await upstream.order("none")
        await eventually(lambda: _answers(proxy), 15)


async def _answers(proxy: ProxyProcess) -> bool:
    return (await proxy.call("count")).status == 200


@pytest.mark.parametrize("mode", ["ignore-sigterm", "grandchild"])
async def test_children_and_what_they_started_are_gone_after_a_stop(mode: str) -> None:
    async with faulty_stdio(mode) as command:
        async with ProxyProcess(servers={"child": command.entry}) as proxy:
            await proxy.connected(timeout=20)
            tree = proxy.tree()
        assert command.running() == []
        helpers = [line["child"] for line in command.ledger.events("grandchild")]
        assert not any(alive(pid) for pid in [*tree, *helpers])


@pytest.mark.parametrize("mode", ["none", "ignore-sigterm", "grandchild"])
async def test_children_are_gone_when_the_proxy_itself_is_killed(mode: str) -> None:
    async with faulty_stdio(mode) as command, ProxyProcess(servers={"child": command.entry}) as proxy:
        await proxy.connected(timeout=20)
        assert len(command.running()) == 1
        await proxy.kill()
        await eventually(lambda: not command.running(), 6, what="the child has ended")
        for line in command.ledger.events("grandchild"):
            await eventually(lambda pid=line["child"]: not alive(pid), 6)


async def test_a_new_tool_is_found_when_the_upstream_announces_it() -> None:
    async with faulty_stdio() as command, ProxyProcess(servers={"child": command.entry}) as proxy:
        await proxy.connected(timeout=20)
        before = (await proxy.get("/tools/list")).json
        command.order("extra-tool")
        answer = await proxy.call("count", token=make_token())
        assert answer.status == 200
        await proxy.call("count", {"fault": "die"})
        await proxy.connected(timeout=20)
        after = (await proxy.get("/tools/list")).json
        assert {tool["name"] for tool in after["tools"]} - {tool["name"] for tool in before["tools"]} == {"extra"}
        assert after["revision"] > before["revision"]
