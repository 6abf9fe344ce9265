"""The brain behind HTTP: servers that speak OpenAI's chat completions and Anthropic's messages, as providers do.

They answer whole or in small pieces, count tokens, and understand whatever clients of their API say, since requests may
be passed on to them as they were said. Anthropic's keeps the threads of its library's beta.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.llm.brain import MODEL, Brain, BreaksOff, Busy, Fails, Rejects
from tests.llm.conversation import (
    Answer,
    Block,
    Picture,
    Question,
    Recording,
    Result,
    Tool,
    Turn,
    Use,
    Words,
    merged,
)

KEY = "sk-the-provider-key-0123456789"
_PIECE = re.compile(r".{1,400}", re.DOTALL)
_WORDS = re.compile(r"\s*\S+|\s+")
_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_BEGUN = 5
"""Events after which an answer lingers."""
Event = tuple[str | None, Any]


def pieces(text: str) -> list[str]:
    """A text as a provider's stream has it: word by word, a long one in larger pieces."""
    return (_WORDS if len(text) < 20_000 else _PIECE).findall(text)


class OpenAi:
    """Chat completions under ``/v1``."""

    path = "/v1/chat/completions"

    def may_ask(self, headers: Mapping[str, str]) -> bool:
        """Whether the key is there, in the place where the API wants it."""
        return headers.get("Authorization") == f"Bearer {KEY}"

    def question(self, body: Any) -> Question:
        """What a request asks."""
        operators = ("system", "developer")
        system = [_said(message["content"]) for message in body["messages"] if message["role"] in operators]
        given = [message for message in body["messages"] if message["role"] not in operators]
        if not given:
            system, given = [], [{"role": "user", "content": "\n".join(system)}]
        format, choice = body.get("response_format") or {}, body.get("tool_choice") or "auto"
        stop = body.get("stop") or ()
        named = (body.get(key) for key in ("max_completion_tokens", "max_tokens"))
        return Question(
            turns=merged(map(_openai_turn, given)),
            model=body["model"],
            system="\n\n".join(system) or None,
            tools=tuple(_openai_tool(one["function"]) for one in body.get("tools", ()) if "function" in one),
            choice=choice if isinstance(choice, str) else choice["function"]["name"],
            parallel=body.get("parallel_tool_calls", True),
            max_tokens=next((most for most in named if most is not None), None),
            temperature=body.get("temperature"),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            schema=format["json_schema"]["schema"] if format.get("type") == "json_schema" else None,
        )

    def whole(self, answer: Answer, number: int) -> Any:
        """An answer in one piece."""
        calls = [
            {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": json.dumps(use.arguments)}}
            for use in answer.uses
        ]
        words = answer.text if any(isinstance(block, Words) for block in answer.blocks) else None
        message = {"role": "assistant", "content": words, "refusal": None, **({"tool_calls": calls} if calls else {})}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH.get(answer.end, "stop")}
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": answer.model}
        return {**head, "choices": [choice], "usage": _openai_usage(answer)}

    def events(self, answer: Answer, number: int, body: Any, broken: bool = False) -> Iterator[Event]:
        """The stream of an answer; one that is ``broken`` has no end."""
        tells = (body.get("stream_options") or {}).get("include_usage")
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": answer.model}

        def chunk(delta: Any, finish: str | None = None) -> Event:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return None, {**head, "choices": [choice], **({"usage": None} if tells else {})}

        yield chunk({"role": "assistant", "content": "", "refusal": None})
        for piece in pieces(answer.text):
            yield chunk({"content": piece})
        if broken:
            return
        for index, use in enumerate(answer.uses):
            function = {"name": use.name, "arguments": ""}
            yield chunk({"tool_calls": [{"index": index, "id": use.id, "type": "function", "function": function}]})
            for piece in re.findall(r".{1,7}", json.dumps(use.arguments, ensure_ascii=False)):
                yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield chunk({}, _FINISH.get(answer.end, "stop"))
        if tells:
            yield None, {**head, "choices": [], "usage": _openai_usage(answer)}
        yield None, "[DONE]"

    def error(self, message: str) -> Any:
        """The body of a refusal."""
        return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


_FINISH = {"length": "length", "tools": "tool_calls", "refusal": "content_filter"}


def _openai_usage(answer: Answer) -> Any:
    asked, answered = answer.usage or (3, 5)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _said(content: Any) -> str:
    """The words of a content that may have parts."""
    return content if isinstance(content, str) else "\n\n".join(part["text"] for part in content)


