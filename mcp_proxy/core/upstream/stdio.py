"""The stdio wire: newline-delimited JSON-RPC over a child's pipes, shared by all requests.

The child may write what it likes: noise is skipped, bad UTF-8 replaced, an overlong line fails only the request it
answers. Source: basic/transports/stdio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from mcp_proxy.base.json import Fields, JsonError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream import messages
from mcp_proxy.core.upstream.child import Child, start
from mcp_proxy.core.upstream.client import OnIncoming, OnRequest
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.framing import LineFramer, Overlong, broken_reply_id
from mcp_proxy.core.upstream.guardian import Guardian
from mcp_proxy.core.upstream.terms import Terms
from mcp_proxy.core.upstream.wire import Correlator, Outgoing, cancel_notice, tracked
from mcp_proxy.telemetry.redact import redact_text

_LAST_WORDS = 300


class StdioWire:
    """A `Wire` to a child process. Made by `open_stdio`."""

    def __init__(
        self,
        *,
        max_result: int,
        guardian: Guardian,
        tasks: TaskSet,
        on_incoming: OnIncoming,
        on_stderr: Callable[[str], None],
    ) -> None:
        self._max = max_result
        self._framer = LineFramer(max_result)
        self._guardian = guardian
        self._calls = Correlator(on_incoming, self._send_back, tasks)
        self._child: Child | None = None
        self.noise = 0
        """Lines on stdout that were no messages."""
        self._on_stderr = on_stderr
        self.last_words = ""
        """The last line on stderr, redacted. For the log alone: it may hold what belongs to one caller."""
        self.terms: Terms | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<StdioWire pid={self._child.pid if self._child else None} {len(self._calls)} in flight>"

    @property
    def on_request(self) -> OnRequest | None:
        """See `Wire.on_request`."""
        return self._calls.on_request

    @on_request.setter
    def on_request(self, handler: OnRequest | None) -> None:
        self._calls.on_request = handler

    async def open(self, command: tuple[str, ...], env: Mapping[str, str], cwd: str | None) -> None:
        """Start the child. Raises `WireError`."""
        self._child = await start(
            command,
            env=env,
            cwd=cwd,
            guardian=self._guardian,
            on_stdout=self._received,
            on_stderr=self._complained,
        )
        self._child.exited.add_done_callback(self._exited)

    @property
    def pid(self) -> int:
        return self._child.pid if self._child else 0

    def _exited(self, exited: asyncio.Future[str]) -> None:
        reason = exited.result()
        self._calls.fail_all(f"the process is gone: {reason}")
        if not self.ended.done():
            self.ended.set_result(reason)

    def _complained(self, line: str) -> None:
        """A line on stderr: no sign of an error by itself (basic/transports/stdio), but the best there is after one."""
        if line.strip():
            self.last_words = redact_text(line.strip(), _LAST_WORDS)
        self._on_stderr(line)

    def _received(self, data: bytes) -> None:
        for line in self._framer.feed(data):
            if isinstance(line, Overlong):
                self._fail(line.reply_id(), Failure.TOO_LARGE, f"the answer is larger than {self._max} bytes")
            else:
                self._line(line)

    def _line(self, line: bytes) -> None:
        if not line.lstrip().startswith(b"{"):
            self.noise += 1
            return
        try:
            try:
                self._calls.deliver(line)
            except JsonError:
                # Perhaps only its UTF-8 is broken: with that replaced, the caller gets an answer.
                self._calls.deliver(line.decode(errors="replace").encode())
        except JsonError as error:
            self._fail(broken_reply_id(line), Failure.BAD_REPLY, f"the answer is {error}")

    def _fail(self, request_id: int | None, failure: Failure, reason: str) -> None:
        """An answer that cannot be used fails its own request and no other; what is nobody's answer is noise."""
        if request_id is None:
            self.noise += 1
        else:
            self._calls.fail(request_id, failure, reason)

    def _send_back(self, body: bytes) -> None:
        self._write(body)

    def _write(self, body: bytes) -> bool:
        return self._child is not None and self._child.write(body + b"\n")

    async def request(self, out: Outgoing, attempt: Attempt) -> Fields:
        """See `Wire.request`."""
        child = self._child
        assert child is not None
        if not child.writable:
            await child.drained()
        request_id, answer = self._calls.open(out, attempt)
        try:
            if not self._write(messages.request(request_id, out.method, tracked(out, request_id))):
                raise WireError(Failure.LOST, Phase.NOT_SENT, "the process is gone")
            attempt.phase = Phase.SENT
            return await answer
        except asyncio.CancelledError:
            if out.cancellable and attempt.phase is not Phase.NOT_SENT:
                self._write(cancel_notice(request_id))
            raise
        finally:
            self._calls.forget(request_id)

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """See `Wire.notify`."""
        if not self._write(messages.notification(method, params)):
            raise WireError(Failure.LOST, Phase.NOT_SENT, "the process is gone")

    async def close(self) -> None:
        """Stop the child and everything it started."""
        if self._child is not None:
            await self._child.stop()
            self._guardian.forget(self._child.pid)
        if not self.ended.done():
            self.ended.set_result("closed")

    async def retire(self) -> None:
        """See `Wire.retire`: on a shared transport that is lost, nothing can be answered any more."""
        await self.close()
