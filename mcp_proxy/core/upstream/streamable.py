"""The streamable HTTP wire, both eras: each request is an exchange of its own, so no request can harm another.

Answers come as JSON or as an event stream; the request's id is checked in both. Legacy sessions live here; opening
them is `link`'s business. Source: basic/transports/streamable-http (2026-07-28) and basic/transports (2025-11-25).
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mcp_proxy.base.json import Fields, JsonError
from mcp_proxy.base.occupancy import Occupancy
from mcp_proxy.base.protocol import LATEST_MODERN
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream import messages
from mcp_proxy.core.upstream.answering import LARGEST, Answering, Posting
from mcp_proxy.core.upstream.client import OnIncoming, OnRequest
from mcp_proxy.core.upstream.exchange import Exchange, KeptHeaders, Response
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.messages import Incoming, Reply
from mcp_proxy.core.upstream.sse import Event, EventTooLarge, SseParser
from mcp_proxy.core.upstream.terms import Era, Terms
from mcp_proxy.core.upstream.wire import Outgoing, cancel_notice, progress_token, tracked

_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_ANNOUNCEMENTS = (
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
)
"""What concerns everybody, on whatever stream it comes."""
_ERROR_BODY = 64 * 1024
_SESSION_CODES = (-32600, -32000, -32001)
_SESSION_WORDS = re.compile(
    r"(?:bad request: |not found: )?(?:session (?:not found|terminated)|(?:no valid|invalid|missing|unknown) session(?: id)?"
    r"(?: provided)?|mcp-session-id header is required)\W*",
    re.IGNORECASE,
)
_BUSY = (429, 503)
_CLEANUP_TIMEOUT = 5.0
_MOST_KEPT = 1024
"""Headers kept of as many requests, which differ by method and name."""
_SHORTEST_POLL, _LONGEST_POLL = 50, 30_000
"""Milliseconds between looks at a stream that ended early, whatever the server wishes."""


def header_value(text: str) -> str:
    """A value as the mirrored headers carry it: plain, or base64 with a sentinel (streamable-http, Custom Headers)."""
    if _PLAIN.fullmatch(text) and not (text.startswith("=?base64?") and text.endswith("?=")):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


_name_value = lru_cache(maxsize=4096)(header_value)
"""For names, which come again with every call; values of arguments must not be kept."""


@dataclass(slots=True)
class _Place:
    """Where an event stream has got to: its last id, and the pause in milliseconds that the server asks for."""

    last_id: str | None = None
    retry: int = 1000


class StreamableHttpWire:
    """A `Wire` over HTTP. It has no connection of its own to lose; ``ended`` resolves only when it is closed."""

    def __init__(
        self,
        exchange: Exchange,
        url: str,
        headers: Mapping[str, str],
        *,
        max_result: int,
        tasks: TaskSet,
        on_incoming: OnIncoming,
        max_question: int = LARGEST,
    ) -> None:
        """``max_result`` and ``max_question`` are bytes: of what the upstream answers, and of what it asks."""
        self._exchange = exchange
        self._url = url
        self._fixed = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **headers,
        }
        self._max = max_result
        self._tasks = tasks
        self._on_incoming = on_incoming
        self._answering = Answering(tasks, Posting(tasks, self._post), largest=max_question)
        self.on_request: OnRequest | None = None
        self._ids = itertools.count(1)
        self._progress: dict[int, OnIncoming] = {}
        """Who wants to hear of progress, by request: some servers report it on the standing stream."""
        self._requests = Occupancy()
        self._kept: dict[tuple[str, str | None], KeptHeaders] = {}
        """Headers of requests that have none of their own, by method and name."""
        self.terms: Terms | None = None
        self.session_id: str | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    last_words = ""

    def __repr__(self) -> str:
        return f"<StreamableHttpWire {self.terms.era if self.terms else 'opening'}>"

    def _kept_headers(self, out: Outgoing) -> Mapping[str, str]:
        """Those of a request, which are the same each time but for arguments in them."""
        name = out.params.get(_NAMED.get(out.method, ""))
        if self.terms is None or out.headers or not (name is None or isinstance(name, str)):
            return self._headers(out)
        kept = self._kept.get((out.method, name))
        if kept is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            kept = self._kept[out.method, name] = KeptHeaders(self._headers(out))
        return kept

    def _headers(self, out: Outgoing) -> dict[str, str]:
        headers = {**self._fixed, **out.headers}
        modern = self.terms.era is Era.MODERN if self.terms else out.method == "server/discover"
        if modern:
            headers["MCP-Protocol-Version"] = self.terms.version if self.terms else LATEST_MODERN
            if out.method:
                headers["Mcp-Method"] = out.method
            if out.method in _NAMED:
                headers["Mcp-Name"] = _name_value(str(out.params.get(_NAMED[out.method], "")))
        elif self.terms is not None:
            headers["MCP-Protocol-Version"] = self.terms.version
            if self.session_id is not None:
                headers["Mcp-Session-Id"] = self.session_id
        return headers

    async def request(self, out: Outgoing, attempt: Attempt) -> Fields:
        """See `Wire.request`."""
        request_id = next(self._ids)
        body = messages.request(request_id, out.method, tracked(out, request_id))
        self._requests.inside += 1
        if out.on_message is not None and out.progress:
            self._progress[request_id] = out.on_message
        response = None
        try:
            response = await self._exchange.open("POST", self._url, self._kept_headers(out), body, attempt)
            return await self._answer(response, request_id, out, attempt)
        except asyncio.CancelledError:
            # Closing the stream cancels in the modern era; a legacy server has to be told.
            if out.cancellable and self.terms and self.terms.era is Era.LEGACY and attempt.phase is not Phase.NOT_SENT:
                self._tasks.spawn(self._post_quietly(cancel_notice(request_id)), "cancel notice")
            raise
        finally:
            if response is not None and not response.complete:
                await response.close()
            self._progress.pop(request_id, None)
            self._requests.leave()

    async def _answer(self, response: Response, request_id: int, out: Outgoing, attempt: Attempt) -> Fields:
        if response.status != 200:
            raise await self._status_error(response, request_id, attempt)
        if out.method == "initialize":
            self.session_id = _session_id(response.header("Mcp-Session-Id"))
        kind = _media_type(response.header("Content-Type"))
        if kind == "text/event-stream":
            return await self._from_stream(response, request_id, out, attempt)
        if kind != "application/json":
            raise WireError(Failure.BAD_REPLY, Phase.STREAMING, "the answer is neither JSON nor an event stream")
        return self._result(await response.read(self._max), request_id)

    def _result(self, body: bytes, request_id: int) -> Fields:
        try:
            message = messages.read(body)
        except JsonError as error:
            raise WireError(Failure.BAD_REPLY, Phase.STREAMING, f"the answer is {error}") from None
        if not isinstance(message, Reply):
            raise WireError(Failure.BAD_REPLY, Phase.STREAMING, "the answer is not a JSON-RPC response")
        return _own(message, request_id)

    async def _from_stream(self, response: Response, request_id: int, out: Outgoing, attempt: Attempt) -> Fields:
        """The answer from an event stream, polled for when a legacy server ends the stream early."""
        place = _Place()
        reply = await self._reply_in(response, place, out)
        while reply is None:
            if place.last_id is None or self.terms is None or self.terms.era is Era.MODERN:
                raise WireError(Failure.LOST, attempt.phase, "the event stream ended without an answer")
            reply = await self._resume(place, out)
        return _own(reply, request_id)

    async def _reply_in(self, response: Response, place: _Place, out: Outgoing) -> Reply | None:
        """The first answer in the stream; ``place`` notes where the stream has got to."""
        async for event in self._events(response):
            place.last_id = event.id or place.last_id
            place.retry = event.retry if event.retry is not None else place.retry
            if event.data and (reply := self._take(event.data, out)) is not None:
                return reply
        return None

    async def _resume(self, place: _Place, out: Outgoing) -> Reply | None:
        """One more look at the stream (2025-11-25, Resumability and Redelivery).

        The request itself has long been sent: whatever goes wrong here, it may have been executed.
        """
        await asyncio.sleep(min(max(place.retry, _SHORTEST_POLL), _LONGEST_POLL) / 1000)
        headers = {**self._headers(out), "Accept": "text/event-stream", "Last-Event-ID": place.last_id or ""}
        try:
            response = await self._exchange.open("GET", self._url, headers, None, Attempt())
        except WireError as error:
            raise WireError(Failure.LOST, Phase.STREAMING, f"while resuming the stream: {error.message}") from None
        try:
            if response.status != 200:
                raise WireError(Failure.LOST, Phase.STREAMING, "the event stream could not be resumed")
            return await self._reply_in(response, place, out)
        finally:
            await response.close()

    async def _events(self, response: Response) -> AsyncIterator[Event]:
        parser = SseParser(self._max)
        async for chunk in response.chunks():
            try:
                for event in parser.feed(chunk):
                    yield event
            except EventTooLarge:
                raise WireError(
                    Failure.TOO_LARGE, Phase.STREAMING, f"the answer is larger than {self._max} bytes"
                ) from None

    def _take(self, data: bytes, out: Outgoing) -> Reply | None:
        try:
            message = messages.read(data)
        except JsonError as error:
            raise WireError(Failure.BAD_REPLY, Phase.STREAMING, f"an event is {error}") from None
        if isinstance(message, Reply):
            return message
        if message.id is not None:
            self._answering.take(message, out.on_request or self.on_request)
        elif message.method == "notifications/cancelled":
            self._answering.withdraw(message)
        elif out.on_message is not None and message.method not in _ANNOUNCEMENTS:
            out.on_message(message)
        else:
            self._apart(message)
        return None

    def _apart(self, message: Incoming) -> None:
        """What comes on a stream that is no request's, or not one that cares."""
        token = progress_token(message) if message.method == "notifications/progress" else None
        (self._on_incoming if token is None else self._progress.get(token, self._on_incoming))(message)

    async def _status_error(self, response: Response, request_id: int, attempt: Attempt) -> Exception:
        status = response.status
        refused = await self._refusal(response, request_id)
        if self.session_id is not None and _session_unknown(status, refused):
            attempt.phase = Phase.NOT_SENT
            return WireError(
                Failure.SESSION_LOST, Phase.NOT_SENT, "the upstream does not know the session", status=status
            )
        if refused is not None:
            return refused
        if status in _BUSY:
            return _busy(response, Phase.STREAMING)
        text = f"HTTP {status}"
        if 300 <= status < 400:
            text += ": redirects are not followed; configure the URL it points to"
        elif status in (401, 403):
            text += ": the upstream does not accept the configured credentials"
        return WireError(Failure.HTTP, Phase.STREAMING, text, status=status)

    async def _refusal(self, response: Response, request_id: int) -> RpcError | None:
        """The JSON-RPC error in the body of an HTTP error, when there is one for this request."""
        if not response.header("Content-Type").lower().startswith("application/json"):
            return None
        try:
            message = messages.read(await response.read(_ERROR_BODY))
        except (JsonError, WireError):
            return None
        ours = isinstance(message, Reply) and message.id in (request_id, None)
        return message.error if ours and isinstance(message, Reply) else None

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """See `Wire.notify`."""
        await self._post(messages.notification(method, params), method)

    async def _post(self, body: bytes, method: str = "") -> None:
        out = Outgoing(method, {})
        response = await self._exchange.open("POST", self._url, self._headers(out), body, Attempt())
        await response.close()
        if response.status in _BUSY:
            raise _busy(response, Phase.SENT)
        if response.status >= 400:
            raise WireError(Failure.HTTP, Phase.SENT, f"HTTP {response.status}", status=response.status)

    async def _post_quietly(self, body: bytes) -> None:
        """A courtesy that nobody waits for; its failure shows in the next request."""
        try:
            async with asyncio.timeout(_CLEANUP_TIMEOUT):
                await self._post(body)
        except (WireError, TimeoutError):
            pass

    async def stream(self) -> None:
        """Hold the legacy GET stream open and hand on what comes, until it ends. Raises `WireError` if there is none."""
        headers = {**self._headers(Outgoing("", {})), "Accept": "text/event-stream"}
        response = await self._exchange.open("GET", self._url, headers, None, Attempt())
        try:
            if response.status != 200:
                raise WireError(Failure.HTTP, Phase.SENT, f"HTTP {response.status}", status=response.status)
            async for event in self._events(response):
                if event.data:
                    self._take(event.data, Outgoing("", {}))
        finally:
            await response.close()

    async def retire(self) -> None:
        """Close once the requests in flight have ended: they are exchanges of their own and may still be answered."""
        try:
            await self._requests.emptied()
        finally:
            await self.close()

    async def close(self) -> None:
        """End the legacy session, if there is one, and all connections."""
        self._answering.close()
        if self.session_id is not None:
            try:
                async with asyncio.timeout(_CLEANUP_TIMEOUT):
                    response = await self._exchange.open(
                        "DELETE", self._url, self._headers(Outgoing("", {})), None, Attempt()
                    )
                    await response.close()
            except (WireError, TimeoutError):
                pass
        await self._exchange.close()
        if not self.ended.done():
            self.ended.set_result("closed")


