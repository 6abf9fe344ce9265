"""How many requests a minute are served: of each caller, and of each address without a token."""

from __future__ import annotations

import pytest

from .conftest import BAD, GOOD, LOCALHOST, Answer, Edge, MakeEdge, http, websocket

pytestmark = pytest.mark.anyio


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [LOCALHOST, (b"authorization", f"Bearer {token}".encode())]


async def times(edge: Edge, number: int, headers: object, path: str = "/tools", address: str = "192.0.2.7") -> Answer:
    """The last of so many answers."""
    for _ in range(number):
        answer = await edge.send(http(path, headers, client=(address, 1)))  # type: ignore[arg-type]
    return answer


def assert_limited(answer: Answer) -> None:
    assert (answer.status, answer.error["type"]) == (429, "rate_limited")
    assert 1 <= int(answer.header(b"retry-after") or 0) <= 60
    assert answer.header(b"www-authenticate") is None


async def test_nothing_is_limited_unless_asked_for(edge: Edge) -> None:
    assert (await times(edge, 300, bearer(GOOD))).status == 200


async def test_a_caller_may_send_so_many_wherever_it_comes_from(make_edge: MakeEdge) -> None:
    edge = make_edge(rate=3)
    assert (await times(edge, 3, bearer(GOOD), address="192.0.2.1")).status == 200
    assert_limited(await times(edge, 1, bearer(GOOD), address="192.0.2.2"))
    assert len(edge.scopes) == 3
    assert edge.requests[-1]["error"] == "rate_limited"


async def test_an_address_without_a_token_may_send_so_many(make_edge: MakeEdge) -> None:
    edge = make_edge(rate_address=3)
    assert (await times(edge, 3, [LOCALHOST])).status == 200
    assert_limited(await times(edge, 1, [LOCALHOST]))
    assert (await times(edge, 1, [LOCALHOST], address="192.0.2.8")).status == 200


async def test_tokens_that_are_not_accepted_count_for_their_address(make_edge: MakeEdge) -> None:
    edge = make_edge(rate_address=3)
    assert (await times(edge, 3, bearer(BAD))).status == 401
    assert_limited(await times(edge, 1, bearer(BAD)))


async def test_who_shows_a_good_token_does_not_pay_for_others_at_its_address(make_edge: MakeEdge) -> None:
    edge = make_edge(rate_address=1)
    assert_limited(await times(edge, 2, bearer(BAD)))
    assert (await times(edge, 5, bearer(GOOD))).status == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_probes_are_always_answered(make_edge: MakeEdge, path: str) -> None:
    assert (await times(make_edge(rate=1, rate_address=1), 5, [LOCALHOST], path)).status == 200


@pytest.mark.parametrize(
    "path", ["/healthx", "/health/", "/health/live/x", "/", "/.well-known/oauth-protected-resource"]
)
async def test_what_only_looks_like_a_probe_is_counted(make_edge: MakeEdge, path: str) -> None:
    edge = make_edge(rate_address=2)
    for token in (BAD, "another", "a-third"):
        last = await times(edge, 1, bearer(token), path)
    assert_limited(last)


@pytest.mark.parametrize("query", [b"token=a&token=b", b"token="])
async def test_malformed_tokens_count_like_wrong_ones(make_edge: MakeEdge, query: bytes) -> None:
    edge = make_edge(rate_address=1)
    statuses = [(await edge.send(http("/tools", query=query))).status for _ in range(2)]
    assert statuses[0] in (400, 401)
    assert statuses[1] == 429


async def test_the_log_says_who_was_refused(make_edge: MakeEdge) -> None:
    edge = make_edge(rate=1)
    await times(edge, 2, bearer(GOOD))
    assert [(line["principal"], line["status_code"]) for line in edge.requests] == [("ada", 200), ("ada", 429)]


async def test_a_websocket_counts_as_one_request(make_edge: MakeEdge) -> None:
    edge = make_edge(rate_address=1)
    await edge.send(websocket())
    assert_limited(await edge.send(websocket()))
    assert len(edge.scopes) == 1


async def test_without_tokens_all_callers_are_one(make_edge: MakeEdge) -> None:
    edge = make_edge(no_auth=True, rate=2, rate_address=1)
    assert (await times(edge, 2, [LOCALHOST])).status == 200
    assert_limited(await times(edge, 1, [LOCALHOST], address="192.0.2.9"))


async def test_a_listed_page_may_read_how_long_to_wait(make_edge: MakeEdge) -> None:
    edge = make_edge(rate_address=1, cors_origin=("https://app.example",))
    answer = await times(edge, 2, [LOCALHOST, (b"origin", b"https://app.example")])
    assert_limited(answer)
    assert answer.header(b"access-control-allow-origin") == b"https://app.example"
    assert b"retry-after" in (answer.header(b"access-control-expose-headers") or b"")


async def test_preflights_are_not_counted(make_edge: MakeEdge) -> None:
    edge = make_edge(rate_address=1, cors_origin=("https://app.example",))
    asks = [LOCALHOST, (b"origin", b"https://app.example"), (b"access-control-request-method", b"POST")]
    for _ in range(3):
        assert (await edge.send(http("/mcp", asks, method="OPTIONS"))).status == 204


async def test_addresses_of_one_customers_network_count_together(make_edge: MakeEdge) -> None:
    edge = make_edge(rate_address=1)
    await times(edge, 1, [LOCALHOST], address="2001:db8:1:2::1")
    assert_limited(await times(edge, 1, [LOCALHOST], address="2001:db8:1:2:ffff::9"))
    assert (await times(edge, 1, [LOCALHOST], address="2001:db8:1:3::1")).status == 200


async def test_a_client_without_an_address_is_counted_too(make_edge: MakeEdge) -> None:
    edge = make_edge(rate_address=1)
    for status in (200, 429):
        assert (await edge.send(http("/tools", [LOCALHOST], client=None))).status == status
