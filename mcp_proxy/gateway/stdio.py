"""The stdio door: newline-delimited JSON-RPC with the one client that started the program.

What is in flight, its cancellation, and one order of all that goes out are here; both eras may be spoken on one stream.
Descriptors are `descriptors`, what requests mean is `door`.
Source: basic/transports/stdio (2025-11-25, 2026-07-28).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import BAD_REQUEST, CANCELLED, INTERNAL_ERROR, ProxyError
from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.protocol import INVALID_REQUEST
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.auth.principal import LOCAL
from mcp_proxy.core.upstream.framing import LineFramer, Overlong
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.gateway.asked import Answer, Asked, Door
from mcp_proxy.gateway.clients import STATELESS
from mcp_proxy.gateway.envelope import (
    Headers,
    Notification,
    Refusal,
    Request,
    RequestId,
    Response,
    is_modern,
    read_envelope,
    read_message,
)
from mcp_proxy.gateway.outlet import Outlet
from mcp_proxy.gateway.session import Session
from mcp_proxy.telemetry.logs import Logger
from mcp_proxy.telemetry.record import RequestRecord, write_request

CHUNK = 64 * 1024
OWED_LIMIT = 8 * 1024 * 1024
"""Bytes of answers that the client has not taken, from which on nothing more is read from it."""
FLUSH_TIME = 3.0
"""Seconds that the last messages get to leave."""
_TASK_COST = 4096
_METHOD_LIMIT = 256
_LASTING = frozenset({"subscriptions/listen"})
"""Requests that last until the client leaves or the service stops."""


class ByteReader(Protocol):
    """What the client writes; `asyncio.StreamReader` is one."""

    async def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; b"" at the end."""
        ...


class ByteWriter(Protocol):
    """What the client reads."""

    async def write(self, data: bytes, /) -> None:
        """Write all of it, and wait until the other side has room for it. Raises `OSError` when the client has left."""
        ...


class StdioDoor:
    """One client on one pair of streams: `run`, then `finish`, then `close`."""

    def __init__(
        self,
        door: Door,
        *,
        read: ByteReader,
        write: ByteWriter,
        log: Logger,
        clock: Clock,
        ids: IdSource,
        tasks: TaskSet,
        max_message: int,
        log_bodies: bool = False,
    ) -> None:
        """``max_message`` is in bytes. ``ids`` names requests in the log."""
        self._door = door
        self._read = read
        self._write = write
        self._log = log
        self._clock = clock
        self._ids = ids
        self._tasks = tasks
        self._max_message = max_message
        self._bodies = log_bodies
        self._stream = _Stream()
        self._session: Session | None = None
        self._running: dict[asyncio.Task[None], _Served] = {}
        self._writer: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._owed = 0
        self._room = asyncio.Event()

    def __repr__(self) -> str:
        return f"<StdioDoor {len(self._running)} in flight, {self._stream!r}>"

    async def run(self) -> None:
        """Read and serve until the client ends its side or reads no more. May be cancelled; what is in flight goes on."""
        self._writer = self._tasks.spawn(self._write_out(), "stdio writer")
        reader = self._tasks.spawn(self._read_in(), "stdio reader")
        try:
            await asyncio.wait([reader, self._writer], return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()

    async def finish(self, seconds: float, *, lasting: bool = False) -> bool:
        """Wait until what is in flight is answered; False when it is not within ``seconds``.

        Requests that last as long as the service does are waited for only when ``lasting``. Nobody is left to be
        answered when the client reads no more.
        """
        waited = [task for task, served in self._running.items() if lasting or served.method not in _LASTING]
        if self._stream.closed:
            for task in waited:
                task.cancel()
        return not waited or not (await asyncio.wait(waited, timeout=seconds))[1]

    async def close(self) -> None:
        """End what is left without an answer, and see the last messages out."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running), timeout=FLUSH_TIME)
        if self._session is not None:
            self._door.sessions.end(self._session)
            self._session = None
        self._stream.close()
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=FLUSH_TIME)
            self._writer.cancel()

    # In

    async def _read_in(self) -> None:
        framer = LineFramer(self._max_message)
        while chunk := await self._read.read(CHUNK):
            self._take_all(framer.feed(chunk))
            await asyncio.sleep(0)  # what was read begins before more is read
            while self._owed > OWED_LIMIT:
                self._room.clear()
                await self._room.wait()
        self._take_all(framer.feed(b"\n"))  # a last line that was not ended

    def _take_all(self, lines: Iterable[bytes | Overlong]) -> None:
        for line in lines:
            try:
                self._take(line)
            except Exception as error:  # noqa: BLE001 - boundary: one message must not end the stream for all others
                self._log.exception("unhandled_exception", path="stdio", exc_info=error)

    def _take(self, line: bytes | Overlong) -> None:
        if isinstance(line, Overlong):
            return self._refuse(Refusal(INVALID_REQUEST, f"the message is larger than {self._max_message} bytes"))
        if not line.strip():
            return None
        try:
            message = read_message(line)
        except Refusal as refusal:
            return self._refuse(refusal)
        match message:
            case Request():
                return self._begin(message.id, message.method, message)
            case Response():
                if self._session is not None:
                    self._session.resolve(message)
                return None
            case Notification():
                return self._notified(message)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer something that is no message."""
        self._begin(None, "", refusal)

    def _notified(self, message: Notification) -> None:
        if message.method == "notifications/cancelled":
            self._cancel(message.params.get("requestId"))
        self._door.notified(self._session, message)

    def _cancel(self, request_id: object) -> None:
        """The client no longer wants this answer. What belongs to the session is cancelled there."""
        if type(request_id) not in (int, str):
            return
        for task, served in self._running.items():
            if served.id == request_id and not served.in_session:
                task.cancel()

    # Serving

    def _begin(self, request_id: RequestId | None, method: str, what: Request | Refusal) -> None:
        served = _Served(request_id, method)
        task = self._tasks.spawn(self._serve(what, served), f"stdio {method[:_METHOD_LIMIT]}")
        self._running[task] = served
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]

    async def _serve(self, what: Request | Refusal, served: _Served) -> None:
        """One request from its arrival to its line in the log."""
        record = self._record(served.method)
        status = CANCELLED.status
        try:
            answer = await self._answer(what, served, record)
            await self._deliver(answer.body)
            status = answer.status
            if served.introduced is not None:  # what concerns no request follows the answer to the first one
                served.introduced.attach(_SessionStream(self._stream))
        except asyncio.CancelledError:
            record.error = CANCELLED.type
            raise
        except ProxyError as error:
            # Nothing but this leaves the door: a cancelled request gets no answer.
            record.error, status = error.kind.type, error.status
        except Exception as error:  # noqa: BLE001 - boundary: a request that fails unforeseen is answered like any other
            self._log.exception("unhandled_exception", request_id=record.request_id, path="stdio", exc_info=error)
            record.error, status = INTERNAL_ERROR.type, INTERNAL_ERROR.status
            await self._deliver(self._door.refuse(_internal_error(served.id)).body)
        finally:
            write_request(self._log, record, status, now=self._clock.monotonic(), bodies=self._bodies)

    async def _answer(self, what: Request | Refusal, served: _Served, record: RequestRecord) -> Answer:
        try:
            if isinstance(what, Refusal):
                raise what
            asked = self._asked(what, record)
        except Refusal as refusal:
            record.error = BAD_REQUEST.type
            return self._door.refuse(refusal)
        if asked.client.era is Era.LEGACY and what.method == "initialize":
            return self._introduce(asked, served)
        if asked.session is None:
            return await self._door.answer(asked)
        served.in_session = True
        return await asked.session.serve(what.id, self._door.answer(asked))

    def _asked(self, request: Request, record: RequestRecord) -> Asked:
        """The request with what is known of its client. Raises `Refusal` for an envelope that is not right."""
        if is_modern(Headers(), request):
            return Asked(request, read_envelope(request, None), LOCAL, self._stream, record)
        client = STATELESS if self._session is None else self._session.client
        return Asked(request, client, LOCAL, self._stream, record, self._session)

    def _introduce(self, asked: Asked, served: _Served) -> Answer:
        """A client that introduces itself again starts anew."""
        session, answer = self._door.introduce(asked)
        if session is not None:
            if self._session is not None:
                self._door.sessions.end(self._session)
            self._session = served.introduced = session
        return answer

    def _record(self, method: str) -> RequestRecord:
        return RequestRecord(
            request_id=self._ids(),
            method=method[:_METHOD_LIMIT],
            path="stdio",
            remote_addr="",
            user_agent="",
            started=self._clock.monotonic(),
            door="stdio",
            principal=LOCAL.subject,
        )

    # Out

    async def _deliver(self, body: bytes) -> None:
        """Send an answer, after all that was sent before it has been taken: answers wait here, where none is lost."""
        cost = len(body) + _TASK_COST
        self._owed += cost
        try:
            async with self._turn:
                await self._stream.flushed()
                self._stream.send(body)
        finally:
            self._owed -= cost
            self._room.set()

    async def _write_out(self) -> None:
        try:
            while (message := await self._stream.next()) is not None:
                await self._write.write(one_line(message))
                self._stream.written()
            if self._stream.overrun:
                self._log.warning("client_too_slow", door="stdio", reason="the client does not read what it is sent")
        except OSError as error:
            self._log.info("client_gone", door="stdio", reason=error.strerror or type(error).__name__)
        finally:
            self._stream.abandon()


