from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    InboundLadderRejection,
    classify_inbound_request,
    encode_header_value,
    validate_mcp_param_headers,
)

from mcp_proxy.base.protocol import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY_VERSIONS,
    LOG_LEVELS,
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_VERSION,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
)
from mcp_proxy.core.catalog.mirrored import headers_of
from mcp_proxy.core.upstream.client import PROXY_INFO, Client
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.gateway.envelope import (
    MAX_INTRODUCTION,
    Headers,
    Notification,
    Refusal,
    Request,
    Response,
    check_mirrored,
    check_notification,
    http_status,
    is_modern,
    read_envelope,
    read_message,
)
from mcp_proxy.gateway.head import read_head

MODERN = "2026-07-28"
META: dict[str, Any] = {META_VERSION: MODERN, META_CLIENT_CAPABILITIES: {"sampling": {}}}


def refused_message(body: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_message(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert caught.value.status == 400
    assert caught.value.data is None
    return caught.value


def mcp_headers(raw: list[tuple[bytes, bytes]]) -> Headers:
    return read_head(raw).mcp


def read(**body: Any) -> object:
    return read_message(json.dumps({"jsonrpc": "2.0", **body}).encode())


# Messages


def test_a_message_with_id_and_method_is_a_request() -> None:
    assert read(id=1, method="ping") == Request(1, "ping", {})
    assert read(id="a", method="tools/list", params={"cursor": "x"}) == Request("a", "tools/list", {"cursor": "x"})
    assert read(id=0, method="ping") == Request(0, "ping", {})
    assert read(id="", method="ping") == Request("", "ping", {})


def test_a_large_integer_as_id_keeps_its_value() -> None:
    assert read(id=2**70, method="ping") == Request(2**70, "ping", {})


def test_a_message_with_method_and_no_id_is_a_notification() -> None:
    assert read(method="notifications/initialized") == Notification("notifications/initialized", {})
    assert read(method="n", params={"a": 1}) == Notification("n", {"a": 1})


def test_a_message_with_id_and_an_outcome_is_a_response() -> None:
    assert read(id=1, result={}) == Response(1, {}, None)
    assert read(id="a", error={"code": 1, "message": "no"}) == Response("a", None, {"code": 1, "message": "no"})


def test_members_that_nobody_asked_for_are_ignored() -> None:
    assert read(id=1, method="ping", extra=True, result=None) == Request(1, "ping", {})


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"id": 1, "id": 2}', b"NaN", b'"\\ud800"', b"[" * 100_000])
def test_what_is_not_json_is_a_parse_error_without_id(data: bytes) -> None:
    refusal = refused_message(data)
    assert (refusal.code, refusal.id) == (PARSE_ERROR, None)


def test_a_parse_error_says_why_and_repeats_nothing() -> None:
    assert "not UTF-8 at byte 1" in refused_message(b"s\xff").message
    assert "secret" not in refused_message(b'{"token": secret}').message


@pytest.mark.parametrize("batch", [[], [{"jsonrpc": "2.0", "id": 1, "method": "ping"}]])
def test_batches_are_refused_by_name(batch: list[object]) -> None:
    refusal = refused_message(batch)
    assert (refusal.code, refusal.id) == (INVALID_REQUEST, None)
    assert refusal.message == "batches are not part of this protocol revision"


@pytest.mark.parametrize("body", [None, True, 1, 1.5, "ping"])
def test_what_is_no_object_is_no_message(body: object) -> None:
    refusal = refused_message(body)
    assert (refusal.code, refusal.id) == (INVALID_REQUEST, None)


@pytest.mark.parametrize("bad", [None, True, False, 1.0, 1.5, {}, {"a": 1}, [], [1]])
@pytest.mark.parametrize("rest", [{"method": "ping"}, {"result": {}}, {"error": {}}])
def test_an_id_is_a_string_or_an_integer(bad: object, rest: dict[str, object]) -> None:
    refusal = refused_message({"jsonrpc": "2.0", "id": bad, **rest})
    assert (refusal.code, refusal.id) == (INVALID_REQUEST, None)
    assert "id must be" in refusal.message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"jsonrpc": "1.0"}, "jsonrpc"),
        ({"jsonrpc": 2.0}, "jsonrpc"),
        ({"jsonrpc": None}, "jsonrpc"),
        ({"method": None}, "method"),
        ({"method": 5}, "method"),
        ({"method": ["ping"]}, "method"),
        ({"params": None}, "params"),
        ({"params": []}, "params"),
        ({"params": "a"}, "params"),
    ],
)
@pytest.mark.parametrize("id", [7, "seven"])
def test_other_faults_are_told_with_the_id(change: dict[str, object], reason: str, id: object) -> None:
    refusal = refused_message({"jsonrpc": "2.0", "id": id, "method": "ping", **change})
    assert (refusal.code, refusal.id) == (INVALID_REQUEST, id)
    assert f"{reason} must be" in refusal.message


