"""What clients of the MCP door must not send: each is refused with the right code and status, and nobody else notices."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.flows.mcp_client import JSON, KINDS, MODERN, NAMED, Answer, House, Http, Modern, reachable
from tests.flows.mcp_upstream import Upstream, upstream
from tests.harness import SECRET, eventually, make_token

pytestmark = pytest.mark.anyio
META = "io.modelcontextprotocol/"
PROMPT = {"name": "greet", "arguments": [{"name": "who"}]}
NOTE = {"uri": "old://note", "name": "note"}


@pytest.fixture(scope="module")
async def old() -> AsyncIterator[Upstream]:
    async with upstream(era="legacy", name="old", prompts=[PROMPT], resources=[NOTE]) as one:
        yield one


@pytest.fixture(scope="module")
async def new() -> AsyncIterator[Upstream]:
    async with upstream(era="modern", name="new") as one:
        yield one


@pytest.fixture(scope="module")
async def house(old: Upstream, new: Upstream) -> AsyncIterator[House]:
    async with reachable({"old": {"url": old.url}, "new": {"url": new.url}}, max_body=64 * 1024) as one:
        yield one


@pytest.fixture(autouse=True)
async def unharmed(house: House) -> AsyncIterator[None]:
    """Whatever a test sends, the next client is served."""
    yield
    for kind in KINDS:
        async with house.client(kind) as client:
            assert (await client.call("old.echo", {"text": "still"})).text == "old echo still"


def clean(answer: Answer) -> Answer:
    """It says nothing of how it is made."""
    for word in ("Traceback", "mcp_proxy", ".py", "msgspec", SECRET, "Bearer ey"):
        assert word not in json.dumps(answer.message), word
    return answer


async def post(house: House, body: bytes, headers: Any = None, **more: Any) -> Answer:
    http = Http(house.base, **more)
    try:
        return clean(await http.send("POST", "/mcp", JSON if headers is None else headers, body))
    finally:
        await http.close()


# Messages

MALFORMED: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", -32700),
    "half": (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"', -32700),
    "more": (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}}', -32700),
    "no UTF-8": (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "\xff"}}', -32700),
    "half a surrogate": (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "\\ud800"}}', -32700),
    "NaN": (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": NaN}}', -32700),
    "deep": (
        b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": ' + b"[" * 70 + b"]" * 70 + b"}}",
        -32700,
    ),
    "very deep": (b"[" * 30_000, -32700),
    "a batch": (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', -32600),
    "an empty batch": (b"[]", -32600),
    "a number": (b"7", -32600),
    "null": (b"null", -32600),
    "an empty object": (b"{}", -32600),
    "jsonrpc 1": (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', -32600),
    "no jsonrpc": (b'{"id": 1, "method": "ping"}', -32600),
    "a method that is no string": (b'{"jsonrpc": "2.0", "id": 1, "method": 5}', -32600),
    "params that are a list": (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}', -32600),
    "params that are null": (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": null}', -32600),
    "neither method nor result": (b'{"jsonrpc": "2.0", "id": 1}', -32600),
    "result and error": (b'{"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}', -32600),
    "id null": (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600),
    "id true": (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}', -32600),
    "id a fraction": (b'{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', -32600),
    "id a list": (b'{"jsonrpc": "2.0", "id": [1], "method": "ping"}', -32600),
    "id an object": (b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}', -32600),
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_that_is_none_is_refused_with_its_code(house: House, kind: str, case: str):
    body, code = MALFORMED[case]
    async with house.client(kind) as client:
        headers = {**JSON, "MCP-Protocol-Version": MODERN} if kind == "modern" else dict(JSON)
        if kind == "legacy":
            headers |= client.session_headers
        path = client.endpoint if kind == "sse" else "/mcp"
        answer = clean(await client.http.send("POST", path, headers, body))
        assert answer.refusal == (400, code)
        assert answer.message["id"] in (None, 1)


@pytest.mark.parametrize("id", [0, -1, 2**62, "", "a", "x" * 2000, "grüß"])
@pytest.mark.parametrize("kind", KINDS)
async def test_any_string_or_integer_is_an_id_and_comes_back_as_it_is(house: House, kind: str, id: Any):
    async with house.client(kind) as client:
        client.ids = iter([id])
        answer = await client.request("tools/list")
        assert answer.message["id"] == id
        assert type(answer.message["id"]) is type(id)


@pytest.mark.parametrize("kind", ["legacy", "modern"])
async def test_requests_with_the_same_id_in_flight_are_each_answered_over_http(house: House, kind: str):
    async with house.client(kind) as client:
        calls = [
            client.request("tools/call", {"name": "old.echo", "arguments": {"text": str(n)}}, id=1) for n in range(20)
        ]
        answers = await asyncio.gather(*calls)
        assert [answer.text for answer in answers] == [f"old echo {n}" for n in range(20)]


async def test_requests_with_the_same_id_in_flight_are_each_answered_over_sse(house: House):
    async with house.client("sse") as client:
        for n in range(5):
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
            params = {"name": "old.echo", "arguments": {"text": str(n)}}
            assert (await client._post({**message, "params": params})).status == 202
        await eventually(lambda: len(client.strays) == 5, what="five answers")
        texts = {answer["result"]["content"][0]["text"] for answer in client.strays}
        assert texts == {f"old echo {n}" for n in range(5)}


async def test_a_body_over_the_limit_is_413_at_every_path(house: House):
    big = b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "' + b"x" * 70_000 + b'"}}'
    async with house.client("sse") as sse:
        for path, more in [("/mcp", {}), ("/mcp", {"MCP-Protocol-Version": MODERN}), (sse.endpoint, {})]:
            http = Http(house.base)
            answer = await http.send("POST", path, {**JSON, **more}, big)
            await http.close()
            assert answer.status == 413
        assert (await sse.call("old.echo", {"text": "on"})).text == "old echo on"


# HTTP


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", None])
async def test_a_body_that_is_not_called_json_is_415(house: House, kind: str | None):
    headers = {"Accept": "*/*"} if kind is None else {"Accept": "*/*", "Content-Type": kind}
    answer = await post(house, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', headers)
    assert answer.status == 415


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_json_by_any_spelling_is_taken(house: House, kind: str):
    answer = await post(house, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', {"Content-Type": kind})
    assert (answer.status, answer.result) == (200, {})


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream, application/json", "application/json"),
        ("application/*", "application/json"),
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, application/json;q=0", "text/event-stream"),
        ("text/html", None),
        ("application/json;q=0", None),
    ],
)
@pytest.mark.parametrize("version", [None, MODERN])
async def test_the_form_of_the_answer_is_one_that_the_client_takes(
    house: House, accept: str | None, kind: str | None, version: str | None
):
    client = Modern(Http(house.base), {}, lambda *_: {}, "/mcp")
    params = client.envelope({}) if version else {}
    headers = {**client.headers("tools/list", params)} if version else dict(JSON)
    del headers["Accept"]
    if accept is not None:
        headers["Accept"] = accept
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}
    answer = await client.http.send("POST", "/mcp", headers, json.dumps(body).encode())
    await client.http.close()
    if kind is None:
        assert answer.status == 406
    else:
        assert answer.headers["Content-Type"].startswith(kind)
        assert answer.result["tools"]


async def test_get_and_delete_need_a_session_of_the_callers_own(house: House):
    async with house.client("legacy") as owner, house.client("legacy", token=make_token(sub="somebody")) as other:
        events = {"Accept": "text/event-stream"}
        for method in ("GET", "DELETE"):
            assert clean(await owner.http.send(method, "/mcp", events)).refusal == (400, -32600)
            for key in ("unknown", other.key):
                headers = {**events, "Mcp-Session-Id": key}
                assert clean(await owner.http.send(method, "/mcp", headers)).refusal == (404, -32600)
        html = {"Accept": "text/html", "Mcp-Session-Id": owner.key}
        assert (await owner.http.send("GET", "/mcp", html)).status == 406
        assert (await other.request("ping")).result == {}
        assert (await owner.request("ping")).result == {}


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH"])
async def test_a_modern_client_has_post_alone(house: House, method: str):
    async with house.client("legacy") as client:
        headers = {"Accept": "text/event-stream", "Mcp-Session-Id": client.key, "MCP-Protocol-Version": MODERN}
        answer = await client.http.send(method, "/mcp", headers)
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert (await client.request("ping")).result == {}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", "/mcp", "GET, POST, DELETE"), ("POST", "/sse", "GET"), ("GET", "/messages/", "POST")],
)
async def test_other_methods_are_405_and_say_which_are_not(house: House, method: str, path: str, allowed: str):
    http = house.http()
    answer = await http.send(method, path)
    await http.close()
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)


# Sessions


async def test_a_session_is_known_to_its_owner_alone_and_only_until_it_ends(house: House):
    async with house.client("legacy") as owner, house.client("legacy", token=make_token(sub="somebody")) as thief:
        own, thief.key = thief.key, owner.key
        for method in ("ping", "tools/list", "nonsense"):
            assert clean(await thief.request(method)).refusal == (404, -32600)
        stolen = await thief._post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        assert stolen.status == 404
        thief.key = own
        ended = await owner.http.send("DELETE", "/mcp", owner.session_headers)
        assert ended.status in (200, 204)
        assert clean(await owner.request("ping")).refusal == (404, -32600)
        again = await owner.http.send("DELETE", "/mcp", owner.session_headers)
        assert again.refusal == (404, -32600)
        assert (await thief.request("ping")).result == {}


async def test_somebody_elses_sse_stream_is_404_and_hears_nothing(house: House):
    async with house.client("sse") as owner, house.client("sse", token=make_token(sub="somebody")) as thief:
        own, thief.endpoint = thief.endpoint, owner.endpoint
        assert (await thief._post({"jsonrpc": "2.0", "id": 9, "method": "ping"})).status == 404
        thief.endpoint = own
        for place in ("/messages/", "/messages/?session_id=", "/messages/?session_id=unknown"):
            answer = await owner.http.send("POST", place, JSON, b'{"jsonrpc": "2.0", "id": 9, "method": "ping"}')
            assert answer.status in (400, 404)
        assert (await owner.request("ping")).result == {}


async def test_a_response_that_nobody_waits_for_is_taken_and_means_nothing(house: House):
    async with house.client("legacy") as client:
        for message in (
            {"id": 77, "result": {}},
            {"id": "x", "error": {"code": 1, "message": "x"}},
            {"id": 1, "error": {}},
        ):
            assert (await client._post({"jsonrpc": "2.0", **message})).status == 202
        nobody = await post(house, b'{"jsonrpc": "2.0", "id": 1, "result": {}}')
        assert nobody.refusal == (400, -32600)
        modern = await post(
            house, b'{"jsonrpc": "2.0", "id": 1, "result": {}}', {**JSON, "MCP-Protocol-Version": MODERN}
        )
        assert modern.refusal == (400, -32600)


@pytest.mark.parametrize("params", [{}, {"requestId": None}, {"requestId": [1]}, {"requestId": {}}, {"requestId": 99}])
@pytest.mark.parametrize("kind", ["legacy", "sse"])
async def test_a_cancellation_of_nothing_is_taken_and_means_nothing(house: House, kind: str, params: dict[str, Any]):
    async with house.client(kind) as client:
        await client.tell("notifications/cancelled", params)
        await client.tell("notifications/of-the-future", params)
        assert (await client.request("ping")).result == {}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"protocolVersion": 5},
        {"protocolVersion": "2025-11-25", "capabilities": []},
        {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": "me"},
    ],
)
async def test_an_introduction_of_the_wrong_shape_opens_no_session(house: House, params: dict[str, Any]):
    before = len(house.runtime.door.sessions)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    answer = await post(house, body.encode())
    assert answer.refusal == (200, -32602)
    assert "Mcp-Session-Id" not in answer.headers
    assert len(house.runtime.door.sessions) <= before


@pytest.mark.parametrize("version", ["1999-01-01", "2024-10-07", "", "nonsense", "2030-01-01"])
async def test_an_introduction_with_an_unknown_version_is_answered_with_one_that_is_spoken(house: House, version: str):
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    answer = await post(house, body.encode())
    assert answer.result["protocolVersion"] == "2025-11-25"


async def test_a_stream_is_introduced_once(house: House):
    async with house.client("sse") as client:
        params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        assert (await client.request("initialize", params)).error["code"] == -32600
        assert (await client.call("old.echo", {"text": "on"})).text == "old echo on"


# The modern envelope

ECHO = {"name": "old.echo", "arguments": {"text": "x"}}
MISSING = object()


async def modern(house: House, params: dict[str, Any], *changes: tuple[str, Any], method: str = "tools/call") -> Answer:
    """A good request but for these headers: MISSING leaves one out, a list sends it several times."""
    client = Modern(Http(house.base), {}, lambda *_: {}, "/mcp")
    headers: dict[str, Any] = client.headers(method, params) | dict(changes)
    sent = [
        (name, one)
        for name, value in headers.items()
        if value is not MISSING
        for one in (value if isinstance(value, list) else [value])
    ]
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    answer = await client.http.send("POST", "/mcp", sent, body)
    await client.http.close()
    return clean(answer)


def enveloped(params: dict[str, Any], **meta: Any) -> dict[str, Any]:
    full = Modern(None, {}, lambda *_: {}, "").envelope(params)  # type: ignore[arg-type]
    for key, value in meta.items():
        full["_meta"][META + key] = value
        if value is MISSING:
            del full["_meta"][META + key]
    return full


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Mcp-Method", MISSING),
        ("Mcp-Method", ""),
        ("Mcp-Method", "tools/list"),
        ("Mcp-Method", "TOOLS/CALL"),
        ("Mcp-Method", ["tools/call", "tools/call"]),
        ("Mcp-Name", MISSING),
        ("Mcp-Name", "old.ask"),
        ("Mcp-Name", "OLD.ECHO"),
        ("Mcp-Name", "=?base64?!!!?="),
        ("Mcp-Name", ["old.echo", "old.hang"]),
        ("MCP-Protocol-Version", [MODERN, MODERN]),
        ("MCP-Protocol-Version", [MODERN, "2025-11-25"]),
        ("MCP-Protocol-Version", ["2025-11-25", MODERN]),
        ("MCP-Protocol-Version", MISSING),
    ],
)
async def test_headers_that_do_not_repeat_the_body_are_refused(house: House, old: Upstream, header: str, value: Any):
    before = old.called("echo")
    assert (await modern(house, enveloped(ECHO), (header, value))).refusal == (400, -32020)
    assert old.called("echo") == before


async def test_a_name_may_come_in_base64(house: House):
    name = f"=?base64?{base64.b64encode(b'old.echo').decode()}?="
    assert (await modern(house, enveloped(ECHO), ("Mcp-Name", name))).text == "old echo x"


@pytest.mark.parametrize("version", ["2026-07-29", "2027-01-01", "1999-01-01", "nonsense"])
async def test_a_version_that_nobody_knows_is_refused_with_those_that_are_spoken(house: House, version: str):
    answer = await modern(house, enveloped(ECHO, protocolVersion=version), ("MCP-Protocol-Version", version))
    assert answer.refusal == (400, -32022)
    assert MODERN in answer.error["data"]["supported"]
    assert answer.error["data"]["requested"] == version


async def test_a_version_that_differs_between_header_and_body_is_refused(house: House):
    assert (await modern(house, enveloped(ECHO, protocolVersion="2025-11-25"))).refusal == (400, -32020)


@pytest.mark.parametrize(
    "meta",
    [
        {"protocolVersion": MISSING},
        {"clientCapabilities": MISSING},
        {"clientCapabilities": []},
        {"clientInfo": "me"},
        {"logLevel": "loud"},
        {"logLevel": 5},
        {"logLevel": []},
    ],
)
async def test_an_envelope_of_the_wrong_shape_is_refused(house: House, meta: dict[str, Any]):
    assert (await modern(house, enveloped(ECHO, **meta))).refusal == (400, -32602)


@pytest.mark.parametrize("params", [{}, {"_meta": None}, {"_meta": []}])
async def test_a_modern_request_without_an_envelope_is_refused(house: House, params: dict[str, Any]):
    assert (await modern(house, {**ECHO, **params})).refusal == (400, -32602)


# Methods

LEGACY_ONLY = ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "initialize"]
UNKNOWN = ["nonsense", "", "tools", "tools/", "TOOLS/LIST", "tasks/get", "sampling/createMessage", "x" * 5000]


@pytest.mark.parametrize("method", LEGACY_ONLY + UNKNOWN)
async def test_a_method_that_the_modern_era_does_not_have_is_404(house: House, method: str):
    async with house.client("modern") as client:
        answer = clean(await client.request(method))
        assert answer.refusal == (404, -32601)
        assert len(answer.error["message"]) < 300


@pytest.mark.parametrize("method", ["server/discover", "subscriptions/listen", *UNKNOWN])
@pytest.mark.parametrize("kind", ["legacy", "sse"])
async def test_a_method_that_the_legacy_era_does_not_have_is_an_error(house: House, kind: str, method: str):
    async with house.client(kind) as client:
        assert clean(await client.request(method)).refusal == (200, -32601)


BAD_PARAMS: list[tuple[str, dict[str, Any]]] = [
    ("tools/call", {}),
    ("tools/call", {"name": None}),
    ("tools/call", {"name": 7}),
    ("tools/call", {"name": ""}),
    ("tools/call", {"name": "old.nothing"}),
    ("tools/call", {"name": "x" * 3000}),
    ("tools/call", {"name": "old.echo", "arguments": []}),
    ("tools/call", {"name": "old.echo", "arguments": "x"}),
    ("tools/list", {"cursor": "nonsense"}),
    ("tools/list", {"cursor": 5}),
    ("prompts/list", {"cursor": "nonsense"}),
    ("resources/list", {"cursor": ""}),
    ("resources/templates/list", {"cursor": "nonsense"}),
    ("prompts/get", {}),
    ("prompts/get", {"name": ["x"]}),
    ("prompts/get", {"name": "old.nothing"}),
    ("prompts/get", {"name": "old.greet", "arguments": ["x"]}),
    ("prompts/get", {"name": "old.greet", "arguments": "x"}),
    ("resources/read", {}),
    ("resources/read", {"uri": 7}),
    ("resources/read", {"uri": ""}),
    ("completion/complete", {}),
    ("completion/complete", {"ref": "x"}),
    ("completion/complete", {"ref": {}}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": 7}}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "old.nothing"}}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "old.greet"}, "argument": "x"}),
]


@pytest.mark.parametrize(("method", "params"), BAD_PARAMS)
@pytest.mark.parametrize("kind", KINDS)
async def test_parameters_that_a_method_cannot_use_are_refused(
    house: House, kind: str, method: str, params: dict[str, Any]
):
    async with house.client(kind) as client:
        answer = clean(await client.request(method, params))
        # A name that is no string has no header either, which a modern client is told first.
        unnamed = kind == "modern" and not isinstance(params.get(NAMED.get(method, ""), ""), str | None)
        assert answer.refusal == (400 if kind == "modern" else 200, -32020 if unnamed else -32602)
        assert len(answer.error["message"]) < 600


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("logging/setLevel", {}),
        ("logging/setLevel", {"level": "loud"}),
        ("logging/setLevel", {"level": ["info"]}),
        ("resources/subscribe", {}),
        ("resources/subscribe", {"uri": 7}),
        ("resources/unsubscribe", {}),
    ],
)
@pytest.mark.parametrize("kind", ["legacy", "sse"])
async def test_parameters_that_a_legacy_method_cannot_use_are_refused(
    house: House, kind: str, method: str, params: dict[str, Any]
):
    async with house.client(kind) as client:
        assert clean(await client.request(method, params)).refusal == (200, -32602)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"notifications": []},
        {"notifications": {"resourceSubscriptions": "old://note"}},
        {"notifications": {"resourceSubscriptions": [7]}},
    ],
)
async def test_a_subscription_of_the_wrong_shape_is_refused(house: House, params: dict[str, Any]):
    async with house.client("modern") as client:
        assert clean(await client.request("subscriptions/listen", params)).refusal == (400, -32602)


async def test_a_resource_that_nobody_has_is_unknown_in_the_words_of_each_era(house: House):
    for kind, expected in {"modern": (400, -32602), "legacy": (200, -32002), "sse": (200, -32002)}.items():
        async with house.client(kind) as client:
            answer = clean(await client.request("resources/read", {"uri": "nowhere://x"}))
            assert answer.refusal == expected
            assert answer.error["data"]["uri"] == "nowhere://x"


async def test_invalid_arguments_are_a_tool_result_that_the_model_can_read(house: House, old: Upstream):
    before = old.called("echo")
    for kind in KINDS:
        async with house.client(kind) as client:
            answer = clean(await client.request("tools/call", {"name": "old.echo", "arguments": {"text": 7}}))
            assert answer.status == 200
            assert answer.result["isError"] is True
            assert "/text" in answer.text
    assert old.called("echo") == before


# Request state

ASK = {"name": "old.ask", "arguments": {"who": "x"}}
GIVEN = {"action": "accept", "content": {"name": "me"}}


async def asked(client: Modern, server: str = "old") -> tuple[str, dict[str, Any]]:
    """The state of a call that waits, and answers to what it asks."""
    result = (await client.request("tools/call", {**ASK, "name": f"{server}.ask"})).result
    assert result["resultType"] == "input_required"
    return result["requestState"], dict.fromkeys(result["inputRequests"], GIVEN)


async def back(client: Modern, state: Any, answers: Any, name: str = "old.ask") -> Answer:
    params = {**ASK, "name": name, "requestState": state, "inputResponses": answers}
    return clean(await client.request("tools/call", params))


@pytest.mark.parametrize("server", ["old", "new"])
async def test_request_state_is_good_for_its_caller_and_its_request_alone(house: House, server: str):
    name = f"{server}.ask"
    async with house.client("modern") as owner, house.client("modern", token=make_token(sub="thief")) as thief:
        state, answers = await asked(owner, server)
        assert (await back(thief, state, answers, name)).refusal == (400, -32602)
        assert (await back(owner, state, answers, f"{server}.ask_twice")).refusal == (400, -32602)
        prompt = {"name": "old.greet", "requestState": state, "inputResponses": answers}
        assert (await owner.request("prompts/get", prompt)).refusal == (400, -32602)
        version, body, signature = state.split(".")
        other = base64.urlsafe_b64encode(b'{"park": "x", "exp": 9e9}').decode().rstrip("=")
        bad: list[Any] = [
            "", ".", "..", "1", "1..", "x", 7, [], {}, True, state + "x", state[:-1], f"2.{body}.{signature}",
            f"{version}.{other}.{signature}", f"{version}.{body}.", f"{version}.{body}", state.upper(), "\u00e9" * 40,
        ]  # fmt: skip
        for one in bad:
            assert (await back(owner, one, answers, name)).refusal == (400, -32602), one
        assert "me" in (await back(owner, state, answers, name)).text, "none of that did any harm"


async def test_a_parked_call_is_answered_once(house: House):
    async with house.client("modern") as client:
        state, answers = await asked(client)
        assert "me" in (await back(client, state, answers)).text
        assert (await back(client, state, answers)).refusal == (400, -32602)


async def test_of_two_answers_at_once_one_counts(house: House):
    async with house.client("modern") as client:
        state, answers = await asked(client)
        both = await asyncio.gather(back(client, state, answers), back(client, state, answers))
        assert sorted("result" in one.message for one in both) == [False, True]


@pytest.mark.parametrize("given", ["x", [], 7, {"k": "x"}, {"k": None}, {"k": []}])
async def test_answers_that_are_no_objects_are_refused_and_the_call_still_waits(house: House, given: Any):
    async with house.client("modern") as client:
        state, answers = await asked(client)
        bad = dict.fromkeys(answers, given["k"]) if isinstance(given, dict) else given
        assert (await back(client, state, bad)).refusal == (400, -32602)
        assert "me" in (await back(client, state, answers)).text


@pytest.mark.parametrize("server", ["old", "new"])
async def test_whoever_comes_back_without_the_answers_is_asked_again(house: House, server: str):
    async with house.client("modern") as client:
        state, answers = await asked(client, server)
        for given in ({}, {"something-else": {}}):
            again = (await back(client, state, given, f"{server}.ask")).result
            assert again["resultType"] == "input_required"
            assert again["inputRequests"].keys() == answers.keys()
            state = again["requestState"]
        assert "me" in (await back(client, state, answers, f"{server}.ask")).text


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_request_state_expires(era: str):
    async with (
        upstream(era=era) as one,
        reachable({"old": {"url": one.url}}, park_timeout=0.3) as house,
        house.client("modern") as client,
    ):
        state, answers = await asked(client)
        await asyncio.sleep(0.4)
        assert (await back(client, state, answers)).refusal == (400, -32602)
