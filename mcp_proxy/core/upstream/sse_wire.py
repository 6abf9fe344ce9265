"""The HTTP+SSE wire of revision 2024-11-05: one event stream brings all answers, requests are posted beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from mcp_proxy.base.json import Fields, JsonError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream import messages
from mcp_proxy.core.upstream.answering import Posting
from mcp_proxy.core.upstream.client import OnIncoming, OnRequest
from mcp_proxy.core.upstream.exchange import Exchange, Response
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.framing import broken_reply_id
from mcp_proxy.core.upstream.sse import Event, SseParser
from mcp_proxy.core.upstream.terms import Terms
from mcp_proxy.core.upstream.wire import Correlator, Outgoing, cancel_notice, tracked


class SseWire:
    """A `Wire` over one GET stream and POSTs to the endpoint that the stream names."""

    def __init__(
        self,
        exchange: Exchange,
        url: str,
        headers: Mapping[str, str],
        *,
        max_result: int,
        tasks: TaskSet,
        on_incoming: OnIncoming,
    ) -> None:
        self._exchange = exchange
        self._url = url
        self._headers = dict(headers)
        self._max = max_result
        self._tasks = tasks
        self._send_back = Posting(tasks, self._answer)
        self._calls = Correlator(on_incoming, self._send_back, tasks)
        self._response: Response | None = None
        self._endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reader: asyncio.Task[None] | None = None
        self.terms: Terms | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    last_words = ""

    def __repr__(self) -> str:
        return f"<SseWire {len(self._calls)} in flight>"

    @property
    def on_request(self) -> OnRequest | None:
        """See `Wire.on_request`."""
        return self._calls.on_request

    @on_request.setter
    def on_request(self, handler: OnRequest | None) -> None:
        self._calls.on_request = handler

    async def open(self) -> None:
        """Open the stream and wait for the endpoint it names. Raises `WireError`."""
        headers = {**self._headers, "Accept": "text/event-stream"}
        self._response = await self._exchange.open("GET", self._url, headers, None, Attempt())
        kind = self._response.header("Content-Type").partition(";")[0].strip().lower()
        if self._response.status != 200 or kind != "text/event-stream":
            status = self._response.status
            raise WireError(Failure.HTTP, Phase.NOT_SENT, f"no event stream (HTTP {status})", status=status)
        self._reader = self._tasks.spawn(self._read(self._response), "sse reader")
        await asyncio.wait([self._endpoint, self.ended], return_when=asyncio.FIRST_COMPLETED)
        if not self._endpoint.done():
            raise WireError(Failure.LOST, Phase.NOT_SENT, self.ended.result())
        self._check_endpoint()

    def _check_endpoint(self) -> None:
        """The stream may not send our requests, and the headers with them, to another origin."""
        here, there = urlsplit(self._url), urlsplit(self._endpoint.result())
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise WireError(Failure.BAD_REPLY, Phase.NOT_SENT, "the endpoint it names is on another origin")

    async def _read(self, response: Response) -> None:
        parser = SseParser(self._max, skip_overlong=True)
        reason = "the event stream ended"
        try:
            async for chunk in response.chunks():
                for event in parser.feed(chunk):
                    self._event(event)
        except WireError as error:
            reason = error.message
        finally:
            self._calls.fail_all(reason)
            if not self.ended.done():
                self.ended.set_result(reason)

    def _event(self, event: Event) -> None:
        if event.event == "endpoint":
            if not self._endpoint.done():
                self._endpoint.set_result(urljoin(self._url, event.data.decode(errors="replace").strip()))
        elif event.overlong is not None:
            self._fail(event.overlong.reply_id(), Failure.TOO_LARGE, f"the answer is larger than {self._max} bytes")
        elif event.data:
            try:
                self._calls.deliver(event.data)
            except JsonError as error:
                self._fail(broken_reply_id(event.data), Failure.BAD_REPLY, f"the answer is {error}")

    def _fail(self, request_id: int | None, failure: Failure, reason: str) -> None:
        """An answer that cannot be used fails its own request and no other, where it shows whose it was."""
        if request_id is None:
            self._calls.dropped += 1
        else:
            self._calls.fail(request_id, failure, reason)

    async def request(self, out: Outgoing, attempt: Attempt) -> Fields:
        """See `Wire.request`."""
        request_id, answer = self._calls.open(out, attempt)
        try:
            try:
                await self._post(messages.request(request_id, out.method, tracked(out, request_id)), attempt)
            except WireError:
                if not answer.done():  # the stream may have brought the answer before the POST was lost
                    raise
            return await answer
        except asyncio.CancelledError:
            if out.cancellable and attempt.phase is not Phase.NOT_SENT and not self.ended.done():
                self._send_back(cancel_notice(request_id))
            raise
        finally:
            self._calls.forget(request_id)

    async def _post(self, body: bytes, attempt: Attempt) -> None:
        if self.ended.done():
            raise WireError(Failure.LOST, Phase.NOT_SENT, self.ended.result())
        headers = {**self._headers, "Content-Type": "application/json"}
        response = await self._exchange.open("POST", self._endpoint.result(), headers, body, attempt)
        await response.close()
        if response.status >= 300:
            # 404: the session is not known (any more); nothing was executed.
            lost = response.status == 404
            phase = Phase.NOT_SENT if lost else Phase.SENT
            attempt.phase = phase
            if lost and not self.ended.done():
                self.ended.set_result("the upstream does not know the session")
            failure = Failure.SESSION_LOST if lost else Failure.HTTP
            raise WireError(failure, phase, f"HTTP {response.status}", status=response.status)

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """See `Wire.notify`."""
        await self._post(messages.notification(method, params), Attempt())

    async def _answer(self, body: bytes) -> None:
        await self._post(body, Attempt())

    async def close(self) -> None:
        """End the stream and all connections."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        if self._response is not None:
            await self._response.close()
        await self._exchange.close()
        if not self.ended.done():
            self.ended.set_result("closed")

    async def retire(self) -> None:
        """See `Wire.retire`: on a shared transport that is lost, nothing can be answered any more."""
        await self.close()