@pytest.mark.parametrize("change", [{"method": 5}, {"params": []}, {"jsonrpc": "1.0"}])
def test_a_faulty_notification_has_no_id_to_tell(change: dict[str, object]) -> None:
    refusal = refused_message({"jsonrpc": "2.0", "method": "n", **change})
    assert (refusal.code, refusal.id) == (INVALID_REQUEST, None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "method is missing"),
        ({"id": 3}, "method is missing"),
        ({"id": 3, "params": {}}, "method is missing"),
        ({"result": {}}, "method is missing"),
        ({"id": 3, "result": {}, "error": {}}, "either a result or an error"),
        ({"id": 3, "result": None}, "must be an object"),
        ({"id": 3, "result": [1]}, "must be an object"),
        ({"id": 3, "error": "no"}, "must be an object"),
    ],
)
def test_a_message_without_method_is_a_whole_response_or_refused(body: dict[str, object], reason: str) -> None:
    refusal = refused_message({"jsonrpc": "2.0", **body})
    assert (refusal.code, refusal.id) == (INVALID_REQUEST, body.get("id"))
    assert reason in refusal.message


def test_a_message_that_does_not_say_its_version_is_refused() -> None:
    assert refused_message({"id": 1, "method": "ping"}).id == 1


def outcome(data: bytes) -> object:
    try:
        return read_message(data)
    except Refusal as refusal:
        return refusal


_scalars: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_values: st.SearchStrategy[Any] = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
_members = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | _values,
        "id": _values,
        "method": st.text() | _values,
        "params": st.dictionaries(st.text(), _values, max_size=2) | _values,
        "result": st.just({}) | _values,
        "error": st.just({}) | _values,
    },
)


@given(st.binary(max_size=60))
@example(b"\xef\xbb\xbf{}")
@example(b"1" * 5000)
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    assert isinstance(outcome(data), (Request, Notification, Response, Refusal))


@given(_members)
def test_anything_like_a_message_is_one_or_is_refused_with_its_id(body: dict[str, Any]) -> None:
    found = outcome(json.dumps(body).encode())
    id = body.get("id")
    readable = isinstance(id, (int, str)) and not isinstance(id, bool)
    if isinstance(found, Refusal):
        assert found.code == PARSE_ERROR or found.id == (id if readable else None)
    elif isinstance(found, Notification):
        assert "id" not in body
    else:
        assert isinstance(found, (Request, Response))
        assert found.id == id
        assert readable


# Which half


def call(params: dict[str, Any] | None = None, method: str = "tools/call", id: int | str = 9) -> Request:
    return Request(id, method, {"_meta": META, "name": "echo", **(params or {})})


@pytest.mark.parametrize(
    "message", [None, Request(1, "ping", {}), call(), Notification("n", {}), Response(1, {}, None)]
)
@pytest.mark.parametrize("version", LEGACY_VERSIONS)
def test_a_legacy_version_in_the_header_is_legacy_whatever_the_body(version: str, message: Any) -> None:
    assert not is_modern(Headers({"mcp-protocol-version": version}), message)


