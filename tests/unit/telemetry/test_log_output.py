"""When lines are written, in which order, and that none is missing: seen at the other end of a descriptor."""

from __future__ import annotations

import asyncio
import io
import json
import os
import select
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from mcp_proxy.base.clock import SystemClock
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.log_feed import LogFeed
from mcp_proxy.telemetry.log_stream import LogStream
from mcp_proxy.telemetry.logs import Logger, configure, follow

pytestmark = pytest.mark.anyio

SOON = 10.0


def made(stream: TextIO, **settings: Any) -> Logger:
    return configure(Settings(**settings), stream=stream, clock=SystemClock())


def events(text: bytes | str) -> list[str]:
    return [json.loads(line)["event"] for line in text.splitlines()]


class Writes:
    """A stream that keeps apart what was written at once."""

    def __init__(self) -> None:
        self._reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reading.setblocking(False)
        self.stream = os.fdopen(writing.detach(), "w")

    def taken(self) -> list[bytes]:
        """The writes since the last time."""
        found = []
        while True:
            try:
                found.append(self._reading.recv(1 << 20))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self.stream.close()
        self._reading.close()


@pytest.fixture
def writes() -> Iterator[Writes]:
    one = Writes()
    yield one
    one.close()


async def test_lines_of_one_turn_of_the_loop_are_one_write_and_an_idle_service_writes_in_the_next_turn(
    writes: Writes,
) -> None:
    log = made(writes.stream)
    for turn in ("a", "b"):
        for number in range(3):
            log.info(f"{turn}{number}")
        assert writes.taken() == []
        await asyncio.sleep(0)
        assert [events(write) for write in writes.taken()] == [[f"{turn}0", f"{turn}1", f"{turn}2"]]


def test_lines_outside_of_a_loop_are_written_at_once(writes: Writes) -> None:
    log = made(writes.stream)
    for event in ("a", "b"):
        log.info(event)
        assert [events(write) for write in writes.taken()] == [[event]]


async def test_a_line_from_a_thread_is_written_at_once_behind_those_that_wait(writes: Writes) -> None:
    log = made(writes.stream)
    log.info("waits")
    thread = threading.Thread(target=log.info, args=["theirs"])
    thread.start()
    thread.join(SOON)
    assert [events(write) for write in writes.taken()] == [["waits", "theirs"]]
    log.info("later")
    await asyncio.sleep(0)
    assert [events(write) for write in writes.taken()] == [["later"]]


async def test_lines_of_many_threads_and_the_loop_are_all_there_and_each_ones_in_order(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stream:
        log = made(stream, log_dir=tmp_path)

        def talk(who: str) -> None:
            for number in range(300):
                log.info(who, number=number)

        threads = [threading.Thread(target=talk, args=[str(who)]) for who in range(4)]
        for thread in threads:
            thread.start()
        for number in range(300):
            log.info("loop", number=number)
            if number % 3 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*(asyncio.to_thread(thread.join, SOON) for thread in threads))
        await asyncio.sleep(0)
    for name in ("stderr", "latest.jsonl"):
        found = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for who in ("0", "1", "2", "3", "loop"):
            assert [line["number"] for line in found if line["event"] == who] == list(range(300))


def test_what_a_loop_left_behind_comes_before_the_lines_of_the_next_one(writes: Writes) -> None:
    log = made(writes.stream)

    def leave() -> None:
        log.info("left")
        loop.stop()

    async def go_on() -> None:
        log.info("next")

    loop = asyncio.new_event_loop()
    loop.call_soon(leave)
    loop.run_forever()
    loop.close()
    assert writes.taken() == []
    asyncio.run(go_on())
    assert [events(write) for write in writes.taken()] == [["left", "next"]]


async def test_the_live_log_and_the_files_have_the_lines_of_a_turn_in_order(writes: Writes, tmp_path: Path) -> None:
    log, feed = made(writes.stream, log_dir=tmp_path), LogFeed()
    follow(log, feed)
    with feed.reading(lambda line: line.event != "b", 0) as reader:
        for event in ("a", "b", "c"):
            log.info(event)
        await asyncio.sleep(0)
        reader.end()
        assert [events(await reader.next(SOON) or b"") for _ in range(2)] == [["a"], ["c"]]
    assert events((tmp_path / "latest.jsonl").read_text()) == ["a", "b", "c"]


async def test_whoever_follows_a_console_in_the_middle_of_a_turn_gets_the_lines_from_then_on(writes: Writes) -> None:
    log, feed = made(writes.stream, debug=True), LogFeed()
    log.info("before")
    follow(log, feed)
    log.info("after")
    await asyncio.sleep(0)
    with feed.reading(lambda _: True, 10) as reader:
        assert events(await reader.next(SOON) or b"") == ["after"]


class Talkative(io.StringIO):
    """Something is logged while a line is written, as when a collected object complains."""

    log: Logger

    def write(self, text: str) -> int:
        if '"first"' in text:
            self.log.warning("meanwhile")
        return super().write(text)


