from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.core.catalog.item import Prompt
from tests.unit.core.catalog.offers import prompt, resource, template


def test_the_digest_is_that_of_the_definition_whatever_the_order_of_its_keys() -> None:
    one = Prompt({"name": "p", "arguments": [{"name": "a", "required": True}]})
    assert one.digest == Prompt({"arguments": [{"required": True, "name": "a"}], "name": "p"}).digest
    assert one.digest != prompt("p").digest


def test_a_resource_is_called_by_its_uri() -> None:
    assert (resource("x://1").name, resource("x://1").uri) == ("x://1", "x://1")
    assert repr(resource("x://1")) == "<Resource x://1>"


# Templates. The pairs are from RFC 6570, section 3.2 and 1.2, where not said otherwise.


@pytest.mark.parametrize(
    ("uri_template", "uri"),
    [
        ("{var}", "value"),
        ("{hello}", "Hello%20World%21"),
        ("map?{x,y}", "map?1024,768"),
        ("{x,hello,y}", "1024,Hello%20World%21,768"),
        ("{+hello}", "Hello%20World!"),
        ("{+path}/here", "/foo/bar/here"),
        ("here?ref={+path}", "here?ref=/foo/bar"),
        ("{+x,hello,y}", "1024,Hello%20World!,768"),
        ("{+path,x}/here", "/foo/bar,1024/here"),
        ("X{#var}", "X#value"),
        ("{#path,x}/here", "#/foo/bar,1024/here"),
        ("foo{#empty}", "foo#"),
        ("foo{#undef}", "foo"),
        ("X{.var}", "X.value"),
        ("X{.x,y}", "X.1024.768"),
        ("X{.undef}", "X"),
        ("{/var}", "/value"),
        ("{/var,x}/here", "/value/1024/here"),
        ("{/x,empty}", "/1024/"),
        ("{;x,y}", ";x=1024;y=768"),
        ("{;x,y,empty}", ";x=1024;y=768;empty"),
        ("{;x,y,undef}", ";x=1024;y=768"),
        ("{?x,y}", "?x=1024&y=768"),
        ("{?x,y,empty}", "?x=1024&y=768&empty="),
        ("{?x,y,undef}", "?x=1024&y=768"),
        ("?fixed=yes{&x}", "?fixed=yes&x=1024"),
        ("{&x,y,empty}", "&x=1024&y=768&empty="),
        ("{var:3}", "val"),
        ("{var:30}", "value"),
        ("{list*}", "red,green,blue"),
        ("{keys*}", "semi=%3B,dot=.,comma=%2C"),
        ("{+path:6}here", "/foo/bhere"),
        ("{+keys*}", "semi=;,dot=.,comma=,"),
        ("{#path:6}here", "#/foo/bhere"),
        ("{#keys*}", "#semi=;,dot=.,comma=,"),
        ("X{.var:3}", "X.val"),
        ("X{.list}", "X.red,green,blue"),
        ("X{.list*}", "X.red.green.blue"),
        ("X{.keys*}", "X.semi=%3B.dot=..comma=%2C"),
        ("{/var:1,var}", "/v/value"),
        ("{/list*,path:4}", "/red/green/blue/%2Ffoo"),
        ("{/keys}", "/semi,%3B,dot,.,comma,%2C"),
        ("{/keys*}", "/semi=%3B/dot=./comma=%2C"),
        ("{;hello:5}", ";hello=Hello"),
        ("{;list*}", ";list=red;list=green;list=blue"),
        ("{;keys*}", ";semi=%3B;dot=.;comma=%2C"),
        ("{?var:3}", "?var=val"),
        ("{?list*}", "?list=red&list=green&list=blue"),
        ("{?keys*}", "?semi=%3B&dot=.&comma=%2C"),
        ("{&keys*}", "&semi=%3B&dot=.&comma=%2C"),
        ("up{+path}{var}/here", "up/foo/barvalue/here"),
        ("{semi:2}", "%3B"),
        # Not from the RFC: other ways to write the same.
        ("search{?q,lang}", "search"),
        ("search{?q,lang}", "search?lang=en"),
        ("search{?q,lang}", "search?lang=en&q=x"),
        ("{a.b,%41c}", "1,2"),
        ("{a:9999}{/b:9999}{+c:9999}", "1/2/3"),
        ("{?" + ",".join(f"p{n}:100" for n in range(200)) + "}", "?p7=1&p199=2"),
        ("{" + ",".join(f"p{n}" for n in range(100)) + "}", ",".join("x" * 100)),
        ("{?a.b}", "?a.b=1"),
        ("{var:3}", "%E2%82%AC%C3%A9a"),
        ("é/{x}", "é/1"),
        ("é/{x}", "%c3%a9/1"),
        ("%C3%A9/{x}", "%c3%a9/1"),
        ("it's/{x}", "it's/1"),
        ("x://no/variables", "x://no/variables"),
    ],
)
def test_a_template_matches_what_it_expands_to(uri_template: str, uri: str) -> None:
    assert template(uri_template).matches(uri)