@pytest.mark.parametrize("message", [None, Request(1, "initialize", {}), call(), Notification("n", {})])
@pytest.mark.parametrize("version", [MODERN, "2099-01-01", "", "garbage", "2025-11-25, 2025-11-25"])
def test_any_other_version_in_the_header_is_modern_whatever_the_body(version: str, message: Any) -> None:
    assert is_modern(Headers({"mcp-protocol-version": version}), message)


@pytest.mark.parametrize(
    "message",
    [
        None,
        Request(1, "initialize", {"protocolVersion": MODERN}),
        Request(1, "ping", {"_meta": {"progressToken": 1}}),
        Request(1, "ping", {"_meta": [META_VERSION]}),
        Request(1, "ping", {"_meta": META_VERSION}),
        Notification("n", {"_meta": META}),
        Response(1, {"_meta": META}, None),
    ],
)
def test_without_header_and_envelope_it_is_legacy(message: Any) -> None:
    assert not is_modern(Headers({"mcp-method": "ping"}), message)


def test_an_envelope_without_header_is_modern_and_told_that_the_header_is_missing() -> None:
    request = call()
    headers = Headers({"mcp-method": "tools/call", "mcp-name": "echo"})
    assert is_modern(headers, request)
    refusal = refused(request, headers)
    assert refusal.code == HEADER_MISMATCH
    assert refusal.message == "the MCP-Protocol-Version header is missing"


def test_even_an_empty_version_in_the_envelope_is_modern() -> None:
    assert is_modern(Headers(), Request(1, "ping", {"_meta": {META_VERSION: None}}))


def test_a_repeated_version_header_is_modern_where_it_is_refused() -> None:
    headers = mcp_headers([(b"mcp-protocol-version", b"2025-11-25"), (b"mcp-protocol-version", MODERN.encode())])
    assert is_modern(headers, call())
    assert refused(call(), headers).code == HEADER_MISMATCH


# The envelope


def headers_for(method: str = "tools/call", version: str = MODERN, name: str | None = "echo") -> Headers:
    found = Headers({"mcp-protocol-version": version, "mcp-method": method})
    if name is not None:
        found["mcp-name"] = name
    return found