def _parts(content: Any) -> list[Any]:
    """The parts of a content that may be a text, without empty ones."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    return [part for part in parts if part.get("text") != ""]


def _openai_tool(function: Any) -> Tool:
    schema = {"type": "object", **(function.get("parameters") or {})}
    return Tool(function["name"], schema, function.get("description"))


def _openai_turn(message: Any) -> Turn:
    blocks: list[Block] = [_openai_part(part) for part in _parts(message.get("content"))]
    if message["role"] == "tool":
        content = tuple(block for block in blocks if isinstance(block, (Words, Picture)))
        return Turn("user", (Result(message["tool_call_id"], content),))
    if message.get("refusal"):
        blocks.append(Words(message["refusal"]))
    for call in message.get("tool_calls") or ():
        blocks.append(Use(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])))
    return Turn("assistant" if message["role"] == "assistant" else "user", tuple(blocks))


def _openai_part(part: Any) -> Block:
    match part["type"]:
        case "text" | "refusal" as kind:
            return Words(part[kind])
        case "image_url":
            head, _, data = part["image_url"]["url"].partition(";base64,")
            return Picture(head.removeprefix("data:"), data)
        case "input_audio":
            return Recording(_AUDIO[part["input_audio"]["format"]], part["input_audio"]["data"])
    return Words(f"({part['type']})")


class Anthropic:
    """Messages."""

    path = "/v1/messages"

    def may_ask(self, headers: Mapping[str, str]) -> bool:
        """Whether the key is there, in the place where the API wants it."""
        return headers.get("x-api-key") == KEY and "anthropic-version" in headers

    def __init__(self) -> None:
        self._threads: dict[str, Any] = {}
        """What was said until each answer, by its id, where that is to be kept."""

    def question(self, body: Any) -> Question:
        """What a request asks."""
        kept = self._kept(body)
        said = [*kept.get("messages", ()), *body["messages"]]
        system = [
            body.get("system") or kept.get("system") or "",
            *(one["content"] for one in said if one["role"] == "system"),
        ]
        tools = body.get("tools") or kept.get("tools") or ()
        choice = body.get("tool_choice", {"type": "auto"})
        format = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
        return Question(
            turns=merged(
                Turn(one["role"], tuple(_anthropic_blocks(one["content"]))) for one in said if one["role"] != "system"
            ),
            model=body["model"],
            system="\n\n".join(filter(None, map(_said, system))) or None,
            tools=tuple(
                Tool(one["name"], one["input_schema"], one.get("description")) for one in tools if "input_schema" in one
            ),
            choice={"tool": choice.get("name"), "any": "required"}.get(choice["type"], choice["type"]),
            parallel=not choice.get("disable_parallel_tool_use", False),
            max_tokens=body["max_tokens"],
            temperature=body.get("temperature"),
            stop=tuple(body.get("stop_sequences") or ()),
            schema=format.get("schema"),
        )

    def _kept(self, body: Any) -> Any:
        thread = body.get("thread") or {}
        return self._threads[thread["previous_message_id"]] if thread.get("type") == "continue" else {}

    def keep(self, body: Any, answer: Any) -> None:
        """Remember a conversation that is to be kept, with its answer."""
        if "thread" in body:
            kept = self._kept(body)
            turn = {"role": "assistant", "content": answer["content"]}
            said = [*kept.get("messages", ()), *body["messages"], turn]
            self._threads[answer["id"]] = {**body, **kept, "messages": said}

    def whole(self, answer: Answer, number: int) -> Any:
        """An answer in one piece."""
        asked, answered = answer.usage or (3, 5)
        content = [
            {"type": "text", "text": block.text}
            if isinstance(block, Words)
            else {"type": "tool_use", "id": block.id, "name": block.name, "input": block.arguments}
            for block in answer.blocks
        ]
        head = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": answer.model}
        end = {"stop_reason": _REASONS.get(answer.end, answer.end), "stop_sequence": answer.stopped_by}
        return {**head, "content": content, **end, "usage": {"input_tokens": asked, "output_tokens": answered}}

    def events(self, answer: Answer, number: int, body: Any, broken: bool = False) -> Iterator[Event]:
        """The stream of an answer; one that is ``broken`` has no end."""
        asked, answered = answer.usage or (3, 5)
        begun = {"content": [], "stop_reason": None, "stop_sequence": None}
        usage = {"usage": {"input_tokens": asked, "output_tokens": 1}}
        start = {"message": {**self.whole(answer, number), **begun, **usage}}
        yield _named("message_start", start)
        yield _named("ping", {})
        for index, block in enumerate(answer.blocks):
            yield from _anthropic_events(index, block)
            if broken:
                return
            yield _named("content_block_stop", {"index": index})
        delta = {"stop_reason": _REASONS.get(answer.end, answer.end), "stop_sequence": answer.stopped_by}
        yield _named("message_delta", {"delta": delta, "usage": {"output_tokens": answered}})
        yield _named("message_stop", {})

    def error(self, message: str) -> Any:
        """The body of a refusal."""
        return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


_REASONS = {"end": "end_turn", "length": "max_tokens", "stop": "stop_sequence", "tools": "tool_use"}


def _named(kind: str, fields: Mapping[str, Any]) -> Event:
    return kind, {"type": kind, **fields}


def _anthropic_events(index: int, block: Words | Use) -> Iterator[Event]:
    if isinstance(block, Words):
        start: dict[str, Any] = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block.text)]
    else:
        start = {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
        arguments = json.dumps(block.arguments, ensure_ascii=False)
        deltas = [{"type": "input_json_delta", "partial_json": one} for one in ["", *re.findall(r".{1,7}", arguments)]]
    yield _named("content_block_start", {"index": index, "content_block": start})
    for delta in deltas:
        yield _named("content_block_delta", {"index": index, "delta": delta})


def _anthropic_blocks(content: Any) -> Iterator[Block]:
    for block in _parts(content):
        match block["type"]:
            case "text":
                yield Words(block["text"])
            case "image":
                yield Picture(block["source"].get("media_type", ""), block["source"].get("data", ""))
            case "document":
                yield from (Words(block[key]) for key in ("title", "context") if key in block)
                source = block["source"]
                yield from _anthropic_blocks(source.get("content") if source["type"] == "content" else source["data"])
            case "tool_use":
                yield Use(block["id"], block["name"], block["input"])
            case "tool_result":
                parts = _anthropic_blocks(block.get("content"))
                said = tuple(part for part in parts if isinstance(part, (Words, Picture)))
                yield Result(block["tool_use_id"], said, block.get("is_error", False))


class Provider:
    """A server of one of the APIs."""

    def __init__(self, brain: Brain, api: OpenAi | Anthropic) -> None:
        self._brain, self._api = brain, api
        self._numbers = itertools.count(1)

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """One answer, or a refusal as providers give it."""
        if not self._api.may_ask(request.headers):
            return self._refusal(401, f"this key is not known: {request.headers.get('Authorization')}")
        body = await request.json()
        self._brain.bodies.append(body)
        try:
            answer = await self._brain.answer(self._api.question(body))
        except Fails as error:
            return self._refusal(500, str(error))
        except Rejects as error:
            return self._refusal(400, str(error))
        except Busy as error:
            return self._refusal(429, str(error), {"Retry-After": str(error.seconds)})
        except BreaksOff as error:
            return await self._send(request, body, Answer((Words(error.text),), model=MODEL), broken=True)
        return await self._send(request, body, answer)

    async def _send(
        self, request: web.Request, body: Any, answer: Answer, *, broken: bool = False
    ) -> web.StreamResponse:
        number = next(self._numbers)
        whole = self._api.whole(answer, number)
        if isinstance(self._api, Anthropic):
            self._api.keep(body, whole)
        if not body.get("stream"):
            return await self._break_off(request, whole) if broken else web.json_response(whole)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for sent, (name, data) in enumerate(self._api.events(answer, number, body, broken)):
                if answer.lingers and sent == _BEGUN:
                    await self._brain.has_leave()
                said = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
                line = f"event: {name}\n" if name else ""
                await response.write(f"{line}data: {said}\n\n".encode())
        except (ConnectionError, asyncio.CancelledError):
            self._brain.cut += 1
            raise
        if broken and request.transport is not None:
            request.transport.abort()
        return response

    async def _break_off(self, request: web.Request, whole: Any) -> web.StreamResponse:
        text = json.dumps(whole).encode()
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(text))})
        await response.prepare(request)
        await response.write(text[: len(text) // 2])
        assert request.transport is not None
        request.transport.abort()
        return response

    def _refusal(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
        return web.json_response(self._api.error(message), status=status, headers=headers)


@asynccontextmanager
async def provider(brain: Brain, api: OpenAi | Anthropic) -> AsyncIterator[str]:
    """A provider on a port of the loopback; yields its address, without a path."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post(api.path, Provider(brain, api).respond)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await asyncio.wait_for(runner.cleanup(), 10)
