"""One completion from the request to the last word: what was asked, whether it may be, its answer, and what is noted of it.

Which paths there are, and who may come, is `door`; what answers is `bridge.completions`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.json import encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.chat import ChatRequest
from mcp_proxy.bridge.completions import Completions
from mcp_proxy.bridge.errors import MODEL_NOT_FOUND, RATE_LIMITED, UNSUPPORTED, ChatError
from mcp_proxy.bridge.relay import Item, Spoken, guessed
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.limits import Gate
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.presence import Sending, while_connected
from mcp_proxy.edge.respond import send_json
from mcp_proxy.edge.types import Header, Receive, Send
from mcp_proxy.llm.answer import Streaming, collected
from mcp_proxy.llm.apis import Api
from mcp_proxy.llm.audit import Watched, write_completion, write_received, write_sent
from mcp_proxy.llm.house import HouseTools
from mcp_proxy.llm.tenancy import Admission, Tenancy
from mcp_proxy.telemetry.logs import Logger
from mcp_proxy.telemetry.record import RequestRecord


@dataclass(frozen=True, slots=True)
class Question:
    """A request for a completion. ``spoken``: as it came, where it may be passed on so; ``unread``: why it must be."""

    api: Api
    caller: Principal
    ask: ChatRequest
    spoken: Spoken | None = None
    unread: ChatError | None = None


def read_question(api: Api, caller: Principal, body: Any, beside: Mapping[str, str]) -> Question:
    """What is asked. ``beside``: the headers that belong to it. Raises `ChatError`."""
    spoken = Spoken(api.name, body, beside) if isinstance(body, dict) else None
    try:
        ask = api.read(body)
    except ChatError as error:
        # A provider of the same API may understand it.
        guess = guessed(spoken) if spoken is not None and error.problem is UNSUPPORTED else None
        if guess is None:
            raise
        question = Question(api, caller, guess, spoken, error)
    else:
        question = Question(api, caller, ask, None if ask.house_tools else spoken)
    if not caller.sees_model(question.ask.model):
        text = f"there is no model called {question.ask.model[:200]!r} for this token"
        raise ChatError(MODEL_NOT_FOUND, text, param="model")
    return question


@dataclass(frozen=True, slots=True)
class _Running:
    """A completion that may run."""

    question: Question
    admission: Admission
    watched: Watched
    record: RequestRecord
    made: Mapping[str, Any] = field(default_factory=dict)


class Completing:
    """Runs completions. ``standing`` says how the service stands, in headers."""

    def __init__(
        self,
        completions: Completions,
        house: HouseTools,
        tenancy: Tenancy,
        *,
        gate: Gate,
        tasks: TaskSet,
        clock: Clock,
        ids: IdSource,
        log: Logger,
        log_bodies: bool,
        standing: Callable[[], list[Header]],
    ) -> None:
        self._completions = completions
        self._house = house
        self._tenancy = tenancy
        self._gate = gate
        self._tasks = tasks
        self._clock = clock
        self._ids = ids
        self._log = log
        self._log_bodies = log_bodies
        self._standing = standing

    async def run(self, question: Question, receive: Receive, send: Send, record: RequestRecord) -> None:
        """Answer it. Raises `ChatError` while nothing has been sent, `ProxyError` at a stop, `ClientGone`."""
        watched = Watched(question.ask, question.caller, self._clock.monotonic, keeps_text=self._log_bodies)
        sending = Sending(send)
        self._gate.enter()
        try:
            await while_connected(receive, self._admitted(question, watched, sending, record), sending)
        except ClientGone:
            record.error = "client_gone"
            raise
        except ChatError as error:
            record.error = error.problem.code
            raise
        finally:
            self._gate.leave()
            record.tool, record.server = watched.course.model, watched.course.source
            write_completion(self._log, watched, record, question.api.name)
            if self._log_bodies:
                write_sent(self._log, record, question.api.name, watched)

    def note_received(self, api: Api, body: Any, record: RequestRecord) -> None:
        """Write what came, if bodies are to be written."""
        if self._log_bodies:
            write_received(self._log, record, api.name, body)

    def limits(self, caller: Principal, api: Api, error: ChatError) -> list[Header]:
        """What is left to a caller that was refused for a limit."""
        return self._tenancy.headers(caller, api.name) if error.problem.status == RATE_LIMITED.status else []

    async def _admitted(self, question: Question, watched: Watched, send: Send, record: RequestRecord) -> None:
        async with self._tenancy.admitted(question.caller, question.ask) as admission:
            made = {"id": f"{question.api.prefix}{self._ids()}", "created": int(self._clock.time())}
            running = _Running(question, admission, watched, record, made)
            try:
                await (self._streamed if question.ask.stream else self._whole)(running, send)
            finally:
                if watched.course.usage is not None or watched.length:
                    admission.settle(watched.course.usage, characters=watched.length)

    def _items(self, running: _Running) -> AsyncGenerator[Item, None]:
        question, watched = running.question, running.watched
        if question.ask.house_tools:
            used = self._house.stream(
                running.admission.ask,
                question.caller,
                tenant=question.caller.who,
                request_id=running.record.request_id,
                course=watched.course,
                again=running.admission.again,
            )
            return watched.follow(used)
        return watched.follow(
            self._completions.answer(
                running.admission.ask,
                tenant=question.caller.who,
                course=watched.course,
                spoken=question.spoken,
                unread=question.unread,
            )
        )

    async def _whole(self, running: _Running, send: Send) -> None:
        api, ask = running.question.api, running.admission.ask
        result = await collected(self._items(running))
        if running.watched.course.usage is not None:
            running.admission.settle(running.watched.course.usage)  # the headers say what is left
        headers = self._headers(running)
        if isinstance(result, bytes):
            return await send_json(send, 200, result, headers)
        if result.usage.estimated:
            headers.append((b"x-bridge-usage", b"estimated"))
        fields = {**api.whole(result, ask, **running.made), "request_id": running.record.request_id}
        return await send_json(send, 200, encode(fields), headers)

    async def _streamed(self, running: _Running, send: Send) -> None:
        question, ask, request_id = running.question, running.admission.ask, running.record.request_id
        frames = question.api.frames(ask, **running.made)
        relayed = self._completions.may_relay(ask, question.spoken)
        streaming = Streaming(send, frames, request_id, tasks=self._tasks, relayed=relayed)
        failed = await streaming.run(self._items(running), lambda: self._headers(running))
        if failed is not None:
            running.record.error = failed.problem.code

    def _headers(self, running: _Running) -> list[Header]:
        ask, course, record = running.question.ask, running.watched.course, running.record
        headers: list[Header] = [(b"request-id", record.request_id.encode())]
        if course.model or ask.model:
            headers.append((b"x-mcp-model", _ascii(course.model or ask.model)))
        if ask.ignored and not course.relayed:
            headers.append((b"x-bridge-ignored-params", _ascii(", ".join(ask.ignored))))
        return [*headers, *self._standing(), *running.admission.headers(running.question.api.name)]


def _ascii(text: str) -> bytes:
    """Fit for a header."""
    return "".join(one if " " <= one <= "~" else "?" for one in text)[:500].encode()