def refused(request: Request, headers: Headers | None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_envelope(request, headers)
    assert caught.value.id == request.id
    assert caught.value.status == http_status(caught.value.code) == 400
    return caught.value


def test_a_request_that_agrees_with_its_headers_has_an_envelope() -> None:
    info = {"name": "client", "version": "1"}
    request = call({"_meta": {**META, META_CLIENT_INFO: info, META_LOG_LEVEL: "warning"}})
    assert read_envelope(request, headers_for()) == Client(Era.MODERN, info, {"sampling": {}}, "warning")


def test_info_and_log_level_may_be_absent() -> None:
    assert read_envelope(call(), headers_for()) == Client(Era.MODERN, PROXY_INFO, {"sampling": {}})


def test_without_headers_the_body_alone_counts() -> None:
    assert read_envelope(call(), None).era is Era.MODERN


def test_who_says_the_same_of_itself_is_the_same_client() -> None:
    meta = {**META, META_CLIENT_INFO: {"name": "client"}}
    first = read_envelope(call({"_meta": {**meta, "progressToken": 1}}, id=1), headers_for())
    assert read_envelope(call({"_meta": {**meta, "progressToken": 2}}, id=2), headers_for()) is first
    for other in ({META_CLIENT_INFO: {"name": "other"}}, {META_CLIENT_CAPABILITIES: {}}, {META_LOG_LEVEL: "info"}):
        assert read_envelope(call({"_meta": {**meta, **other}}), headers_for()) != first


@pytest.mark.parametrize("more", [0, 1000, 2000])
def test_a_client_may_say_much_or_little_of_itself(more: int) -> None:
    info = {"name": "größe", "number": 2**70, "part": 0.5, "more": "x" * more}
    capabilities = {"elicitation": {"form": {}}, "experimental": {"list": [None, True, -1, "\u0001"]}}
    meta = {**META, META_CLIENT_CAPABILITIES: capabilities, META_CLIENT_INFO: info}
    assert read_envelope(call({"_meta": meta}), headers_for()) == Client(Era.MODERN, info, capabilities)


def test_what_a_client_says_of_itself_is_bounded() -> None:
    refusal = refused(call({"_meta": {**META, META_CLIENT_INFO: {"name": "x" * MAX_INTRODUCTION}}}), headers_for())
    assert (refusal.code, refusal.message) == (
        INVALID_PARAMS, f"what the client says of itself is larger than {MAX_INTRODUCTION} bytes",
    )  # fmt: skip


@pytest.mark.parametrize("headers", [None, headers_for()])
@pytest.mark.parametrize("params", [{}, {"_meta": None}, {"_meta": []}, {"_meta": "x"}])
def test_an_envelope_must_be_there(params: dict[str, Any], headers: Headers | None) -> None:
    refusal = refused(Request("id", "tools/call", params), headers)
    assert refusal.code == INVALID_PARAMS
    assert "params._meta" in refusal.message


@pytest.mark.parametrize(
    ("meta", "missing"),
    [
        ({}, [META_VERSION, META_CLIENT_CAPABILITIES]),
        ({META_VERSION: MODERN}, [META_CLIENT_CAPABILITIES]),
        ({META_CLIENT_CAPABILITIES: {}, META_CLIENT_INFO: {}}, [META_VERSION]),
    ],
)
def test_the_keys_that_are_missing_are_named(meta: dict[str, Any], missing: list[str]) -> None:
    refusal = refused(call({"_meta": meta}), headers_for())
    assert (refusal.code, refusal.data) == (INVALID_PARAMS, None)
    assert refusal.message == f"params._meta lacks {' and '.join(missing)}"


@pytest.mark.parametrize("name", ["mcp-protocol-version", "mcp-method", "mcp-name"])
def test_a_routing_header_may_stand_once_even_with_equal_values(name: str) -> None:
    raw = [(key.encode(), value.encode()) for key, value in headers_for().items()]
    headers = mcp_headers([*raw, *(pair for pair in raw if pair[0] == name.encode())])
    refusal = refused(call(), headers)
    assert refusal.code == HEADER_MISMATCH
    assert refusal.message.lower() == f"the {name} header stands more than once"


def test_other_mcp_headers_may_be_repeated() -> None:
    assert read_envelope(call(), Headers(headers_for(), frozenset({"mcp-session-id"}))).era is Era.MODERN


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (headers_for(version="2025-11-25"), "the MCP-Protocol-Version header differs from the version in params._meta"),
        (headers_for(method="tools/list"), "the Mcp-Method header differs from the message's method"),
        (headers_for(method="Tools/Call"), "the Mcp-Method header differs from the message's method"),
        (headers_for(name="Echo"), "the Mcp-Name header differs from params.name"),
        (headers_for(name="=?base64?@@?="), "the Mcp-Name header differs from params.name"),
        (headers_for(name=None), "the Mcp-Name header is missing"),
        (Headers({"mcp-protocol-version": MODERN, "mcp-name": "echo"}), "the Mcp-Method header is missing"),
        (Headers(), "the MCP-Protocol-Version header is missing"),
    ],
)
def test_headers_must_say_what_the_body_says(headers: Headers, message: str) -> None:
    refusal = refused(call(), headers)
    assert (refusal.code, refusal.message, refusal.data) == (HEADER_MISMATCH, message, None)


@pytest.mark.parametrize(
    ("method", "key"), [("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")]
)
def test_the_name_header_repeats_what_each_method_names(method: str, key: str) -> None:
    request = Request(1, method, {"_meta": META, key: "file:///a b"})
    assert read_envelope(request, headers_for(method, name="file:///a b")).era is Era.MODERN
    assert refused(request, headers_for(method, name="file:///c")).message == (
        f"the Mcp-Name header differs from params.{key}"
    )


def test_methods_that_name_nothing_need_no_name_header() -> None:
    request = Request(1, "tools/list", {"_meta": META, "name": "ignored"})
    assert read_envelope(request, headers_for("tools/list", name=None)).era is Era.MODERN
    assert read_envelope(request, headers_for("tools/list", name="other")).era is Era.MODERN


