"""The stdio wire: one message a line, and what can go wrong with lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from typing import Any

from .faults import Reply
from .server import MODERN, VERSION_KEY, Server

NOISE = (b"Starting up, please wait...", b'{"half": ', b"[]", b"42", b"", b"\xff\xfe not text", b'{"jsonrpc": "2.0"}')


class Stdio:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._closed = False

    async def serve(self) -> None:
        """Until stdin ends."""
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        threading.Thread(target=_read_lines, args=(loop, lines), daemon=True).start()
        self._noise()
        async with asyncio.TaskGroup() as tasks:
            turns = set()
            while line := await lines.get():
                if line.strip():
                    self._server.read_control_file()
                    turn = tasks.create_task(self._turn(json.loads(line)))
                    turns.add(turn)
                    turn.add_done_callback(turns.discard)
            if turns:
                await asyncio.wait(turns, timeout=0.1)
            if self._server.has("ignore-sigterm"):
                await loop.create_future()
            os._exit(0)  # whatever is slow is left

    async def _turn(self, message: dict[str, Any]) -> None:
        meta = (message.get("params") or {}).get("_meta") or {}
        reply = self._server.answer(message, modern=meta.get(VERSION_KEY) == MODERN)
        if reply is not None:
            await self._send(reply)

    async def _send(self, reply: Reply) -> None:
        await asyncio.sleep(reply.delay)
        for message in reply.before:
            self._line(json.dumps(message).encode())
        if reply.end == "hang":
            return None
        if reply.end == "die":
            os._exit(3)
        if reply.end == "close":
            return self._close()
        self._noise()
        if reply.junk:
            self._line(reply.junk)
        body = reply.body()
        if reply.cut:
            self._write(body[: len(body) // 2])
            return self._close()
        for _ in range(reply.copies):
            await self._trickle(body, reply.drip)
            self._write(b"\n")
        return None

    async def _trickle(self, body: bytes, seconds: float) -> None:
        if not seconds:
            return self._write(body)
        for byte in body:
            self._write(bytes((byte,)))
            await asyncio.sleep(seconds / len(body))
        return None

    def _noise(self) -> None:
        if self._server.has("noise"):
            for line in NOISE:
                self._line(line)

    def _line(self, line: bytes) -> None:
        self._write(line + b"\n")

    def _write(self, data: bytes) -> None:
        if self._closed:
            return
        view = memoryview(data)
        with contextlib.suppress(BrokenPipeError):
            while view:
                view = view[os.write(1, view) :]

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(1)


def _read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[bytes]) -> None:
    """In a thread of its own, since not every stdin can be polled; an empty line at the end."""
    for line in sys.stdin.buffer:
        loop.call_soon_threadsafe(lines.put_nowait, line)
    loop.call_soon_threadsafe(lines.put_nowait, b"")
