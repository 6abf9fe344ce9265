from __future__ import annotations

from mcp_proxy.core.audit import AuditEvent, LogAudit
from tests.unit.core.fakes import RecordingLog


def event(outcome: str, server: str | None = "calc") -> AuditEvent:
    return AuditEvent("r1", "ann", "rest", "add", server, outcome, 2, 0.0123456)


def test_each_call_is_one_line_for_those_who_look_closely() -> None:
    log = RecordingLog()
    LogAudit(log).record(event("ok"))
    [(level, name, fields)] = log.lines
    assert (level, name) == ("debug", "tool_call")
    assert fields == {
        "request_id": "r1", "principal": "ann", "door": "rest", "rpc_method": "tools/call", "tool": "add",
        "server": "calc", "outcome": "ok", "attempts": 2, "execution_time_ms": 12.35,
    }  # fmt: skip