def test_what_is_logged_while_lines_are_written_follows_them() -> None:
    stream = Talkative()
    stream.log = made(stream)
    stream.log.info("first")
    stream.log.info("second")
    assert events(stream.getvalue()) == ["first", "meanwhile", "second"]


# A pipe: whoever reads may be behind


async def test_lines_go_to_a_pipe_in_pieces_that_it_takes_whole_and_none_is_cut(writes: Writes) -> None:
    log = made(writes.stream)
    for number in range(40):
        log.info(str(number), text="x" * (37 * number))
    await asyncio.sleep(0)
    taken = writes.taken()
    assert [event for write in taken for event in events(write)] == [str(number) for number in range(40)]
    assert 1 < len(taken) < 40
    assert all(len(write) <= select.PIPE_BUF for write in taken)


async def test_a_reader_that_stalls_costs_whole_lines_of_a_turn_and_is_told_how_many() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as reader:
        log = made(stream)
        for number in range(400):
            log.info(str(number), text="x" * 1000)
        await asyncio.sleep(0)
        came = events(reader.read())
        assert came == [str(number) for number in range(len(came))]
        log.info("back")
        await asyncio.sleep(0)
        back, lost = map(json.loads, reader.read().splitlines())
    assert (back["event"], lost["event"], lost["lines"]) == ("back", "log_lines_lost", 400 - len(came))


def test_a_line_that_a_stalled_reader_has_half_of_is_lost_and_the_next_one_stands_alone() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(writing, "w") as file, os.fdopen(reading, "rb") as reader:
        stream = LogStream(file)
        assert not stream.write(b"whole\n", b"x" * 1_000_000 + b"\n", b"lost too\n")
        assert stream.lost == 2
        torn = reader.read()
        assert torn.startswith(b"whole\nxxx")
        assert stream.write(b"next\n")
        assert reader.read() == b"\nnext\n"


def test_a_reader_that_left_costs_the_lines_of_a_turn_and_no_more() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file:
        stream = LogStream(file)
        assert not stream.write(b"a\n", b"b\n")
        assert stream.lost == 2


def test_a_full_disk_costs_the_lines_that_were_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if (room := 5 - os.fstat(fd).st_size) <= 0:
            raise OSError(28, "No space left on device")
        return write(fd, data[:room])

    with (tmp_path / "stderr").open("w") as file:
        stream = LogStream(file)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            assert not stream.write(b"a\n", b"b\n", b"c\n", b"d\n")
        assert stream.lost == 2
        assert stream.write(b"e\n")
    assert (tmp_path / "stderr").read_bytes() == b"a\nb\nc\ne\n"


@pytest.mark.parametrize("name", ["file", os.devnull])
def test_where_nobody_can_be_behind_is_not_asked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    with (tmp_path / name).open("a") as file:
        assert LogStream(file).write(b"x" * 10_000 + b"\n", b"next\n")


# The end of the process

ENDS = {
    "in the loop": """
        async def main():
            await work()
            log.info("last")
        asyncio.run(main())
    """,
    "with an exception": """
        async def main():
            await work()
            log.info("last")
            raise ValueError
        asyncio.run(main())
    """,
    "with sys.exit": """
        async def main():
            await work()
            log.info("last")
            sys.exit(3)
        asyncio.run(main())
    """,
    "with sys.exit in a callback of a loop that nobody closes": """
        def end():
            log.info("last")
            sys.exit(3)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.call_soon(end)
        loop.run_until_complete(asyncio.sleep(60))
    """,
    "while a loop is stopped": """
        def end():
            log.info("last")
            loop.stop()
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work())
        loop.call_soon(end)
        loop.run_forever()
        loop.close()
    """,
    "in a loop of a thread": """
        async def end():
            log.info("last")
        asyncio.run(work())
        threading.Thread(target=lambda: asyncio.run(end())).start()
    """,
}


@pytest.mark.parametrize("end", ENDS)
def test_at_the_end_of_the_process_no_line_is_missing(end: str, tmp_path: Path) -> None:
    program = f"""
import asyncio, sys, threading, uvloop
from pathlib import Path
from mcp_proxy.base.clock import SystemClock
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import configure

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
log = configure(Settings(log_dir=Path({str(tmp_path)!r})), clock=SystemClock())
log.info("first")

async def work():
    log.info("working")
    await asyncio.sleep(0)
    log.info("worked")
{textwrap.dedent(ENDS[end])}
"""
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, timeout=60, check=False)
    found = [json.loads(line)["event"] for line in done.stderr.splitlines() if line.startswith(b"{")]
    assert (found[0], found[-1]) == ("first", "last"), done.stderr.decode()
    assert found[1:-1] in ([], ["working", "worked"])
    assert events((tmp_path / "latest.jsonl").read_text()) == found
