"""Where tokens are looked for, what they become, and that nothing below sees them."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.core.auth.principal import LOCAL, PRINCIPAL_KEY, Principal
from mcp_proxy.edge.types import HEADERS_KEY

from .conftest import BAD, GOOD, LOCALHOST, Edge, MakeEdge, http, websocket

pytestmark = pytest.mark.anyio

INVALID = b'error="invalid_token"'


def bearer(value: str) -> list[tuple[bytes, bytes]]:
    return [LOCALHOST, (b"authorization", value.encode("latin-1"))]


def texts(value: Any) -> str:
    return repr(value)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
async def test_a_bearer_token_names_the_principal(edge: Edge, scheme: str) -> None:
    await edge.send(http(headers=bearer(scheme + GOOD)))
    assert edge.scopes[0][PRINCIPAL_KEY] == Principal(subject="ada")
    assert edge.requests[0]["principal"] == "ada"


async def test_a_request_without_a_token_goes_on_without_a_principal(edge: Edge) -> None:
    assert (await edge.send(http())).status == 200
    assert edge.scopes[0][PRINCIPAL_KEY] is None
    assert edge.verifier.asked == []
    assert edge.requests[0]["principal"] is None


@pytest.mark.parametrize(
    "query", [b"token=%s", b"a=1&token=%s&b=2", b"tok%%65n=%s", b"token=%s&", b"%%74oken=%s&x=%%zz"]
)
@pytest.mark.parametrize("make", [lambda query: http("/tools", query=query), lambda query: websocket(query=query)])
async def test_a_query_token_names_the_principal_and_leaves_the_query(edge: Edge, query: bytes, make: Any) -> None:
    await edge.send(make(query % GOOD.encode()))
    assert edge.scopes[0][PRINCIPAL_KEY] == Principal(subject="ada")
    assert GOOD not in texts(edge.scopes[0])
    assert b"ken=" not in edge.scopes[0]["query_string"]


async def test_other_parameters_stay_as_they_were_sent(edge: Edge) -> None:
    await edge.send(http(query=b"server=a%20b&token=" + GOOD.encode() + b"&token2=x&x=%C3%A9+1&flag"))
    assert edge.scopes[0]["query_string"] == b"server=a%20b&token2=x&x=%C3%A9+1&flag"


async def test_a_percent_encoded_query_token_is_decoded(edge: Edge) -> None:
    await edge.send(http(query=b"token=" + GOOD.encode().replace(b".", b"%2E")))
    assert edge.verifier.asked == [GOOD]


@pytest.mark.parametrize("path", ["/mcp", "/mcp/calc", "/sse", "/messages/", "/messages"])
async def test_at_the_mcp_door_a_query_token_counts_for_nothing(edge: Edge, path: str) -> None:
    await edge.send(http(path, query=b"token=" + GOOD.encode()))
    assert edge.verifier.asked == []
    assert edge.scopes[0][PRINCIPAL_KEY] is None
    assert edge.scopes[0]["query_string"] == b""


@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/health/ready", "/", "/.well-known/oauth-protected-resource/mcp"]
)
@pytest.mark.parametrize("where", ["header", "query"])
async def test_at_paths_for_everybody_a_bad_token_counts_as_none(edge: Edge, path: str, where: str) -> None:
    scope = http(path, bearer(f"Bearer {BAD}")) if where == "header" else http(path, query=f"token={BAD}".encode())
    assert (await edge.send(scope)).status == 200
    assert edge.scopes[0][PRINCIPAL_KEY] is None
    assert BAD not in edge.stream.getvalue()


@pytest.mark.parametrize("path", ["/tools", "/servers", "/healthy"])
@pytest.mark.parametrize("where", ["header", "query"])
async def test_a_bad_token_is_refused_on_every_other_path_and_repeated_nowhere(
    edge: Edge, path: str, where: str
) -> None:
    scope = http(path, bearer(f"Bearer {BAD}")) if where == "header" else http(path, query=f"token={BAD}".encode())
    answer = await edge.send(scope)
    assert (answer.status, answer.error["type"]) == (401, "unauthorized")
    assert INVALID in (answer.header(b"www-authenticate") or b"")
    assert edge.scopes == []
    assert BAD not in texts(answer.sent)
    assert BAD not in edge.stream.getvalue()


async def test_a_bad_token_is_refused_at_a_websocket(edge: Edge) -> None:
    answer = await edge.send(websocket(query=f"token={BAD}".encode()))
    assert (answer.status, edge.requests[0]["status_code"]) == (401, 401)
    closed = await edge.send(websocket(query=f"token={BAD}".encode(), denial=False))
    assert [(message["type"], message["code"]) for message in closed.sent] == [("websocket.close", 1008)]


def offering(*protocols: str, **more: Any) -> dict[str, Any]:
    """A websocket whose client offers these subprotocols, as a server hands it on."""
    header = (b"sec-websocket-protocol", ", ".join(protocols).encode())
    return {**websocket([LOCALHOST, header], **more), "subprotocols": list(protocols)}


@pytest.mark.parametrize(
    ("protocols", "left"),
    [
        ((f"bearer.{GOOD}", "mcp-proxy-log"), ["mcp-proxy-log"]),
        (("mcp-proxy-log", f"Bearer.{GOOD}", "x"), ["mcp-proxy-log", "x"]),
        ((f"bearer.{GOOD}",), []),
    ],
)
async def test_a_token_among_the_subprotocols_names_the_principal_and_is_one_no_more(
    edge: Edge, protocols: tuple[str, ...], left: list[str]
) -> None:
    await edge.send(offering(*protocols))
    [scope] = edge.scopes
    assert scope[PRINCIPAL_KEY] == Principal(subject="ada")
    assert GOOD not in texts(scope)
    assert scope["subprotocols"] == left
    header = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
    assert header == ([", ".join(left).encode()] if left else [])
    assert GOOD not in texts(edge.lines)


async def test_subprotocols_without_a_token_stay_as_they_were_sent(edge: Edge) -> None:
    sent = offering("mcp-proxy-log", "bearer")
    await edge.send(sent)
    assert edge.scopes[0]["headers"] == sent["headers"]
    assert (edge.scopes[0]["subprotocols"], edge.scopes[0][PRINCIPAL_KEY]) == (["mcp-proxy-log", "bearer"], None)


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        (offering(f"bearer.{BAD}"), 401),
        (offering("bearer."), 401),
        (offering(f"bearer.{GOOD}", f"bearer.{GOOD}"), 400),
        (offering(f"bearer.{GOOD}", query=f"token={GOOD}".encode()), 400),
    ],
)
async def test_a_token_among_the_subprotocols_is_refused_as_any_other(
    edge: Edge, scope: dict[str, Any], status: int
) -> None:
    answer = await edge.send(scope)
    assert (answer.status, edge.scopes) == (status, [])
    assert BAD not in texts(answer.sent) + texts(edge.lines)


async def test_subprotocols_mean_nothing_outside_a_websocket(edge: Edge) -> None:
    await edge.send(http(headers=[LOCALHOST, (b"sec-websocket-protocol", f"bearer.{GOOD}".encode())]))
    assert edge.verifier.asked == []


@pytest.mark.parametrize(
    "value",
    ["", " ", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", GOOD, f"Bearer{GOOD}", f"Token {GOOD}", f"Bearer {GOOD} {GOOD}",
     f"Bearer {GOOD},Bearer {GOOD}", f"Bearer\t{GOOD}", f"Bearer, {GOOD}"],
)  # fmt: skip
async def test_an_authorization_that_is_no_bearer_token_is_refused(edge: Edge, value: str) -> None:
    answer = await edge.send(http("/tools", headers=bearer(value)))
    assert answer.status == 401
    assert edge.verifier.asked == []
    assert edge.scopes == []


async def test_an_empty_query_token_is_refused(edge: Edge) -> None:
    assert (await edge.send(http("/tools", query=b"token="))).status == 401
    assert (await edge.send(http("/tools", query=b"token"))).status == 401


async def test_more_than_one_token_is_refused_even_when_they_agree(edge: Edge) -> None:
    both = http(headers=bearer(f"Bearer {GOOD}"), query=b"token=" + GOOD.encode())
    headers = http(headers=[*bearer(f"Bearer {GOOD}"), (b"authorization", f"Bearer {GOOD}".encode())])
    queries = http(query=f"token={GOOD}&token={GOOD}".encode())
    assert [(await edge.send(scope)).status for scope in (both, headers, queries)] == [400, 400, 400]
    assert edge.verifier.asked == []


async def test_no_scope_below_holds_the_token(edge: Edge) -> None:
    await edge.send(http(headers=[*bearer(f"Bearer {GOOD}"), (b"x-other", b"stays")]))
    await edge.send(http(query=b"token=" + GOOD.encode(), raw_path=b"/health?token=" + GOOD.encode()))
    assert len(edge.scopes) == 2
    assert all(GOOD not in texts(scope) for scope in edge.scopes)
    assert (b"x-other", b"stays") in edge.scopes[0]["headers"]
    assert GOOD not in edge.stream.getvalue()


async def test_a_token_that_is_known_already_is_not_asked_for_again(make_edge: MakeEdge) -> None:
    for edge in (make_edge(), make_edge(rate=5)):
        edge.verifier.seen[GOOD] = Principal(subject="grace")
        assert (await edge.send(http("/tools", bearer(f"Bearer {GOOD}")))).status == 200
        assert edge.scopes[0][PRINCIPAL_KEY] == Principal(subject="grace")
        assert edge.requests[0]["principal"] == "grace"
        assert edge.verifier.asked == []


@pytest.mark.parametrize("name", [b"x-api-key", b"api-key"])
async def test_the_key_of_a_client_of_models_is_a_token_below_their_path_only(edge: Edge, name: bytes) -> None:
    header = (name, f" {GOOD} ".encode())
    await edge.send(http("/v1/models", [LOCALHOST, header]))
    await edge.send(http("/tools", [LOCALHOST, header]))
    models, tools = edge.scopes
    assert models[PRINCIPAL_KEY] == Principal(subject="ada")
    assert GOOD not in texts(models)
    assert tools[PRINCIPAL_KEY] is None
    assert header in tools["headers"]


async def test_the_headers_by_name_are_those_that_are_handed_in_of_several_the_first(edge: Edge) -> None:
    await edge.send(http(headers=[*bearer(f"Bearer {GOOD}"), (b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]))
    [scope] = edge.scopes
    assert scope[HEADERS_KEY] == {b"host": b"localhost:5000", b"x-a": b"1", b"x-b": b"2"}
    assert scope["headers"] == [LOCALHOST, (b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]


async def test_the_servers_own_scope_is_left_alone(edge: Edge) -> None:
    scope = http(headers=bearer(f"Bearer {GOOD}"))
    before = {**scope, "headers": list(scope["headers"])}
    await edge.send(scope)
    assert scope == before


@pytest.mark.parametrize("token", [GOOD, BAD, "", "x y"])
async def test_without_authentication_everyone_is_local_and_tokens_are_unread(make_edge: MakeEdge, token: str) -> None:
    edge = make_edge(no_auth=True)
    both = http(headers=bearer(f"Bearer {token}"), query=b"token=" + token.replace(" ", "+").encode())
    assert (await edge.send(both)).status == 200
    assert edge.scopes[0][PRINCIPAL_KEY] is LOCAL
    assert edge.verifier.asked == []
    assert edge.scopes[0]["query_string"] == b""
    assert edge.requests[0]["principal"] == "local"