@pytest.mark.parametrize("name", [None, "echo"])
def test_a_call_that_names_nothing_is_left_to_the_method(name: str | None) -> None:
    assert read_envelope(Request(1, "tools/call", {"_meta": META}), headers_for(name=name)).era is Era.MODERN


def test_a_name_that_is_no_string_equals_no_header() -> None:
    assert refused(call({"name": 5}), headers_for(name="5")).code == HEADER_MISMATCH


@given(st.text(max_size=12))
@example("=?base64?aGk=?=")
@example(" edge ")
@example("größe")
@example("")
def test_a_name_as_the_sdk_writes_it_is_read(name: str) -> None:
    headers = headers_for(name=encode_header_value(name))
    assert read_envelope(call({"name": name}), headers).era is Era.MODERN


@pytest.mark.parametrize("version", ["2099-01-01", "", "2025-11-25"])
@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_a_revision_that_is_not_served_is_told_which_are(version: str, transport: str) -> None:
    request = call({"_meta": {**META, META_VERSION: version}})
    refusal = refused(request, headers_for(version=version) if transport == "http" else None)
    assert refusal.code == UNSUPPORTED_VERSION
    assert refusal.data == {"supported": [MODERN], "requested": version}


@pytest.mark.parametrize("version", [None, 20260728, ["2026-07-28"], {}])
def test_a_version_that_is_no_string_is_a_mismatch_or_without_headers_a_wrong_shape(version: object) -> None:
    request = call({"_meta": {**META, META_VERSION: version}})
    assert refused(request, headers_for()).code == HEADER_MISMATCH
    assert refused(request, Headers()).code == HEADER_MISMATCH
    assert refused(request, None).code == INVALID_PARAMS


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
@pytest.mark.parametrize("key", [META_CLIENT_CAPABILITIES, META_CLIENT_INFO])
def test_capabilities_and_info_are_objects(key: str, value: object) -> None:
    refusal = refused(call({"_meta": {**META, key: value}}), headers_for())
    assert (refusal.code, refusal.message) == (INVALID_PARAMS, f"{key} must be an object")


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_every_log_level_is_accepted(level: str) -> None:
    assert read_envelope(call({"_meta": {**META, META_LOG_LEVEL: level}}), headers_for()).log_level == level


@pytest.mark.parametrize("level", [None, "", "warn", "DEBUG", 3, ["debug"], {}])
def test_what_is_no_log_level_is_refused(level: object) -> None:
    refusal = refused(call({"_meta": {**META, META_LOG_LEVEL: level}}), headers_for())
    assert refusal.code == INVALID_PARAMS
    assert refusal.message.startswith(f"{META_LOG_LEVEL} must be one of debug, ")


def test_the_rungs_come_in_the_order_of_the_specification() -> None:
    """Everything is wrong at first; each step mends what was told, and hears of the next."""
    meta: dict[str, Any] = {}
    headers = Headers({"mcp-protocol-version": "2026-01-01"}, frozenset({"mcp-method"}))
    request = Request(1, "tools/call", {"name": "echo"})
    told = []
    mend = [
        lambda: setattr(headers, "repeated", frozenset()),
        lambda: request.params.update(_meta=meta),
        lambda: meta.update({META_VERSION: "2099-01-01"}),
        lambda: meta.update({META_CLIENT_CAPABILITIES: 1, META_CLIENT_INFO: 1, META_LOG_LEVEL: 1}),
        lambda: headers.update({"mcp-protocol-version": "2099-01-01"}),
        lambda: headers.update({"mcp-method": "tools/call"}),
        lambda: headers.update({"mcp-name": "echo"}),
        lambda: (meta.update({META_VERSION: MODERN}), headers.update({"mcp-protocol-version": MODERN})),
        lambda: meta.update({META_CLIENT_CAPABILITIES: {}}),
        lambda: meta.update({META_CLIENT_INFO: {}}),
        lambda: meta.update({META_LOG_LEVEL: "info"}),
    ]
    for step in mend:
        refusal = refused(request, headers)
        told.append((refusal.code, refusal.message.split(" must ")[0]))
        step()
    assert told == [
        (HEADER_MISMATCH, "the Mcp-Method header stands more than once"),
        (INVALID_PARAMS, "params._meta"),
        (INVALID_PARAMS, f"params._meta lacks {META_VERSION} and {META_CLIENT_CAPABILITIES}"),
        (INVALID_PARAMS, f"params._meta lacks {META_CLIENT_CAPABILITIES}"),
        (HEADER_MISMATCH, "the MCP-Protocol-Version header differs from the version in params._meta"),
        (HEADER_MISMATCH, "the Mcp-Method header is missing"),
        (HEADER_MISMATCH, "the Mcp-Name header is missing"),
        (UNSUPPORTED_VERSION, "this protocol revision is not supported"),
        (INVALID_PARAMS, META_CLIENT_CAPABILITIES),
        (INVALID_PARAMS, META_CLIENT_INFO),
        (INVALID_PARAMS, META_LOG_LEVEL),
    ]
    assert read_envelope(request, headers) == Client(Era.MODERN, PROXY_INFO, {}, "info")


