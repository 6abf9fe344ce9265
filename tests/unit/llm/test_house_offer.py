from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.bridge.chat import ChatRequest, Message, Role, Text, Tool
from mcp_proxy.bridge.errors import BAD_REQUEST, FORBIDDEN, ChatError
from mcp_proxy.core.auth.principal import DEFAULT_SCOPES, Principal, Scope
from mcp_proxy.llm.house_offer import MOST, check_rights, offer
from tests.unit.core.catalog.offers import catalogue, with_tools
from tests.unit.core.fakes import server, tool

ANYBODY = Principal("anybody")
CATALOG = catalogue(
    with_tools(server("calc"), tool("add", description="adds"), tool("sub", title="subtracts")),
    with_tools(server("files"), "read.file", "read.link", "write"),
    with_tools(server("s1", group="search"), "find"),
    with_tools(server("s2", group="search"), "find"),
)


def asking(*globs: str, **more: Any) -> ChatRequest:
    return ChatRequest("m", (Message(Role.USER, (Text("hello"),)),), house_tools=globs or ("*",), **more)


def offered(*globs: str, principal: Principal = ANYBODY) -> list[str]:
    return ["/".join(own) for own in offer(CATALOG, principal, asking(*globs)).own_names.values()]


def refusal(*globs: str, principal: Principal = ANYBODY) -> ChatError:
    with pytest.raises(ChatError) as refused:
        offer(CATALOG, principal, asking(*globs))
    return refused.value


def test_all_that_the_caller_sees_is_offered_once() -> None:
    everything = ["calc/add", "calc/sub", "files/read.file", "files/read.link", "files/write", "search/find"]
    assert offered() == everything
    assert offered(principal=Principal("narrow", servers=("calc",), tools=("add", "find"))) == ["calc/add"]


@pytest.mark.parametrize(
    ("globs", "tools"),
    [
        (["calc"], ["calc/add", "calc/sub"]),
        (["c*"], ["calc/add", "calc/sub"]),
        (["files/read.*", "calc/add"], ["calc/add", "files/read.file", "files/read.link"]),
        (["*/find"], ["search/find"]),
        (["s2"], ["search/find"]),
        (["calc", "nowhere"], ["calc/add", "calc/sub"]),
    ],
)
def test_globs_narrow_it_to_servers_and_tools(globs: list[str], tools: list[str]) -> None:
    assert offered(*globs) == tools


def test_globs_do_not_widen_what_the_caller_sees() -> None:
    assert offered("*", "files/*", principal=Principal("narrow", servers=("calc",))) == ["calc/add", "calc/sub"]
    assert refusal("files", principal=Principal("narrow", servers=("calc",))).problem is BAD_REQUEST


def test_to_ask_for_what_is_not_there_is_a_mistake_unless_it_is_for_all() -> None:
    error = refusal("clac")
    assert (error.problem, error.param) == (BAD_REQUEST, "mcp_tools")
    assert offer(CATALOG, Principal("narrow", servers=()), asking()).tools == ()


def test_models_are_told_what_a_tool_does_and_takes() -> None:
    add, sub = offer(CATALOG, ANYBODY, asking("calc")).tools
    assert add == Tool("calc__add", {"type": "object"}, "adds")
    assert sub == Tool("calc__sub", {"type": "object"}, "subtracts")


@pytest.mark.parametrize("schema", [None, True, {}, {"properties": {}}])
def test_what_a_tool_takes_is_always_an_object(schema: Any) -> None:
    catalog = catalogue(with_tools(server("calc"), tool("add", inputSchema=schema)))
    (add,) = offer(catalog, ANYBODY, asking()).tools
    assert add.input_schema["type"] == "object"


def test_names_of_the_callers_tools_stay_theirs() -> None:
    mine = offer(CATALOG, ANYBODY, asking("calc/add", tools=(Tool("calc__add", {}),)))
    (name,) = mine.own_names
    assert name != "calc__add"
    assert mine.meant("calc/add") == mine.meant(name) == name
    assert mine.meant("calc__add") is None


def test_more_tools_than_models_take_are_to_be_narrowed() -> None:
    catalog = catalogue(with_tools(server("big"), *(f"t{number}" for number in range(MOST + 1))))
    with pytest.raises(ChatError, match=r'129 tools .* "mcp_tools"') as refused:
        offer(catalog, ANYBODY, asking())
    assert (refused.value.problem, refused.value.param) == (BAD_REQUEST, "mcp_tools")
    assert len(offer(catalog, ANYBODY, asking("big/t1*")).tools) == 40


@pytest.mark.parametrize("scope", [Scope.TOOLS_CALL, Scope.TOOLS_READ])
def test_a_token_without_the_scope_is_told_which(scope: Scope) -> None:
    with pytest.raises(ChatError, match=scope) as refused:
        check_rights(Principal("narrow", frozenset(DEFAULT_SCOPES - {scope})))
    assert refused.value.problem is FORBIDDEN
    check_rights(ANYBODY)
