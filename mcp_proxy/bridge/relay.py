"""Passing a request on as it was said, where the provider speaks the API that the client speaks: nothing is lost then.

What is changed is the model's name, and a number of tokens above what may be asked for. What passes is read along the
way, for the log and the limits. Pure; who sends is `provider`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_proxy.base.json import JsonError, encode, read_strict
from mcp_proxy.bridge.chat import ChatRequest, Delta, Message, Role, Text
from mcp_proxy.core.upstream.sse import Event

_MOST = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_OWN = {"openai": "max_completion_tokens", "openai-responses": "max_output_tokens", "anthropic": "max_tokens"}


@dataclass(frozen=True, slots=True)
class Spoken:
    """A request in the words of its API: ``openai``, ``openai-responses`` or ``anthropic``.

    ``headers`` are those that belong to what is said, such as ``anthropic-beta``.
    """

    api: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def streams(self) -> bool:
        return self.body.get("stream") is True


@dataclass(frozen=True, slots=True)
class Verbatim:
    """What the provider says, as it says it: whole events, or a whole body. ``deltas``: what of it is understood.

    ``data`` is empty for what the client did not ask for.
    """

    data: bytes
    deltas: tuple[Delta, ...] = ()


Item = Delta | Verbatim


def guessed(spoken: Spoken) -> ChatRequest | None:
    """As much as has to be known of a request that can only be passed on; None where it says no model."""
    model = spoken.body.get("model")
    if not isinstance(model, str):
        return None
    most = next((value for key in _MOST if type(value := spoken.body.get(key)) is int and value > 0), None)
    said = Text(encode(spoken.body).decode())
    return ChatRequest(model, (Message(Role.USER, (said,)),), max_tokens=most, stream=spoken.streams)


def rewritten(spoken: Spoken, model: str, most: int | None) -> tuple[dict[str, Any], bool]:
    """The body for the provider, and whether it says tokens at the end of a stream that the client did not ask for.

    ``most``: the tokens of an answer; None: as many as the provider likes.
    """
    body = {**spoken.body, "model": model}
    if most is not None:
        named = [key for key in _MOST if body.get(key) is not None] or [_OWN[spoken.api]]
        for key in named:
            given = body.get(key)
            body[key] = min(given, most) if type(given) is int else most
    if spoken.api != "openai" or not spoken.streams:
        return body, False
    options = body.get("stream_options")
    options = options if isinstance(options, dict) else {}
    if options.get("include_usage") is True:
        return body, False
    body["stream_options"] = {**options, "include_usage": True}
    return body, True


def only_tells_tokens(data: bytes) -> bool:
    """Whether an event of a chat stream is the one that says tokens and nothing else."""
    if b'"usage"' not in data:
        return False
    try:
        value = read_strict(data)
    except JsonError:
        return False
    return isinstance(value, dict) and value.get("choices") == [] and value.get("usage") is not None


def written(event: Event) -> bytes:
    """An event as it goes on."""
    name = b"" if event.event == "message" else b"event: %b\n" % event.event.encode()
    return name + b"".join(b"data: %b\n" % line for line in event.data.split(b"\n")) + b"\n"