_versions = st.sampled_from([MODERN, "2025-11-25", "2099-01-01", "", None, 5])
_metas = st.none() | st.fixed_dictionaries(
    {}, optional={META_VERSION: _versions, META_CLIENT_CAPABILITIES: st.just({}), META_CLIENT_INFO: st.just({})}
)
_names = st.sampled_from(["echo", "=?base64?ZWNobw==?=", "=?base64?@?=", "other", ""])
_routing = st.fixed_dictionaries(
    {},
    optional={
        "mcp-protocol-version": st.sampled_from([MODERN, "2025-11-25", "2099-01-01", ""]),
        "mcp-method": st.sampled_from(["tools/call", "tools/list"]),
        "mcp-name": _names,
    },
)


@given(_metas, st.sampled_from(["tools/call", "tools/list"]), st.none() | _names, st.none() | _routing)
def test_requests_are_refused_with_the_code_and_data_of_the_sdk(
    meta: dict[str, Any] | None, method: str, name: str | None, given: dict[str, str] | None
) -> None:
    params = {"_meta": meta, "name": name}
    theirs = classify_inbound_request({"method": method, "params": params}, headers=given)
    headers = None if given is None else Headers(given)
    if isinstance(theirs, InboundLadderRejection):
        refusal = refused(Request(1, method, params), headers)
        assert (refusal.code, refusal.data) == (theirs.code, theirs.data)
    else:
        assert theirs.protocol_version == MODERN
        assert read_envelope(Request(1, method, params), headers).era is Era.MODERN


# Notifications


def test_a_notification_of_a_served_revision_passes_without_envelope() -> None:
    check_notification(Headers({"mcp-protocol-version": MODERN}))


def test_a_notification_of_an_unknown_revision_is_told_which_are_served() -> None:
    with pytest.raises(Refusal) as caught:
        check_notification(Headers({"mcp-protocol-version": "2099-01-01"}))
    assert (caught.value.code, caught.value.id) == (UNSUPPORTED_VERSION, None)
    assert caught.value.data == {"supported": [MODERN], "requested": "2099-01-01"}


def test_a_notification_with_two_versions_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        check_notification(Headers({"mcp-protocol-version": MODERN}, frozenset({"mcp-protocol-version"})))
    assert (caught.value.code, caught.value.id) == (HEADER_MISMATCH, None)


# Mirrored arguments

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        "where": {"type": "object", "properties": {"zone": {"type": "string", "x-mcp-header": "Zone"}}},
        "free": {"type": "string"},
    },
}
TOOL_HEADERS = headers_of(SCHEMA)


