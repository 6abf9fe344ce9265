"""Descriptors of every kind as streams, and what is left of stdin and stdout once they are claimed."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_proxy.gateway.descriptors import DescriptorReader, DescriptorWriter

pytestmark = pytest.mark.anyio


class Pipe:
    """Both ends of a pipe, as descriptors."""

    def __init__(self) -> None:
        self.source, self.target = os.pipe()
        self._open = {self.source, self.target}

    def close(self, *ends: int) -> None:
        for end in ends or tuple(self._open):
            self._open.discard(end)
            os.close(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    one = Pipe()
    yield one
    one.close()


async def test_a_pipe_gives_what_is_there_and_then_its_end(pipe: Pipe) -> None:
    reader = DescriptorReader(pipe.source)
    os.write(pipe.target, b"abc")

    assert await reader.read(100) == b"abc"
    pipe.close(pipe.target)
    assert await reader.read(100) == b""


async def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"line\n")
    with (tmp_path / "input").open("rb") as file:
        reader = DescriptorReader(file.fileno())
        assert [await reader.read(3), await reader.read(3), await reader.read(3)] == [b"lin", b"e\n", b""]


async def test_a_connection_that_breaks_is_an_end() -> None:
    ours, theirs = socket.socketpair()
    theirs.send(b"x")
    theirs.recv(0)
    with ours:
        reader = DescriptorReader(ours.fileno())
        assert await reader.read(1) == b"x"
        ours.send(b"unread")
        theirs.close()  # with something unread: a reset
        assert await reader.read(1) == b""


async def test_more_than_a_pipe_holds_is_written_while_it_is_read(pipe: Pipe) -> None:
    reader, writer = DescriptorReader(pipe.source), DescriptorWriter(pipe.target)
    text = b"0123456789" * 100_000

    async def read_all() -> bytes:
        found = b""
        while len(found) < len(text):
            found += await reader.read(65536)
        return found

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(writer.write(text))
        reading = group.create_task(read_all())
    assert reading.result() == text


async def test_descriptors_that_somebody_made_non_blocking_work_as_others_do(pipe: Pipe) -> None:
    for end in (pipe.source, pipe.target):
        os.set_blocking(end, False)
    reader, writer = DescriptorReader(pipe.source), DescriptorWriter(pipe.target)
    text = b"x" * 300_000

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        reading = group.create_task(reader.read(10))
        group.create_task(writer.write(text))
        assert await reading == b"x" * 10
        left = len(text) - 10
        while left:
            left -= len(await reader.read(65536))
    assert not os.get_blocking(pipe.source), "how others see it is not changed"


async def test_writing_to_somebody_who_has_left_is_an_error(pipe: Pipe) -> None:
    pipe.close(pipe.source)
    with pytest.raises(BrokenPipeError):
        await DescriptorWriter(pipe.target).write(b"x")


async def test_a_read_that_was_given_up_disturbs_nobody(pipe: Pipe) -> None:
    reader = DescriptorReader(pipe.source)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await reader.read(1)
    os.write(pipe.target, b"ab")

    async with asyncio.timeout(5):
        assert await reader.read(1) == b"b", "the first byte went to the read that was given up"


CLAIM = """
import os, subprocess, sys
from mcp_proxy.gateway.descriptors import claim_standard_streams
source, target = claim_standard_streams()
print("from print")
os.write(1, b"from descriptor 1\\n")
subprocess.run(["sh", "-c", "echo from a child; cat"], check=True)
assert sys.stdin.read() == ""
os.write(target, b"protocol: " + os.read(source, 100))
"""


async def test_once_claimed_nobody_else_reads_stdin_or_writes_stdout() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLAIM,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(b"input"), 20)

    assert out == b"protocol: input"
    assert sorted(err.splitlines()) == [b"from a child", b"from descriptor 1", b"from print"]


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
async def test_a_closed_standard_stream_is_one_line(closed: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f'"$0" -m mcp_proxy stdio {closed}', sys.executable, stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 2
    assert err.startswith(b"mcp-proxy-api: stdin or stdout is closed")
    assert err.count(b"\n") == 1
