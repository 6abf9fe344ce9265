"""Errors as clients of MCP read them."""

from __future__ import annotations

import json

import pytest

from mcp_proxy.base.errors import SERVER_NOT_FOUND, ProxyError
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.gateway import wording


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("there is no tool called 'x'; GET /tools/list lists them", "there is no tool called 'x'; tools/list lists them"),
        ("there is no server called 'x'; GET /servers lists them", "there is no server called 'x'"),
        ("x is disabled; POST /api/instances/x/enable switches it on", "x is disabled"),
        ("there is no prompt called 'x'; prompts/list lists them", "there is no prompt called 'x'; prompts/list lists them"),
        ("x has no tool called 'a; GET /b lists c'", "x has no tool called 'a; GET /b lists c'"),
        ("x has no tool called 'a; GET /b c'; GET /tools/list lists them", "x has no tool called 'a; GET /b c'; tools/list lists them"),
        ("x: HTTP 404 from GET /mcp here", "x: HTTP 404 from GET /mcp here"),
    ],
)  # fmt: skip
def test_addresses_of_the_rest_door_become_methods_or_are_left_out(message: str, said: str) -> None:
    failure = ProxyError(SERVER_NOT_FOUND, message)
    assert wording.said(failure) == said
    error = json.loads(wording.error(1, failure, Era.MODERN, "trace").body)["error"]
    failed = json.loads(wording.tool_failure(1, failure, Era.LEGACY).body)["result"]
    assert (error["message"], failed["content"][0]["text"]) == (said, said)
    assert failure.body("trace")["error"]["message"] == message