def _own(reply: Reply, request_id: int) -> Fields:
    if reply.error is not None and reply.id is None:
        raise reply.error
    # An answer to another request must not reach this caller; `True == 1`, so types are compared as well.
    if reply.id != request_id or type(reply.id) is not int:
        raise WireError(Failure.BAD_REPLY, Phase.STREAMING, "the answer belongs to another request")
    if reply.error is not None:
        raise reply.error
    assert reply.result is not None
    return reply.result


def _media_type(text: str) -> str:
    """What a ``Content-Type`` names (RFC 9110 §8.3.1), without parameters."""
    return text if text == "application/json" else text.partition(";")[0].strip().lower()


def _session_id(text: str) -> str | None:
    """A legacy session id: visible ASCII (2025-11-25, Session Management), or it could not be sent back."""
    if text and not _VISIBLE.fullmatch(text):
        raise WireError(Failure.BAD_REPLY, Phase.STREAMING, "the session id it gave is not visible ASCII")
    return text or None


def _session_unknown(status: int, refused: RpcError | None) -> bool:
    """404 says so (2025-11-25, Session Management), by itself or in the words of the common SDKs, some of which say 400.

    Any other JSON-RPC error is an answer: the request may have been executed, whatever its text says of sessions.
    """
    if refused is None:
        return status == 404
    return (
        status in (400, 404)
        and refused.code in _SESSION_CODES
        and _SESSION_WORDS.fullmatch(refused.message) is not None
    )


def _busy(response: Response, phase: Phase) -> WireError:
    wait = _retry_after(response.header("Retry-After"))
    return WireError(Failure.BUSY, phase, f"HTTP {response.status}", status=response.status, retry_after=wait)


def _retry_after(text: str) -> float | None:
    return float(text) if text.isdigit() and len(text) < 7 else None