@pytest.mark.parametrize(
    ("uri_template", "uri"),
    [
        ("x://{a}", "x://a/b"),
        ("x://{a}", "x://"),
        ("x://{a}", "x://a?b"),
        ("x://{a}", "x://a#b"),
        ("x://{a}", "x://a,b"),
        ("x://{a}", "X://a"),
        ("x://{a}", "x://a\n"),
        ("x://{a}", "y://x://a"),
        ("x://{a}", "x://é"),
        ("x://{a}", "x://%zz"),
        ("x://{a}", "x://\ud800"),
        ("x://{+a}", "x://"),
        ("x://{+a}", "x://a b"),
        ("{a}.txt", "a_txt"),
        ("{a:3}", "abcd"),
        ("{a:3}", "%E2%82%AC%C3%A9ab"),
        ("{a,b}", "1,2,3"),
        ("{?q}", "?other=1"),
        ("{?q}", "q=1"),
        ("{&q}", "?q=1"),
        ("x{/a}", "xa"),
        ("x://no/variables", "x://no/variables/"),
    ],
)
def test_a_template_matches_nothing_else(uri_template: str, uri: str) -> None:
    assert not template(uri_template).matches(uri)


@pytest.mark.parametrize(
    "invalid",
    [
        "{", "}", "{}", "{a", "a}", "{{a}}", "{a,}", "{,a}", "{a b}", "{a-b}", "{.}", "{a..b}", "{é}",
        "{=a}", "{!a}", "{@a}", "{|a}", "{a:0}", "{a:10000}", "{a:}", "{a*:3}", "{a:3*}", "{a**}",
        "a b", "a\tb", 'a"b', "a<b>", "a\\b", "a^b", "a`b", "a|b", "%", "%zz", "\ud800", "x" * 5000,
    ],
)  # fmt: skip
def test_a_template_that_is_not_valid_matches_nothing_not_even_itself(invalid: str) -> None:
    odd = template(invalid)
    for uri in (invalid, "a", "x", "1", "?a=1", ""):
        assert not odd.matches(uri)


@pytest.mark.parametrize("uri_template", ["{a}" * 300, "{+a}/" * 100, "{+a*}{a*}{#a*}" * 5, "{.a,b,c}{/a}{.b}" * 5])
@pytest.mark.parametrize("uri", ["a" * 20_000 + "|", "/a" * 10_000 + "|", "." * 20_000 + "|"])
def test_a_template_that_would_explode_ends_with_an_answer(uri_template: str, uri: str) -> None:
    assert not template(uri_template).matches(uri)


# A small expander by the rules of RFC 6570, appendix A, for variables that are texts.

OPERATORS = {
    "": ("", ",", False, ""), "+": ("", ",", False, ""), "#": ("#", ",", False, ""), ".": (".", ".", False, ""),
    "/": ("/", "/", False, ""), ";": (";", ";", True, ""), "?": ("?", "&", True, "="), "&": ("&", "&", True, "="),
}  # fmt: skip
RESERVED = ":/?#[]@!$&'()*+,;="

names = st.text(alphabet=string.ascii_letters + string.digits + "_", min_size=1, max_size=5)
values = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
variables = st.tuples(names, st.none() | st.integers(1, 20), values)
expressions = st.tuples(st.sampled_from(sorted(OPERATORS)), st.lists(variables, min_size=1, max_size=4))
literals = st.text(alphabet=string.ascii_letters + string.digits + "-._~:/?#[]@!$&'()*+,;=", max_size=6)
pieces = st.lists(literals | expressions, max_size=6)
Expression = tuple[str, list[tuple[str, int | None, str]]]


def written(expression: Expression) -> str:
    operator, listed = expression
    return f"{{{operator}{','.join(f'{name}:{length}' if length else name for name, length, _ in listed)}}}"


def expanded(expression: Expression) -> str:
    operator, listed = expression
    first, separator, named, if_empty = OPERATORS[operator]
    safe = RESERVED if operator in ("+", "#") else ""
    parts = []
    for name, length, value in listed:
        text = quote(value[:length], safe=safe + "~")
        parts.append(f"{name}={text}" if named and text else f"{name}{if_empty}" if named else text)
    return first + separator.join(parts)


@given(pieces)
def test_whatever_a_template_expands_to_it_matches(parts: list[str | Expression]) -> None:
    uri_template = "".join(part if isinstance(part, str) else written(part) for part in parts)
    uri = "".join(part if isinstance(part, str) else expanded(part) for part in parts)
    assert template(uri_template).matches(uri)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_template_gives_an_answer_for_any_uri(uri_template: str, uri: str) -> None:
    assert template(uri_template).matches(uri) in (True, False)
