"""The LLM door as HTTP: keys, paths, bodies and refusals in the words of the API that is called; and who is offered ``hook``.

What completions are like, with the official clients, is in `tests.llm`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.flows.inside import Inside, serving
from tests.harness import Reply, make_token

pytestmark = pytest.mark.anyio

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
COMPLETIONS = (CHAT, MESSAGES, RESPONSES)
ASK = {"model": "auto", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}
SERVER = "llm:serve tools:read tools:call"


@pytest.fixture(scope="module")
async def llm() -> AsyncIterator[Inside]:
    """A service with the door open, and nobody who could answer."""
    async with serving({}, llm=True) as inside:
        yield inside


def error_of(reply: Reply, path: str) -> Mapping[str, Any]:
    """The error in the words of the path's API, with the request id that the header has."""
    body = reply.json
    error: Mapping[str, Any] = body["error"]
    if path.startswith(MESSAGES):
        assert body["type"] == "error"
        assert set(error) == {"type", "message"}
        assert body["request_id"] == reply.headers["x-request-id"]
    else:
        assert {"message", "type", "param", "code"} <= set(error)
    assert reply.headers["request-id"] == reply.headers["x-request-id"]
    return error


@pytest.mark.parametrize("path", COMPLETIONS)
async def test_without_anybody_to_answer_a_completion_is_503_with_a_time_to_come_back(llm: Inside, path: str) -> None:
    reply = await llm.post(path, ASK if path != RESPONSES else {"model": "auto", "input": "Hello"})
    assert (reply.status, reply.headers["retry-after"]) == (503, "2")
    assert "hook" in error_of(reply, path)["message"]


async def test_the_models_say_whether_somebody_could_answer(llm: Inside) -> None:
    reply = await llm.get("/v1/models")
    assert [model["id"] for model in reply.json["data"]] == ["mcp-external-sampling"]
    shown = {name: reply.headers[name] for name in ("x-mcp-bridge", "x-mcp-session-ready", "x-mcp-models-count")}
    assert shown == {"x-mcp-bridge": "hook", "x-mcp-session-ready": "false", "x-mcp-models-count": "1"}


@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
async def test_a_key_in_the_header_of_the_clients_is_a_token(llm: Inside, header: str) -> None:
    assert (await llm.get("/v1/models", token=None, headers={header: make_token()})).status == 200
    bad = await llm.get("/v1/models", token=None, headers={header: "sk-made-up"})
    assert bad.status == 401
    assert "sk-made-up" not in bad.body.decode()


async def test_the_same_token_in_two_headers_is_one_and_two_tokens_are_refused(llm: Inside) -> None:
    token = make_token()
    assert (await llm.get("/v1/models", token=token, headers={"x-api-key": token})).status == 200
    assert (await llm.get("/v1/models", token=token, headers={"x-api-key": make_token(sub="b")})).status == 400


async def test_such_a_key_opens_no_other_door(llm: Inside) -> None:
    assert (await llm.get("/tools/list", token=None, headers={"x-api-key": make_token()})).status == 401


async def test_a_token_in_the_query_counts_as_none(llm: Inside) -> None:
    assert (await llm.get(f"/v1/models?token={make_token()}", token=None)).status == 401


@pytest.mark.parametrize("path", COMPLETIONS)
async def test_who_comes_without_a_token_is_told_in_the_words_of_the_api(llm: Inside, path: str) -> None:
    for token in (None, "made-up"):
        reply = await llm.post(path, ASK, token=token)
        assert reply.status == 401
        error = error_of(reply, path)
        assert (error["type"] if path == MESSAGES else error["code"]) in ("authentication_error", "invalid_api_key")