def mirrored(arguments: dict[str, Any], headers: dict[str, str], repeated: frozenset[str] = frozenset()) -> str | None:
    """What is told when a call with these arguments and ``Mcp-Param-*`` headers is checked; None: it passes."""
    named = Headers({f"mcp-param-{name}": value for name, value in headers.items()}, repeated)
    try:
        check_mirrored("call-1", TOOL_HEADERS, SCHEMA, arguments, named)
    except Refusal as refusal:
        told = refusal
    else:
        return None
    assert (told.code, told.id, told.status) == (HEADER_MISMATCH, "call-1", 400)
    return told.message


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({}, {}),
        ({"free": "x"}, {}),
        ({"free": "x"}, {"free": "y"}),  # not a header of this tool
        ({"region": "eu"}, {"region": "eu"}),
        ({"region": ""}, {"region": ""}),
        ({"dry": True}, {"dry": "true"}),
        ({"dry": False}, {"dry": "false"}),
        ({"where": {"zone": "a"}}, {"zone": "a"}),
        ({"region": "eu", "count": 3, "dry": True, "where": {"zone": "z"}},
         {"region": "eu", "count": "3", "dry": "true", "zone": "z"}),
    ],
)  # fmt: skip
def test_arguments_and_headers_that_agree_pass(arguments: dict[str, Any], headers: dict[str, str]) -> None:
    assert mirrored(arguments, headers) is None


@pytest.mark.parametrize(
    ("arguments", "headers", "message"),
    [
        ({"region": "eu"}, {}, "the Mcp-Param-Region header is missing (argument region)"),
        ({"region": ""}, {}, "the Mcp-Param-Region header is missing (argument region)"),
        ({"region": "eu"}, {"region": "us"}, "the Mcp-Param-Region header differs from its argument (argument region)"),
        ({"region": "eu"}, {"region": "EU"}, "the Mcp-Param-Region header differs from its argument (argument region)"),
        ({"dry": True}, {"dry": "True"}, "the Mcp-Param-Dry header differs from its argument (argument dry)"),
        ({"dry": True}, {"dry": "1"}, "the Mcp-Param-Dry header differs from its argument (argument dry)"),
        ({}, {"region": "eu"}, "the Mcp-Param-Region header is there without its argument (argument region)"),
        ({"where": {}}, {"zone": "a"}, "the Mcp-Param-Zone header is there without its argument (argument where.zone)"),
        ({"where": 3}, {"zone": "a"}, "the Mcp-Param-Zone header is there without its argument (argument where.zone)"),
        ({"where": {"zone": "a"}}, {}, "the Mcp-Param-Zone header is missing (argument where.zone)"),
    ],
)
def test_arguments_and_headers_that_disagree_do_not(
    arguments: dict[str, Any], headers: dict[str, str], message: str
) -> None:
    assert mirrored(arguments, headers) == message


def test_a_null_argument_counts_as_absent() -> None:
    assert mirrored({"region": None}, {}) is None
    assert "without its argument" in (mirrored({"region": None}, {"region": "null"}) or "")
    assert "without its argument" in (mirrored({"region": None}, {"region": ""}) or "")


@pytest.mark.parametrize("value", [{}, [], ["eu"], {"a": 1}])
def test_an_argument_that_no_header_can_carry_has_none(value: object) -> None:
    assert mirrored({"region": value}, {}) is None
    assert "without its argument" in (mirrored({"region": value}, {"region": "eu"}) or "")


@pytest.mark.parametrize(
    ("value", "header"),
    [
        (42, "42"),
        (42, "42.0"),
        (42, "42.000"),
        (42.0, "42"),
        (42.0, "42.0"),
        (-7, "-7.0"),
        (7, "007"),
        (0, "-0"),
        ("42", "42"),
        (42.5, "42.5"),  # not valid by the schema, but the same
        (2**53 + 1, str(2**53 + 1)),
        (2**53 + 1, f"{2**53 + 1}.0"),
        (10**40, str(10**40)),
    ],
)
def test_integers_are_compared_as_numbers(value: object, header: str) -> None:
    assert mirrored({"count": value}, {"count": header}) is None


@pytest.mark.parametrize(
    ("value", "header"),
    [
        (42, "43"),
        (42, "42.5"),
        (42, "42."),
        (42, "4.2e1"),
        (42, "+42"),
        (42, " 42"),
        (42, "0x2a"),
        (42, "٤٢"),
        (42, ""),
        (42, "9" * 10_000),
        ("42", "42.0"),
        (42.5, "42"),
        (True, "1"),
        (2**53 + 1, str(2**53)),
        (1, "=?base64?Mg==?="),
    ],
)
def test_what_is_another_number_or_no_plain_one_differs(value: object, header: str) -> None:
    assert "differs" in (mirrored({"count": value}, {"count": header}) or "")


