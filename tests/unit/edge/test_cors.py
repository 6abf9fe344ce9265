"""What browsers are told, for pages of the origins that are listed."""

from __future__ import annotations

import pytest

from .conftest import GOOD, LOCALHOST, MakeEdge, http, websocket

pytestmark = pytest.mark.anyio

PAGE = (b"origin", b"https://app.example")
OTHER = (b"origin", b"https://evil.example")
LISTED = {"cors_origin": ("https://app.example", "http://localhost:5173")}
ASKS = (b"access-control-request-method", b"POST")


def preflight(*headers: tuple[bytes, bytes], path: str = "/mcp", **more: object) -> object:
    return http(path, [LOCALHOST, PAGE, ASKS, *headers], method="OPTIONS", **more)


async def test_without_listed_origins_nothing_is_said_of_any(make_edge: MakeEdge) -> None:
    answer = await make_edge().send(http(headers=[LOCALHOST]))
    assert not [name for name, _ in answer.headers if name.startswith(b"access-control") or name == b"vary"]
    assert (await make_edge().send(preflight())).status == 403


@pytest.mark.parametrize("path", ["/tools", "/mcp", "/mcp/calc", "/messages/", "/nowhere"])
async def test_a_preflight_needs_no_token_and_allows_what_is_asked(make_edge: MakeEdge, path: str) -> None:
    edge = make_edge(**LISTED)
    wanted = b"authorization,content-type,mcp-protocol-version,mcp-param-region"
    answer = await edge.send(preflight((b"access-control-request-headers", wanted), path=path))
    assert (answer.status, answer.body) == (204, b"")
    assert answer.header(b"access-control-allow-origin") == b"https://app.example"
    assert answer.header(b"access-control-allow-headers") == wanted
    assert {b"GET", b"POST", b"PATCH", b"DELETE"} <= set(
        (answer.header(b"access-control-allow-methods") or b"").split(b", ")
    )
    assert answer.header(b"access-control-allow-credentials") is None
    assert answer.header(b"x-request-id") == b"id-1"
    assert edge.scopes == []
    assert [(line["method"], line["status_code"]) for line in edge.requests] == [("OPTIONS", 204)]


@pytest.mark.parametrize("wanted", [b"a b", b"x\r\ny: z", b"a,,b", b"(", b"a" * 5000])
async def test_names_that_are_no_headers_are_not_repeated(make_edge: MakeEdge, wanted: bytes) -> None:
    answer = await make_edge(**LISTED).send(preflight((b"access-control-request-headers", wanted)))
    assert (answer.status, answer.header(b"access-control-allow-headers")) == (204, None)


async def test_a_page_may_reach_a_private_network_when_it_asks(make_edge: MakeEdge) -> None:
    answer = await make_edge(**LISTED).send(preflight((b"access-control-request-private-network", b"true")))
    assert answer.header(b"access-control-allow-private-network") == b"true"


async def test_a_listed_page_may_read_answers_and_the_headers_it_needs(make_edge: MakeEdge) -> None:
    edge = make_edge(**LISTED)
    answer = await edge.send(http("/tools", [LOCALHOST, PAGE, (b"authorization", b"Bearer " + GOOD.encode())]))
    assert (answer.status, len(edge.scopes)) == (200, 1)
    assert answer.header(b"access-control-allow-origin") == b"https://app.example"
    exposed = (answer.header(b"access-control-expose-headers") or b"").split(b", ")
    assert {b"mcp-session-id", b"www-authenticate", b"x-request-id", b"retry-after"} <= set(exposed)
    assert answer.header(b"vary") == b"Origin"


async def test_a_listed_page_may_read_refusals_too(make_edge: MakeEdge) -> None:
    answer = await make_edge(**LISTED).send(http("/tools", [LOCALHOST, PAGE, (b"authorization", b"Bearer nothing")]))
    assert (answer.status, answer.header(b"access-control-allow-origin")) == (401, b"https://app.example")


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
async def test_other_pages_are_refused_as_ever(make_edge: MakeEdge, method: str) -> None:
    edge = make_edge(**LISTED)
    answer = await edge.send(http("/mcp", [LOCALHOST, OTHER, ASKS], method=method))
    assert (answer.status, answer.error["type"]) == (403, "origin_not_allowed")
    assert (answer.header(b"access-control-allow-origin"), answer.header(b"vary")) == (None, b"Origin")
    assert edge.scopes == []


async def test_programs_that_name_no_origin_are_served_as_ever(make_edge: MakeEdge) -> None:
    answer = await make_edge(**LISTED).send(http(headers=[LOCALHOST]))
    assert (answer.status, answer.header(b"access-control-allow-origin")) == (200, None)


async def test_options_that_are_no_preflight_go_to_the_application(make_edge: MakeEdge) -> None:
    edge = make_edge(**LISTED)
    await edge.send(http("/mcp", [LOCALHOST, PAGE], method="OPTIONS"))
    assert len(edge.scopes) == 1


async def test_a_listed_page_may_open_a_websocket(make_edge: MakeEdge) -> None:
    edge = make_edge(**LISTED)
    await edge.send(websocket([LOCALHOST, PAGE]))
    assert len(edge.scopes) == 1
    await edge.send(websocket([LOCALHOST, OTHER]))
    assert len(edge.scopes) == 1
