from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.base.json import JsonError
from mcp_proxy.core.upstream import messages
from mcp_proxy.core.upstream.messages import Incoming, Reply, read


def reply(data: bytes) -> Reply:
    message = read(data)
    assert isinstance(message, Reply)
    return message


def incoming(data: bytes) -> Incoming:
    message = read(data)
    assert isinstance(message, Incoming)
    return message


def test_a_result_keeps_its_bytes() -> None:
    message = reply(b'{"jsonrpc":"2.0","id":1,"result":{ "a" : 1.50, "b" : { "c" :12345678901234567890123 } }}')
    assert message.id == 1
    assert message.result is not None
    assert {name: bytes(value).strip() for name, value in message.result.items()} == {
        "a": b"1.50",
        "b": b'{ "c" :12345678901234567890123 }',
    }
    assert message.error is None


@pytest.mark.parametrize("result", ["[]", '"text"', "1", "true"])
def test_a_result_that_is_no_object_is_no_answer(result: str) -> None:
    with pytest.raises(JsonError):
        read(f'{{"jsonrpc":"2.0","id":1,"result":{result}}}'.encode())


def test_an_error_is_read_with_its_data() -> None:
    message = reply(b'{"jsonrpc":"2.0","id":"x","error":{"code":-32000,"message":"no","data":{"a":1}}}')
    assert (message.id, message.result) == ("x", None)
    assert message.error is not None
    assert (message.error.code, message.error.message, message.error.data) == (-32000, "no", {"a": 1})


@pytest.mark.parametrize("other", ['"error":null', '"method":null'])
def test_fields_that_are_null_do_not_count(other: str) -> None:
    assert reply(b'{"jsonrpc":"2.0","id":1,"result":{},%s}' % other.encode()).result is not None


def test_a_null_result_beside_an_error_does_not_hide_it() -> None:
    assert reply(b'{"jsonrpc":"2.0","id":1,"result":null,"error":{"code":1,"message":"m"}}').error is not None


def test_requests_and_notifications_are_told_apart_by_their_id() -> None:
    assert incoming(b'{"jsonrpc":"2.0","id":5,"method":"ping"}') == Incoming("ping", None, 5)
    notice = incoming(b'{"jsonrpc":"2.0","method":"n","params":{"a":1}}')
    assert notice.id is None
    assert notice.params is not None
    assert bytes(notice.params) == b'{"a":1}'


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"1", b'"text"', b"garbage", b"{}",
        b'{"id":1,"result":{}}',
        b'{"jsonrpc":"1.0","id":1,"result":{}}',
        b'{"jsonrpc":2.0,"id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":true,"result":{}}',
        b'{"jsonrpc":"2.0","id":1.5,"result":{}}',
        b'{"jsonrpc":"2.0","id":{},"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"method":7}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\x01"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}',
        b'{"jsonrpc":"2.0","id":1,"result":{}} {}',
        b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"jsonrpc":"2.0","id":1,"error":"no"}',
        b'{"jsonrpc":"2.0","id":1,"error":{}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":"m"}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":2}}',
        b'[{"jsonrpc":"2.0","id":1,"result":{}}]',
    ],
)  # fmt: skip
def test_anything_else_is_no_message(data: bytes) -> None:
    with pytest.raises(JsonError):
        read(data)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_json_error(data: bytes) -> None:
    try:
        read(data)
    except JsonError:
        return


@given(st.integers(0, 2**53), st.text(min_size=1), st.dictionaries(st.text(), st.text()) | st.none())
def test_what_we_write_is_one_line_and_reads_back(number: int, method: str, params: dict[str, Any] | None) -> None:
    data = messages.request(number, method, params)
    assert b"\n" not in data
    assert b"\r" not in data
    expected = {"jsonrpc": "2.0", "id": number, "method": method} | ({} if params is None else {"params": params})
    assert json.loads(data) == expected
    assert incoming(data).id == number
    assert incoming(messages.notification(method, params)).id is None


def test_our_answers_to_an_upstream_carry_its_id() -> None:
    assert reply(messages.answer("q", {"a": 1})).id == "q"
    refused = reply(messages.refusal(3, -32601, "no"))
    assert refused.id == 3
    assert refused.error is not None
    assert refused.error.code == -32601