def test_only_properties_declared_as_integers_are_compared_as_numbers() -> None:
    assert mirrored({"region": 42}, {"region": "42"}) is None
    assert "differs" in (mirrored({"region": 42}, {"region": "42.0"}) or "")


@pytest.mark.parametrize("value", ["größe", " edge ", "line\nbreak", "", "=?base64?aGk=?=", "plain"])
def test_a_value_in_base64_is_the_value(value: str) -> None:
    wrapped = f"=?base64?{base64.b64encode(value.encode()).decode()}?="
    assert mirrored({"region": value}, {"region": wrapped}) is None
    assert "differs" in (mirrored({"region": value + "x"}, {"region": wrapped}) or "")


def test_an_integer_in_base64_is_still_a_number() -> None:
    assert mirrored({"count": 42}, {"count": "=?base64?NDIuMA==?="}) is None


@pytest.mark.parametrize(
    "payload",
    ["@@", "a", "aGk", "aGl=", "aG k=", "/w==", "größe"],
    ids=["alphabet", "length", "padding", "trailing bits", "space", "not UTF-8", "not ASCII"],
)
def test_base64_that_is_not_canonical_matches_nothing(payload: str) -> None:
    assert "not valid base64" in (mirrored({"region": "hi"}, {"region": f"=?base64?{payload}?="}) or "")


@pytest.mark.parametrize("value", ["=?base64?aGk=", "=?BASE64?aGk=?=", "x=?base64?aGk=?=", "=?base64?="])
def test_what_only_resembles_the_wrapping_is_taken_as_it_stands(value: str) -> None:
    assert mirrored({"region": value}, {"region": value}) is None


def test_a_repeated_header_is_refused_only_where_the_tool_has_it() -> None:
    message = mirrored({"region": "eu"}, {"region": "eu"}, frozenset({"mcp-param-region"}))
    assert message == "the Mcp-Param-Region header stands more than once (argument region)"
    assert mirrored({"region": "eu"}, {"region": "eu", "other": "1"}, frozenset({"mcp-param-other"})) is None


def test_refusals_repeat_no_argument() -> None:
    assert "s3cret" not in (mirrored({"region": "s3cret"}, {"region": "s3cret-too"}) or "s3cret")


def test_a_tool_without_headers_accepts_any() -> None:
    check_mirrored(1, {}, {}, {"region": "eu"}, Headers({"mcp-param-region": "us"}))


_arguments = st.dictionaries(st.sampled_from(["region", "count", "dry", "where"]), _values, max_size=4)


_forms = st.text(max_size=8) | st.sampled_from(["1", "0", "-1.0", "true", "false", "0.5", "=?base64?MQ==?="])


@given(_arguments, st.dictionaries(st.sampled_from(["region", "count", "dry", "zone"]), _forms))
@example({"count": 1.0}, {"count": "1"})
@example({"where": {"zone": "1"}}, {"zone": "=?base64?MQ==?="})
def test_arguments_and_headers_are_judged_as_the_sdk_does(arguments: dict[str, Any], headers: dict[str, str]) -> None:
    named = {f"mcp-param-{name}": value for name, value in headers.items()}
    theirs = validate_mcp_param_headers(SCHEMA, arguments, named)
    assert (mirrored(arguments, headers) is None) == (theirs is None)


# Statuses


def test_codes_have_the_statuses_that_the_sdk_gives_them() -> None:
    assert {code: http_status(code) for code in ERROR_CODE_HTTP_STATUS} == dict(ERROR_CODE_HTTP_STATUS)


@pytest.mark.parametrize("code", [INTERNAL_ERROR, -32000, -31001, 0])
def test_codes_without_a_status_go_with_200(code: int) -> None:
    assert http_status(code) == 200
