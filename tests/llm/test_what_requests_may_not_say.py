"""Requests that are refused: as a bad request that names the parameter to blame, before any model is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai
import pytest

from tests.llm.callers import create, resource
from tests.llm.kinds import ALIAS, Kind
from tests.llm.test_what_requests_may_say import CALL, GO, ITEM, OBJECT, USE, user

pytestmark = pytest.mark.anyio

HELLO = user("hello")
TOOL = {"type": "function", "function": GO}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
BLANK = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "no base64!"}}
BAD, UNSUPPORTED = "invalid_request", "unsupported_parameter"


@dataclass(frozen=True)
class Refused:
    """``param`` is where the fault is. ``beside``: what the library has no parameter for."""

    name: str
    api: str
    says: dict[str, Any]
    param: str
    code: str = BAD
    beside: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.api}: {self.name}"


def chat(name: str, param: str, *messages: Any, code: str = BAD, **more: Any) -> Refused:
    beside = more.pop("beside", {})
    return Refused(name, "chat", {**({"messages": list(messages)} if messages else {}), **more}, param, code, beside)


def responses(name: str, param: str, *items: Any, code: str = BAD, **more: Any) -> Refused:
    beside = more.pop("beside", {})
    return Refused(name, "responses", {**({"input": list(items)} if items else {}), **more}, param, code, beside)


def messages(name: str, param: str, *given: Any, code: str = BAD, **more: Any) -> Refused:
    beside = more.pop("beside", {})
    return Refused(name, "messages", {**({"messages": list(given)} if given else {}), **more}, param, code, beside)


REFUSED = (
    chat("several answers", "n", code=UNSUPPORTED, n=2),
    chat("probabilities", "logprobs", code=UNSUPPORTED, logprobs=True),
    chat("an answer that is heard", "modalities[1]", code=UNSUPPORTED, modalities=["text", "audio"]),
    chat("functions of old", "functions", code=UNSUPPORTED, functions=[GO]),
    chat("a search at the provider", "web_search_options", code=UNSUPPORTED, web_search_options={}),
    chat("no messages", "messages", beside={"messages": []}),
    chat("messages that are none", "messages", beside={"messages": "hello"}),
    chat("a role that there is not", "messages[0].role", {"role": "god", "content": "x"}),
    chat("a result of a function of old", "messages[0].role", {"role": "function", "name": "f", "content": "x"}, code=UNSUPPORTED),
    chat("a picture that would have to be fetched", "messages[0].content[0].image_url.url", user(IMAGE), code=UNSUPPORTED),
    chat(
        "a picture that is no base64",
        "messages[0].content[0].image_url.url",
        user({"type": "image_url", "image_url": {"url": "data:image/png;base64,no base64!"}}),
    ),
    chat(
        "a recording of a kind that is not known",
        "messages[0].content[0].input_audio.format",
        user({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "ogg"}}),
    ),
    chat("a file", "messages[0].content[0]", user({"type": "file", "file": {"file_id": "f"}}), code=UNSUPPORTED),
    chat("a result that nobody asked for", "messages[1].tool_call_id", HELLO, {"role": "tool", "tool_call_id": "x", "content": "y"}),
    chat("a call that has no result", "messages[2]", HELLO, {"role": "assistant", "tool_calls": [CALL]}, HELLO),
    chat(
        "arguments that are no JSON",
        "messages[1].tool_calls[0].function.arguments",
        HELLO,
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "go", "arguments": "{n: 1"}}]},
    ),
    chat("a temperature beyond all", "temperature", temperature=2.5),
    chat("a number of tokens below one", "max_completion_tokens", max_completion_tokens=0),
    chat("a stop text that is empty", "stop[1]", stop=["a", ""]),
    chat("two tools of one name", "tools[1].function.name", tools=[TOOL, TOOL]),
    chat("a tool without a name", "tools[0].function.name", tools=[{"type": "function", "function": {"parameters": OBJECT}}]),
    chat("a tool of another kind", "tools[0]", code=UNSUPPORTED, tools=[{"type": "custom", "custom": {"name": "x"}}]),
    chat("a tool that takes no object", "tools[0].function.parameters.type", tools=[{"type": "function", "function": {"name": "go", "parameters": {"type": "string"}}}]),
    chat("a choice among no tools", "tool_choice", tool_choice="required"),
    chat("a choice of a tool that is not there", "tool_choice", tools=[TOOL], tool_choice={"type": "function", "function": {"name": "gone"}}),
    chat("a format that there is not", "response_format", code=UNSUPPORTED, response_format={"type": "grammar"}),
    responses("to go on from an answer before", "previous_response_id", code=UNSUPPORTED, previous_response_id="resp_1"),
    responses("a conversation that is kept", "conversation", code=UNSUPPORTED, conversation="conv_1"),
    responses("a prompt that is kept", "prompt", code=UNSUPPORTED, prompt={"id": "p"}),
    responses("an answer in the background", "background", code=UNSUPPORTED, background=True),
    responses("a tool of the provider's", "tools[0]", code=UNSUPPORTED, tools=[{"type": "web_search"}]),
    responses("no input", "input", beside={"input": []}),
    responses("an item that needs a memory", "input[1]", HELLO, {"type": "item_reference", "id": "msg_1"}, code=UNSUPPORTED),
    responses("a file", "input[0].content[0].file_id", user({"type": "input_image", "file_id": "f", "detail": "auto"}), code=UNSUPPORTED),
    responses("a picture that would have to be fetched", "input[0].content[0].image_url", user({"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"}), code=UNSUPPORTED),
    responses("an output that nobody asked for", "input[1].call_id", HELLO, {"type": "function_call_output", "call_id": "x", "output": "y"}),
    responses("a call that has no output", "input[1]", HELLO, ITEM),
    responses("a format that there is not", "text.format", code=UNSUPPORTED, text={"format": {"type": "grammar"}}),
    messages("no messages", "messages", beside={"messages": []}),
    messages("a role that there is not", "messages[0].role", {"role": "god", "content": "x"}),
    messages("a number of tokens below one", "max_tokens", max_tokens=0),
    messages("a temperature beyond all", "temperature", beside={"temperature": 1.5}),
    messages("a picture that would have to be fetched", "messages[0].content[0].source", user({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}), code=UNSUPPORTED),
    messages("a picture that is no base64", "messages[0].content[0].source.data", user(BLANK)),
    messages("a document that cannot be read", "messages[0].content[0].source", user({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}), code=UNSUPPORTED),
    messages("citations", "messages[0].content[0].citations", user({"type": "document", "citations": {"enabled": True}, "source": {"type": "text", "media_type": "text/plain", "data": "x"}}), code=UNSUPPORTED),
    messages("a result that nobody asked for", "messages[0]", user({"type": "tool_result", "tool_use_id": "x", "content": "y"})),
    messages("a use that has no result", "messages[1]", HELLO, {"role": "assistant", "content": [USE]}),
    messages("a tool of the provider's", "tools[0]", code=UNSUPPORTED, tools=[{"type": "web_search_20250305", "name": "web_search"}]),
    messages("a tool without a schema", "tools[0].input_schema", tools=[{"name": "go"}]),
    messages("a choice among no tools", "tool_choice", tool_choice={"type": "any"}),
    messages("a choice of a tool that is not there", "tool_choice.name", tools=[{"name": "go", "input_schema": OBJECT}], tool_choice={"type": "tool", "name": "gone"}),
    messages("servers of the caller's", "mcp_servers", code=UNSUPPORTED, beside={"mcp_servers": [{"type": "url", "url": "https://example.com", "name": "x"}]}),
    messages("a conversation that is kept", "thread", code=UNSUPPORTED, beside={"thread": {"type": "create"}}),
    messages("a format that there is not", "output_config.format", code=UNSUPPORTED, output_config={"format": {"type": "grammar"}}),
)  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=str)
async def test_refused(kind: Kind, case: Refused) -> None:
    more = {"extra_body": case.beside} if case.beside else {}
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as caught:
        await create(kind.clients, case.api, "hello", **case.says, **more)
    error = caught.value
    assert error.status_code == 400
    assert error.request_id
    if isinstance(error, openai.BadRequestError):
        assert (error.code, error.param, error.type) == (case.code, case.param, "invalid_request_error")
    else:
        assert error.type == "invalid_request_error"
        assert error.api_message is not None
        assert error.api_message.startswith(f"{case.param}: ")
    assert not kind.brain.asked


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
async def test_a_stream_is_refused_in_the_same_way(kind: Kind, api: str) -> None:
    limit = {"chat": "max_completion_tokens", "responses": "max_output_tokens", "messages": "max_tokens"}[api]
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as caught:
        await create(kind.clients, api, "hello", stream=True, **{limit: 0})
    error = caught.value
    assert limit == error.param if isinstance(error, openai.BadRequestError) else limit in error.message
    assert not kind.brain.asked


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"{} {}", b'{"model": NaN}', b"", b"\xff"], ids=repr)
@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
async def test_a_body_that_is_no_request_is_refused_in_the_words_of_its_api(kind: Kind, api: str, body: bytes) -> None:
    where = {"chat": "/chat/completions", "responses": "/responses", "messages": "/v1/messages"}[api]
    client: Any = resource(kind.clients, api)._client
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as caught:
        await client.post(
            where, cast_to=object, content=body, options={"headers": {"Content-Type": "application/json"}}
        )
    assert caught.value.type == "invalid_request_error"
    assert ALIAS not in caught.value.message
    assert not kind.brain.asked