async def test_an_expired_token_is_told_so_in_the_words_of_the_api(llm: Inside) -> None:
    reply = await llm.post(CHAT, ASK, token=make_token(ttl=-100))
    assert (reply.status, error_of(reply, CHAT)["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("path", COMPLETIONS)
async def test_a_token_that_may_not_ask_models_is_refused(llm: Inside, path: str) -> None:
    reply = await llm.post(path, ASK, token=make_token(scope="tools:call"))
    assert reply.status == 403
    assert "llm:call" in error_of(reply, path)["message"]


@pytest.mark.parametrize("path", COMPLETIONS)
async def test_only_posts_are_taken(llm: Inside, path: str) -> None:
    reply = await llm.get(path)
    assert reply.status == 405
    error_of(reply, path)


async def test_what_is_nowhere_is_told_in_the_words_of_the_client(llm: Inside) -> None:
    error_of(await llm.get("/v1/embeddings"), "/v1/embeddings")
    reply = await llm.get("/v1/complete", headers={"anthropic-version": "2023-06-01"})
    assert (reply.status, error_of(reply, MESSAGES)["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("path", COMPLETIONS)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"model": NaN}', b"[" * 2000])
async def test_a_body_that_cannot_be_read_is_a_400(llm: Inside, path: str, body: bytes) -> None:
    reply = await llm.send(body, path)
    assert reply.status == 400
    error_of(reply, path)


async def test_bodies_may_be_larger_than_at_other_doors_up_to_their_own_limit() -> None:
    async with serving({}, llm=True, max_body=2048, llm_max_body=8192) as inside:
        said = {**ASK, "messages": [{"role": "user", "content": "x" * 4000}]}
        assert (await inside.post(CHAT, said)).status == 503
        for path in COMPLETIONS:
            reply = await inside.post(path, {**ASK, "messages": [{"role": "user", "content": "x" * 9000}]})
            assert reply.status == 413
            assert "8192" in error_of(reply, path)["message"]
        assert (await inside.post("/tools", {"method": "x", "args": {"x": "x" * 4000}})).status == 413


async def test_an_address_that_is_not_ours_is_refused_in_the_words_of_the_api(llm: Inside) -> None:
    reply = await llm.post(CHAT, ASK, headers={"Host": "evil.example"})
    assert reply.status == 421
    error_of(reply, CHAT)


async def test_a_token_sees_and_reaches_only_the_models_of_its_claim(tmp_path: Path) -> None:
    file = tmp_path / "servers.json"
    file.write_text('{"mcpServers": {}, "llm": {"models": {"fast": ["sampling"], "deep": ["sampling"]}}}')
    async with serving({}, config=(file,)) as inside:
        narrow = make_token(models=["fa*"])
        listed = (await inside.get("/v1/models", token=narrow)).json["data"]
        assert [model["id"] for model in listed] == ["fast"]
        assert (await inside.get("/v1/models/fast", token=narrow)).json["id"] == "fast"
        assert (await inside.get("/v1/models/deep", token=narrow)).status == 404
        refused = await inside.post(CHAT, {**ASK, "model": "deep"}, token=narrow)
        assert (refused.status, error_of(refused, CHAT)["code"]) == (404, "model_not_found")
        assert (await inside.post(CHAT, {**ASK, "model": "fast"}, token=narrow)).status == 503


async def test_the_door_is_shut_until_it_is_switched_on() -> None:
    async with serving({}) as inside:
        for path in COMPLETIONS:
            reply = await inside.post(path, ASK)
            assert reply.status == 404
            assert "--llm" in error_of(reply, path)["message"]
        assert (await inside.post(CHAT, ASK, token="made-up")).status == 401
        assert "hook" not in await _listed(inside, make_token(scope=SERVER))


async def test_where_only_providers_are_to_answer_no_client_is_asked_to(tmp_path: Path) -> None:
    file = tmp_path / "servers.json"
    work = {"type": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "k"}
    file.write_text(json.dumps({"mcpServers": {}, "llm": {"providers": {"work": work}}}))
    async with serving({}, config=(file,)) as inside:
        assert "hook" not in await _listed(inside, make_token(scope=SERVER))
        for path in COMPLETIONS:
            assert (await inside.post(path, {**ASK, "input": "Hello"})).status == 404
        assert (await inside.get("/v1/models")).json["data"] == []
    async with serving({}, config=(file,), llm=True) as inside:
        assert "hook" in await _listed(inside, make_token(scope=SERVER))
        for path in COMPLETIONS:
            assert (await inside.post(path, {**ASK, "input": "Hello"})).status == 503


async def test_hook_is_offered_to_those_who_may_serve_models_and_to_nobody_else(llm: Inside) -> None:
    assert await _listed(llm, make_token(scope=SERVER)) == ["hook"]
    assert await _listed(llm, make_token()) == []
    assert (await _call_hook(llm, make_token()))["error"]["message"].startswith("there is no tool")


async def test_a_client_that_cannot_sample_is_told_so_by_hook(llm: Inside) -> None:
    answer = await _call_hook(llm, make_token(scope=SERVER))
    assert "sampling" in answer["error"]["message"]


async def test_a_completion_leaves_one_line_without_what_was_said(llm: Inside) -> None:
    reply = await llm.post(CHAT, {**ASK, "messages": [{"role": "user", "content": "a secret question"}]})
    (line,) = llm.lines(event="completion", request_id=reply.headers["x-request-id"])
    said = {name: line[name] for name in ("principal", "api", "model", "source", "streamed", "error")}
    assert said == {
        "principal": "tester", "api": "openai", "model": "auto", "source": "sampling", "streamed": False,
        "error": "hook_not_ready",
    }  # fmt: skip
    assert "a secret question" not in llm.log


async def _rpc(inside: Inside, token: str, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"Accept": "application/json, text/event-stream"}
    answer: Mapping[str, Any] = (await inside.post("/mcp", body, token=token, headers=headers)).json
    return answer


async def _listed(inside: Inside, token: str) -> list[str]:
    return [tool["name"] for tool in (await _rpc(inside, token, "tools/list", {}))["result"]["tools"]]


async def _call_hook(inside: Inside, token: str) -> Mapping[str, Any]:
    return await _rpc(inside, token, "tools/call", {"name": "hook", "arguments": {}})
