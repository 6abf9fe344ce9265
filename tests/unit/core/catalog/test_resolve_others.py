"""Prompts and resources: what differs from tools, and that the rest does not."""

from __future__ import annotations

import pytest

from mcp_proxy.base.errors import AMBIGUOUS_TOOL, SERVER_NOT_FOUND, TOOL_NOT_FOUND, ProxyError
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.offer import Offer
from mcp_proxy.core.catalog.resolve import Owners, resolve_prompt, resolve_resource, resolve_tool
from tests.unit.core.catalog.offers import catalogue, prompt, with_prompts, with_resources
from tests.unit.core.fakes import server, tool

ANYBODY = Principal("anybody")

# Prompts

A, B = server("a"), server("b")
M1, M2 = server("m1", group="g"), server("m2", group="g")
PROMPTS = catalogue(
    with_prompts(A, "ask"), with_prompts(B, "ask", "tell"), with_prompts(M1, "say"), with_prompts(M2, "say")
)
PROMPT_SERVERS = {spec.name: spec for spec in (A, B, M1, M2)}


@pytest.mark.parametrize(
    ("name", "at", "where"),
    [
        ("tell", None, ["b"]),
        ("b.ask", None, ["b"]),
        ("b__ask", None, ["b"]),
        ("ask", "b", ["b"]),
        ("g.say", None, ["m1", "m2"]),
        ("m2.say", None, ["m2", "m1"]),
        ("say", "g", ["m1", "m2"]),
    ],
)
def test_prompts_are_found_as_tools_are(name: str, at: str | None, where: list[str]) -> None:
    target = resolve_prompt(PROMPTS, PROMPT_SERVERS, ANYBODY, name, at)
    assert [entry.server for entry in target.entries] == where
    assert target.name == target.entries[0].item.name


def test_what_is_no_prompt_is_said_to_be_none() -> None:
    with pytest.raises(ProxyError, match="no prompt called 'nothing'; prompts/list lists them") as raised:
        resolve_prompt(PROMPTS, PROMPT_SERVERS, ANYBODY, "nothing")
    assert raised.value.kind is TOOL_NOT_FOUND
    with pytest.raises(ProxyError, match="a has no prompt called 'tell'"):
        resolve_prompt(PROMPTS, PROMPT_SERVERS, ANYBODY, "tell", "a")


def test_an_ambiguous_prompt_is_said_to_be_one() -> None:
    with pytest.raises(ProxyError, match="several servers have a prompt called 'ask'") as raised:
        resolve_prompt(PROMPTS, PROMPT_SERVERS, ANYBODY, "ask")
    assert raised.value.kind is AMBIGUOUS_TOOL
    assert raised.value.details == {"candidates": ["a.ask", "b.ask"], "servers": ["a", "b"]}


def test_under_never_the_listed_prompt_is_the_first_servers() -> None:
    catalog = catalogue(with_prompts(A, "ask"), with_prompts(B, "ask"), naming="never")
    assert resolve_prompt(catalog, PROMPT_SERVERS, ANYBODY, "ask", shown=True).entries[0].server == "a"


def test_a_tool_is_no_prompt_and_a_prompt_no_tool() -> None:
    catalog = catalogue((A, Offer((tool("do"),), (prompt("ask"),))))
    with pytest.raises(ProxyError, match="no prompt called 'do'"):
        resolve_prompt(catalog, PROMPT_SERVERS, ANYBODY, "do")
    with pytest.raises(ProxyError, match="no tool called 'ask'"):
        resolve_tool(catalog, PROMPT_SERVERS, ANYBODY, "ask")


def test_a_prompt_out_of_the_tokens_reach_does_not_exist() -> None:
    with pytest.raises(ProxyError) as raised:
        resolve_prompt(PROMPTS, PROMPT_SERVERS, Principal("narrow", servers=("a",)), "tell")
    assert raised.value.kind is TOOL_NOT_FOUND


# Resources

SPECS = {spec.name: spec for spec in (A, M1, B, M2)}
RESOURCES = catalogue(
    with_resources(A, "x://a", "y://{n}", "z://{n}"),
    with_resources(M1, "x://g", "x://all", "y://{n}"),
    with_resources(B, "x://all", "x://b"),
    with_resources(M2, "x://g", "x://all", "y://{n}", "w://{n}"),
)


def owners(uri: str, at: str | None = None, principal: Principal = ANYBODY) -> tuple[list[str], bool]:
    found = resolve_resource(RESOURCES, SPECS, principal, uri, at)
    return [spec.name for spec in found.specs], found.listed


@pytest.mark.parametrize(
    ("uri", "at", "expected"),
    [
        ("x://b", None, (["b"], True)),
        ("x://g", None, (["m1", "m2"], True)),
        ("x://all", None, (["m1", "m2", "b"], True)),
        ("x://all", "g", (["m1", "m2"], True)),
        ("x://all", "m2", (["m2", "m1"], True)),
        ("x://all", "b", (["b"], True)),
        ("x://all", "http://b.test/mcp", (["b"], True)),
        ("x://all", "a", ([], False)),
        ("z://1", None, (["a"], False)),
        ("y://1", None, (["a", "m1", "m2"], False)),
        ("y://1", "g", (["m1", "m2"], False)),
        ("w://1", "m1", (["m2"], False)),
        ("y://1/2", None, ([], False)),
        ("x://nothing", None, ([], False)),
        ("", None, ([], False)),
    ],
)
def test_a_uri_is_asked_for_at_those_that_list_it_or_else_have_a_template(
    uri: str, at: str | None, expected: tuple[list[str], bool]
) -> None:
    assert owners(uri, at) == expected


def test_a_listed_uri_is_never_asked_for_at_servers_with_a_template_only() -> None:
    catalog = catalogue(with_resources(A, "x://{n}"), with_resources(B, "x://1"))
    assert resolve_resource(catalog, SPECS, ANYBODY, "x://1") == Owners((B,), listed=True)
    assert resolve_resource(catalog, SPECS, ANYBODY, "x://1", "a") == Owners((A,), listed=False)


def test_a_server_with_two_templates_that_fit_is_asked_once() -> None:
    catalog = catalogue(with_resources(A, "x://{n}", "x://{+n}"))
    assert resolve_resource(catalog, SPECS, ANYBODY, "x://1") == Owners((A,))


def test_only_servers_in_sight_are_asked() -> None:
    assert owners("x://all", None, Principal("narrow", servers=("b",))) == (["b"], True)
    assert owners("x://g", None, Principal("narrow", servers=("m2",))) == (["m2"], True)
    assert owners("y://1", None, Principal("narrow", servers=("g",))) == (["m1", "m2"], False)
    assert owners("x://a", None, Principal("narrow", servers=("b",))) == ([], False)
    assert owners("x://b", None, Principal("narrow", tools=("b.x://a",))) == ([], False)
    assert owners("z://1", None, Principal("narrow", tools=("z:*",))) == (["a"], False)


def test_a_named_server_that_does_not_exist_or_is_out_of_reach_is_unknown() -> None:
    for at, principal in (("nobody", ANYBODY), ("a", Principal("narrow", servers=("b",)))):
        with pytest.raises(ProxyError) as raised:
            owners("x://a", at, principal)
        assert raised.value.kind is SERVER_NOT_FOUND
