from __future__ import annotations

from collections import Counter

import pytest

from mcp_proxy.base import errors
from mcp_proxy.base.errors import KINDS, Kind, ProxyError

CONTRACT = {
    "bad_request": 400, "invalid_arguments": 400, "unauthorized": 401, "insufficient_scope": 403,
    "origin_not_allowed": 403, "not_found": 404, "tool_not_found": 404, "resource_not_found": 404, "server_not_found": 404,
    "method_not_allowed": 405, "not_acceptable": 406, "ambiguous_tool": 409, "conflict": 409, "request_timeout": 408, "payload_too_large": 413,
    "unsupported_media_type": 415, "unknown_host": 421, "unprocessable": 422, "input_required": 422,
    "rate_limited": 429, "internal_error": 500, "upstream_error": 502, "result_too_large": 502,
    "outcome_unknown": 502, "upstream_unavailable": 503, "overloaded": 503, "draining": 503, "timeout": 504,
    "cancelled": 499, "command_not_allowed": 403, "url_not_allowed": 422,
}  # fmt: skip


def test_the_table_has_the_statuses_of_the_contract() -> None:
    assert {kind.type: kind.status for kind in KINDS} == CONTRACT


def test_no_word_stands_twice_in_the_table() -> None:
    assert Counter(kind.type for kind in KINDS).most_common(1)[0][1] == 1


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.RESOURCE_NOT_FOUND, -32602),
        (errors.TOOL_NOT_FOUND, -32602),
        (errors.NOT_ACCEPTABLE, -32600),
        (errors.CANCELLED, -31017),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_kinds_that_clients_of_mcp_act_on_have_the_code_they_expect(kind: Kind, code: int) -> None:
    assert kind.rpc_code == code


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_our_own_codes_stay_out_of_the_range_that_json_rpc_keeps(kind: Kind) -> None:
    standard = {-32600, -32601, -32602, -32603}
    assert kind.rpc_code in standard or not -32768 <= kind.rpc_code <= -32000


def test_the_body_has_the_one_shape() -> None:
    error = ProxyError(errors.AMBIGUOUS_TOOL, "which?", details={"candidates": ["a.x"]})
    assert error.body("r1") == {
        "error": {
            "message": "which?", "code": 409, "type": "ambiguous_tool", "request_id": "r1",
            "details": {"candidates": ["a.x"]},
        }
    }  # fmt: skip


def test_without_details_the_body_has_none() -> None:
    assert "details" not in ProxyError(errors.DRAINING, "bye").body("r1")["error"]


def test_a_status_of_its_own_wins_over_the_kinds() -> None:
    error = ProxyError(errors.OUTCOME_UNKNOWN, "lost", status=504)
    assert (error.status, error.body("r")["error"]["code"]) == (504, 504)
