"""The line of a request: whatever a client sent, it is the line that redaction of every field would have made."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_proxy.base.json import encode
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import configure
from mcp_proxy.telemetry.record import RequestRecord, write_request
from mcp_proxy.telemetry.redact import LIMIT, redact

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"
STAMP = "2026-11-20T10:15:00.250Z"

suspicious = st.sampled_from(
    [
        JWT, JWT.upper(), "Bearer abc", "BEARER x.y", "token=abc", "?Token=a%20b&x=1", '{"password":"hunter2"}',
        "api-key: s", "api_key=s", "sk-0123456789", "http://me:pw@host/", "authorization=Basic", "Cookie: a=b",
        "client_secret", "credential", '"', "\\", "\n", "\x00", "\x1b[2J", "\x7f", "\x9b", "\u2028", "\u202e", "\ud800",
        "é", "😀", "x" * LIMIT,
    ]
)  # fmt: skip
hostile = st.lists(st.one_of(suspicious, st.text(max_size=20)), max_size=4).map("".join)
perhaps = st.none() | hostile


class FixedClock:
    def monotonic(self) -> float:
        return 7.5

    def time(self) -> float:
        return 1795169700.25


def written(record: RequestRecord, status: int, *, bodies: bool = False, now: float = 7.5) -> str:
    stream = io.StringIO()
    write_request(configure(Settings(), stream=stream, clock=FixedClock()), record, status, now=now, bodies=bodies)
    return stream.getvalue()


def expected(record: RequestRecord, level: str, status: int, ms: float, **more: Any) -> str:
    """The general way: every field is redacted, in the order that documentation gives."""
    fields = {
        "timestamp": STAMP, "level": level, "event": "request", "request_id": record.request_id,
        "method": record.method, "path": record.path, "status_code": status, "execution_time_ms": ms,
        "remote_addr": record.remote_addr, "user_agent": record.user_agent, "principal": record.principal,
        "door": record.door, "tool": record.tool, "server": record.server, "error": record.error, **more,
    }  # fmt: skip
    return encode(redact(fields)).decode() + "\n"


@given(
    st.builds(
        RequestRecord, request_id=hostile, method=hostile, path=hostile, remote_addr=hostile, user_agent=hostile,
        started=st.just(7.25), door=hostile, principal=perhaps, tool=perhaps, server=perhaps, error=perhaps,
    )
)  # fmt: skip
@example(RequestRecord("a" * 32, "POST", "/tools", "127.0.0.1", "curl/8", 7.25))
@example(RequestRecord("a" * 32, "POST", f"/tools/{JWT}", "127.0.0.1", "curl/8", 7.25, tool="token"))
@example(RequestRecord("a" * 32, "POST", "/tools", "127.0.0.1", "x" * (LIMIT + 1), 7.25))
def test_a_hostile_value_in_any_field_makes_the_line_that_redaction_makes(record: RequestRecord) -> None:
    line = written(record, 200)
    assert line == expected(record, "info", 200, 250.0)
    assert line.count("\n") == 1


def record(**fields: Any) -> RequestRecord:
    return RequestRecord("id-1", "POST", "/mcp", "127.0.0.1", "test", 7.25, **fields)


@pytest.mark.parametrize(
    ("status", "level"), [(200, "info"), (499, "info"), (500, "error"), (502, "warning"), (504, "warning")]
)
def test_a_bug_is_an_error_and_what_fails_behind_is_a_warning(status: int, level: str) -> None:
    assert written(record(), status) == expected(record(), level, status, 250.0)


def test_the_rpc_method_and_bodies_come_last_and_bodies_only_where_they_are_wanted() -> None:
    found = record(rpc_method="tools/call", request={"password": "hunter2", "a": [JWT]}, response={"b": 1})
    rpc = {"rpc_method": "tools/call"}
    assert written(found, 200) == expected(found, "info", 200, 250.0, **rpc)
    bodies = {"request": found.request, "response": found.response}
    assert written(found, 200, bodies=True) == expected(found, "info", 200, 250.0, **rpc, **bodies)
    assert written(record(), 200, bodies=True) == expected(record(), "info", 200, 250.0)
