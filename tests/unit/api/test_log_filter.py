"""What a query or a message asks of the log, and what a token may see of it."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.api.log_filter import LEVELS, LogFilter, may_see, read_message, read_query
from mcp_proxy.base.errors import ProxyError
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.telemetry.log_feed import LogLine

LINE = LogLine(level="warning", event="request", server="calc", tool="add", principal="ada")


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_that_one_or_above(level: str) -> None:
    passing = [one for one in LEVELS if LogFilter(level=level).passes(LogLine(level=one))]
    assert passing == list(LEVELS[LEVELS.index(level) :])


@pytest.mark.parametrize("name", ["server", "tool", "principal", "event"])
def test_a_field_must_be_equal(name: str) -> None:
    assert LogFilter(**{name: getattr(LINE, name)}).passes(LINE)
    assert not LogFilter(**{name: "other"}).passes(LINE)
    assert not LogFilter(**{name: getattr(LINE, name)}).passes(LogLine(level="warning"))


def test_all_conditions_must_hold_and_none_is_content_with_everything() -> None:
    assert LogFilter("info", "calc", "add", "ada", "request").passes(LINE)
    assert not LogFilter("error", "calc", "add", "ada", "request").passes(LINE)
    assert LogFilter().passes(LINE)
    assert LogFilter().passes(LogLine(level=["odd"], server={"odd": 1}))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", (LogFilter(), 100)),
        (b"level=WARNING&last=0", (LogFilter(level="warning"), 0)),
        (b"server=a%20b&tool=%C3%A9+1&last=1000", (LogFilter(server="a b", tool="é 1"), 1000)),
        (b"principal=ada&event=request", (LogFilter(principal="ada", event="request"), 100)),
    ],
)
def test_a_query_is_read(query: bytes, found: Any) -> None:
    assert read_query(query) == found


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (b"level=loud", 400), (b"level=", 400), (b"server=", 400), (b"server=a&server=a", 400), (b"tool=%ff", 400),
        (b"tool=\xff", 400), (b"last=-1", 400), (b"last=1001", 400), (b"last=1e2", 400), (b"last=", 400),
        ("last=²".encode(), 400), (b"last=" + b"9" * 5000, 400), (b"levle=info", 422), (b"a&" * 20, 400),
    ],
)  # fmt: skip
def test_a_query_that_means_nothing_is_refused(query: bytes, status: int) -> None:
    with pytest.raises(ProxyError) as caught:
        read_query(query)
    assert caught.value.status == status


def test_a_message_is_read() -> None:
    assert read_message('{"filter": {"level": "Error", "server": "calc", "tool": null}}') == LogFilter("error", "calc")
    assert read_message('{"filter": {}}') == LogFilter()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (None, 400), ("", 400), ("{", 400), ("[]", 400), ("{}", 400), ('{"filter": null}', 400), ('{"filter": []}', 400),
        ('{"filter": {"level": "loud"}}', 400), ('{"filter": {"level": 3}}', 400), ('{"filter": {"server": ""}}', 400),
        ('{"filter": {"server": ["a"]}}', 400), ('{"filter": {"last": 5}}', 422), ('{"filter": {}, "last": 5}', 422),
        ('{"filter": {"tool": "a", "tool": "b"}}', 400), ("[" * 5000, 400),
    ],
)  # fmt: skip
def test_a_message_that_means_nothing_is_refused(text: str | None, status: int) -> None:
    with pytest.raises(ProxyError) as caught:
        read_message(text)
    assert caught.value.status == status


def test_what_was_asked_can_be_said_back() -> None:
    assert LogFilter(level="info", tool="add").as_asked() == {"level": "info", "tool": "add"}


GROUPS = {"calc-a": "calc"}
LINES = {
    "none": LogLine(event="stopping"),
    "calc-a": LogLine(server="calc-a"),
    "calc-a.add": LogLine(server="calc-a", tool="add"),
    "other": LogLine(server="other"),
    "other.add": LogLine(server="other", tool="add"),
    "add": LogLine(tool="add"),
    "odd": LogLine(server=["calc-a"], tool="add"),
}


@pytest.mark.parametrize(
    ("narrowing", "seen"),
    [
        ({}, list(LINES)),
        ({"servers": ("calc-*",)}, ["calc-a", "calc-a.add"]),
        ({"servers": ("calc",)}, ["calc-a", "calc-a.add"]),
        ({"servers": ("*",)}, ["calc-a", "calc-a.add", "other", "other.add"]),
        ({"servers": ()}, []),
        ({"tools": ("add",)}, ["calc-a.add", "other.add"]),
        ({"tools": ("calc.add",)}, ["calc-a.add"]),
        ({"servers": ("other",), "tools": ("a*",)}, ["other.add"]),
        ({"servers": ("other",), "scopes": frozenset({Scope.ADMIN})}, ["other", "other.add"]),
    ],
)
def test_a_narrowed_token_shows_only_lines_that_name_what_is_within_it(narrowing: Any, seen: list[str]) -> None:
    principal = Principal(subject="ada", **narrowing)
    assert [name for name, line in LINES.items() if may_see(principal, line, GROUPS.get)] == seen