def one_line(message: bytes) -> bytes:
    """A JSON text as one line. Line breaks between its tokens come from upstreams, whose values are passed on unread."""
    if b"\n" in message or b"\r" in message:
        message = message.replace(b"\r", b" ").replace(b"\n", b" ")
    return message + b"\n"


@dataclass(slots=True)
class _Served:
    """A request in flight. ``id`` is None where it could not be read."""

    id: RequestId | None
    method: str
    in_session: bool = False
    introduced: Session | None = None


class _Stream(Outlet):
    """Towards stdout: knows when all that was sent has been taken."""

    def __init__(self) -> None:
        super().__init__()
        self._unwritten = 0
        self._flushed = asyncio.Event()
        self._flushed.set()

    def send(self, message: bytes) -> bool:
        """See `Outlet.send`."""
        sent = super().send(message)
        if sent:
            self._unwritten += 1
            self._flushed.clear()
        return sent

    def written(self) -> None:
        """The message last given out has been written."""
        self._unwritten -= 1
        if not self._unwritten:
            self._flushed.set()

    def abandon(self) -> None:
        """Nobody writes any more."""
        self.close()
        self._flushed.set()

    async def flushed(self) -> None:
        """Wait until everything has been written, or never will be."""
        await self._flushed.wait()


class _SessionStream(Outlet):
    """The same stream for the session, which closes its own when it ends; the answers of others still have to leave."""

    def __init__(self, stream: Outlet) -> None:
        super().__init__()
        self._stream = stream

    def send(self, message: bytes) -> bool:
        """See `Outlet.send`."""
        return not self.closed and self._stream.send(message)

    async def room_for(self, message: bytes) -> None:
        """See `Outlet.room_for`."""
        await self._stream.room_for(message)


def _internal_error(request_id: RequestId | None) -> Refusal:
    return Refusal(INTERNAL_ERROR.rpc_code, "the service failed to answer; its log says why", status=500, id=request_id)
