"""Requests in the words of one API, for what the neutral `Question` has none: parameters in, text or failure out."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from tests.llm.kinds import ALIAS, Clients

APIS = ("chat", "responses", "messages")


def parameters(api: str, text: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the client's ``create`` is given. Of ``more``, what the library has no parameter for goes beside them."""
    said = [{"role": "user", "content": text}]
    asked: dict[str, Any] = {"model": ALIAS}
    match api:
        case "chat":
            asked["messages"] = said
        case "responses":
            asked["input"] = text
        case "messages":
            asked |= {"messages": said, "max_tokens": 4096}
    return asked | (more or {})


def resource(clients: Clients, api: str) -> Any:
    """What has ``create`` and its siblings."""
    return {
        "chat": clients.openai.chat.completions,
        "responses": clients.openai.responses,
        "messages": clients.anthropic.messages,
    }[api]


async def create(clients: Clients, api: str, text: str, /, **more: Any) -> Any:
    """One question of one text."""
    return await resource(clients, api).create(**parameters(api, text, more))


async def raw(clients: Clients, api: str, text: str, /, **more: Any) -> tuple[Any, Any]:
    """The same, and the headers of the answer."""
    answer = await resource(clients, api).with_raw_response.create(**parameters(api, text, more))
    parsed = answer.parse()
    # One library has it at once, the other when it has been read.
    return (await parsed if isinstance(parsed, Awaitable) else parsed), answer.headers


def text_of(api: str, answer: Any) -> str:
    """All words of a whole answer."""
    match api:
        case "chat":
            found = answer.choices[0].message.content
        case "responses":
            found = answer.output_text
        case _:
            found = "".join(block.text for block in answer.content if block.type == "text")
    assert isinstance(found, str)
    return found
