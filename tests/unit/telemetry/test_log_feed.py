"""Lines of the log on their way to readers that may be slow, many, or in another thread."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import Any

import pytest

from mcp_proxy.base.clock import SystemClock
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry import log_feed
from mcp_proxy.telemetry.log_feed import Backlog, LogFeed, LogLine, Reader
from mcp_proxy.telemetry.logs import configure, follow

pytestmark = pytest.mark.anyio

SOON = 5.0


def line(event: str, **fields: Any) -> bytes:
    return json.dumps({"timestamp": "t", "level": "info", "event": event, **fields}).encode() + b"\n"


def everything(_: LogLine) -> bool:
    return True


async def drained(reader: Reader) -> list[Any]:
    """What the reader is owed until its end."""
    reader.end()
    found = []
    while (message := await reader.next(SOON)) is not None:
        found.append(json.loads(message))
    return found


async def events(reader: Reader) -> list[str]:
    return [found["event"] for found in await drained(reader)]


def test_a_backlog_keeps_no_more_messages_than_it_may_and_says_how_many_it_dropped() -> None:
    backlog = Backlog(2, 100)
    assert [backlog.add(message) for message in (b"a", b"b", b"c")] == [0, 0, 1]
    assert list(backlog) == [b"b", b"c"]


def test_a_backlog_keeps_no_more_bytes_than_it_may() -> None:
    backlog = Backlog(100, 10)
    assert [backlog.add(message) for message in (b"aaaa", b"bbbb", b"cccccccc", b"d" * 11)] == [0, 0, 2, 2]
    assert list(backlog) == []
    assert backlog.add(b"e" * 10) == 0


async def test_a_reader_gets_recent_lines_and_then_those_that_come() -> None:
    feed = LogFeed()
    for number in range(5):
        feed.put(line(f"old-{number}"))
    with feed.reading(everything, 2) as reader:
        feed.put(line("new"))
        assert await events(reader) == ["old-3", "old-4", "new"]


@pytest.mark.parametrize(("last", "found"), [(0, []), (1, ["b"]), (2, ["a", "b"]), (1000, ["a", "b"])])
async def test_as_many_recent_lines_are_given_as_are_asked_for(last: int, found: list[str]) -> None:
    feed = LogFeed()
    feed.put(line("a"))
    feed.put(line("b"))
    with feed.reading(everything, last) as reader:
        assert await events(reader) == found


async def test_only_wanted_lines_count_and_the_choice_may_change() -> None:
    feed = LogFeed()
    for event, server in [("a", "x"), ("b", "y"), ("c", None), ("d", "x"), ("e", "y")]:
        feed.put(line(event, server=server))
    with feed.reading(lambda one: one.server == "x", 2) as reader:
        feed.put(line("f", server="y"))
        reader.wanted = lambda one: one.server is None
        feed.put(line("g", server="x"))
        feed.put(line("h"))
        assert await events(reader) == ["a", "d", "h"]


async def test_fields_of_any_shape_are_read() -> None:
    feed, seen = LogFeed(), []
    with feed.reading(lambda one: not seen.append(one), 0):
        feed.put(line("a", server=["x"], tool={"y": 1}, principal=7, more=[{"deep": [1e300]}]))
    assert seen == [LogLine(level="info", event="a", server=["x"], tool={"y": 1}, principal=7)]


async def test_a_slow_reader_loses_the_oldest_lines_and_is_told_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_feed, "WAITING", 3)
    feed = LogFeed()
    with feed.reading(everything, 0) as slow, feed.reading(everything, 0) as quick:
        for number in range(5):
            feed.put(line(str(number)))
            assert json.loads(await quick.next(SOON) or b"")["event"] == str(number)
        assert json.loads(await slow.next(SOON) or b"") == {"event": "lines_dropped", "count": 2}
        assert await events(slow) == ["2", "3", "4"]


async def test_what_waits_for_a_reader_and_what_is_kept_is_bounded_in_bytes() -> None:
    feed = LogFeed()
    with feed.reading(everything, 0) as slow:
        for number in range(40):
            feed.put(line(str(number), text="x" * 100_000))
        [dropped, *left] = await drained(slow)
    assert (dropped, len(left)) == ({"event": "lines_dropped", "count": 20}, 20)
    with feed.reading(everything, 1000) as late:
        assert (await drained(late))[-1]["event"] == "39"
    assert sum(map(len, feed._recent)) <= log_feed.RECENT_BYTES


async def test_a_reader_waits_for_a_line_from_any_thread() -> None:
    feed = LogFeed()
    with feed.reading(everything, 0) as reader:
        for _ in range(3):
            thread = threading.Thread(target=feed.put, args=[line("theirs")])
            waiting = asyncio.gather(reader.next(SOON), asyncio.to_thread(thread.start))
            assert json.loads((await waiting)[0] or b"")["event"] == "theirs"
            await asyncio.to_thread(thread.join)


async def test_a_reader_without_lines_is_told_so_after_its_time() -> None:
    with LogFeed().reading(everything, 0) as reader, pytest.raises(TimeoutError):
        await reader.next(0.01)


async def test_a_reader_that_ends_at_once_is_owed_nothing_and_takes_nothing() -> None:
    feed = LogFeed()
    with feed.reading(everything, 0) as reader:
        feed.put(line("a"))
        reader.end(at_once=True)
        feed.put(line("b"))
        assert await reader.next(SOON) is None


async def test_the_end_reaches_a_reader_that_waits() -> None:
    with LogFeed().reading(everything, 0) as reader:
        asyncio.get_running_loop().call_soon(reader.end)
        assert await reader.next(SOON) is None


async def test_nobody_is_left_behind_in_the_feed() -> None:
    feed = LogFeed()
    with feed.reading(everything, 0):
        assert repr(feed) == "<LogFeed recent=0 readers=1>"
    feed.put(line("a"))
    assert repr(feed) == "<LogFeed recent=1 readers=0>"


def test_a_line_whose_reader_outlived_its_loop_harms_nobody() -> None:
    feed = LogFeed()

    async def leave() -> Any:
        reading = feed.reading(everything, 0)
        reading.__enter__()
        return reading

    reading = asyncio.run(leave())
    feed.put(line("a"))
    reading.__exit__(None, None, None)
    assert repr(feed) == "<LogFeed recent=1 readers=0>"


# Where the lines come from


@pytest.mark.parametrize("settings", [{}, {"debug": True}])
async def test_the_feed_has_the_redacted_json_line_whatever_the_console_shows(settings: dict[str, Any]) -> None:
    feed, out = LogFeed(), io.StringIO()
    log = configure(Settings(**settings), stream=out, clock=SystemClock())
    log.info("before")
    follow(log, feed)
    log.debug("below the level of the log")
    log.warning("after", password="hunter2", server="calc")
    with feed.reading(everything, 10) as reader:
        [found] = await drained(reader)
    assert (found["event"], found["server"], found["password"]) == ("after", "calc", "***")
    if not settings:
        assert json.loads(out.getvalue().splitlines()[-1]) == found


async def test_a_log_that_is_off_has_no_lines_to_follow() -> None:
    feed = LogFeed()
    log = configure(Settings(log_level="OFF"), stream=io.StringIO(), clock=SystemClock())
    follow(log, feed)
    log.error("a")
    assert repr(feed) == "<LogFeed recent=0 readers=0>"
