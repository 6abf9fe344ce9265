"""How an MCP client without a token finds out where to get one (RFC 9728)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.flows.inside import Inside, refusal, serving
from tests.harness import Reply, make_token

pytestmark = pytest.mark.anyio

ISSUER = "https://login.example"
WELL_KNOWN = "/.well-known/oauth-protected-resource"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def challenge(reply: Reply) -> dict[str, str]:
    """The parameters of ``WWW-Authenticate: Bearer``."""
    scheme, _, rest = reply.headers["www-authenticate"].partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', rest))


async def followed(inside: Inside, reply: Reply, base: str = "http://localhost") -> Any:
    """The document that a challenge points to, read without a token."""
    url = challenge(reply)["resource_metadata"]
    assert url.startswith(base)
    found = await inside.get(urlsplit(url.removeprefix(base)).path, token=None)
    assert (found.status, found.headers["content-type"]) == (200, "application/json")
    return found.json


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/mcp", "/mcp"),
        ("/mcp/", "/mcp"),
        ("/mcp/calc", "/mcp/calc"),
        ("/sse", "/sse"),
        ("/messages/?session_id=x", "/sse"),
    ],
)
@pytest.mark.parametrize("token", [None, "not-a-token"], ids=["no token", "a bad token"])
async def test_a_challenge_leads_to_the_metadata_of_the_address_that_was_asked(
    calc: Inside, path: str, resource: str, token: str | None
) -> None:
    method = "GET" if path == "/sse" else "POST"
    reply = await calc.request(method, path, json=PING if method == "POST" else None, token=token)

    assert refusal(reply) == (401, "unauthorized")
    assert challenge(reply)["realm"] == "mcp-proxy-api"
    assert challenge(reply).get("error") == (None if token is None else "invalid_token")
    assert (await followed(calc, reply))["resource"] == f"http://localhost{resource}"


async def test_other_doors_challenge_without_metadata(calc: Inside) -> None:
    reply = await calc.get("/tools", token=None)

    assert set(challenge(reply)) == {"realm"}


@pytest.mark.parametrize(
    ("path", "resource"),
    [("", "/mcp"), ("/", "/mcp"), ("/mcp", "/mcp"), ("/mcp/", "/mcp"), ("/mcp/calc", "/mcp/calc"), ("/sse", "/sse")],
)
async def test_the_metadata_are_for_everybody(calc: Inside, path: str, resource: str) -> None:
    for token in (None, "not-a-token"):
        reply = await calc.get(WELL_KNOWN + path, token=token)
        assert reply.status == 200, reply
        assert reply.json == {
            "resource": f"http://localhost{resource}",
            "scopes_supported": ["tools:read", "tools:call"],
            "bearer_methods_supported": ["header"],
            "resource_name": "mcp-proxy-api",
        }


@pytest.mark.parametrize("path", ["/tools", "/mcp/a/b", "/messages", "/messages/", "/mcp/a%22b", "/mcpx", "x"])
async def test_there_are_none_of_what_is_no_resource(calc: Inside, path: str) -> None:
    assert refusal(await calc.get(WELL_KNOWN + path, token=None)) == (404, "not_found")


async def test_the_issuer_of_tokens_is_named() -> None:
    async with serving(jwt_issuer=ISSUER) as inside:
        assert (await inside.get(WELL_KNOWN, token=None)).json["authorization_servers"] == [ISSUER]
    async with serving(jwt_issuer=ISSUER, authorization_servers=("https://other.example",)) as inside:
        assert (await inside.get(WELL_KNOWN, token=None)).json["authorization_servers"] == ["https://other.example"]


async def test_the_resource_is_where_the_client_reached_us() -> None:
    async with serving() as inside:
        reply = await inside.get(WELL_KNOWN, token=None, headers={"Host": "127.0.0.1:5000"})
        assert reply.json["resource"] == "http://127.0.0.1:5000/mcp"
        foreign = await inside.get(WELL_KNOWN, token=None, headers={"Host": "evil.example"})
        assert refusal(foreign) == (421, "unknown_host")


@pytest.mark.parametrize("base", ["https://tools.example", "https://example.com/proxy"])
async def test_behind_a_tls_terminator_the_configured_address_counts(base: str) -> None:
    async with serving(public_url=f"{base}/") as inside:
        reply = await inside.post("/mcp", PING, token=None)

        assert challenge(reply)["resource_metadata"] == f"{base}{WELL_KNOWN}/mcp"
        assert (await followed(inside, reply, base))["resource"] == f"{base}/mcp"


async def test_without_tokens_there_is_nothing_to_get() -> None:
    async with serving(no_auth=True) as inside:
        for path in ("", "/mcp"):
            assert refusal(await inside.get(WELL_KNOWN + path, token=None)) == (404, "not_found")


async def test_a_token_that_lacks_a_scope_is_told_which_and_where_to_get_it(calc: Inside) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}
    reply = await calc.post(
        "/mcp", call, token=make_token(scope="servers:read"), headers={"Accept": "application/json"}
    )

    assert reply.status == 403
    assert challenge(reply) == {
        "realm": "mcp-proxy-api", "error": "insufficient_scope", "scope": "tools:call",
        "resource_metadata": f"http://localhost{WELL_KNOWN}/mcp",
    }  # fmt: skip
