"""Who is let in, with which token, and to what (contract, section 3)."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from tests.faults.harness import FaultyUpstream
from tests.flows.inside import Inside, error_of, refusal, serving
from tests.harness import SECRET, eventually, make_token

pytestmark = pytest.mark.anyio

ROUTES = [
    ("POST", "/tools", "tools:call", {"json": {"method": "count"}}),
    ("POST", "/tools/calc/count", "tools:call", {}),
    ("GET", "/tools", "tools:read", {}),
    ("GET", "/tools/list", "tools:read", {}),
    ("GET", "/servers", "servers:read", {}),
    ("POST", "/api/tokens/revoke", "admin", {"json": {"jti": "nobody"}}),
]
EVERY = "tools:read tools:call servers:read servers:write logs:read llm:call llm:serve"


@pytest.mark.parametrize(("method", "path", "scope", "more"), ROUTES)
async def test_a_route_needs_a_token_with_its_scope_and_no_other(
    calc: Inside, method: str, path: str, scope: str, more: dict[str, Any]
):
    nobody = await calc.request(method, path, token=None, **more)
    assert refusal(nobody) == (401, "unauthorized")
    assert nobody.headers["www-authenticate"] == 'Bearer realm="mcp-proxy-api"'
    without = " ".join(word for word in EVERY.split() if word != scope)
    lacking = await calc.request(method, path, token=make_token(scope=without), **more)
    assert refusal(lacking) == (403, "insufficient_scope")
    assert error_of(lacking)["details"] == {"scope": scope}
    assert f'scope="{scope}"' in lacking.headers["www-authenticate"]
    for enough in (scope, "admin"):
        assert (await calc.request(method, path, token=make_token(scope=enough), **more)).status == 200


async def test_a_token_without_scope_has_the_usual_ones_and_an_empty_scope_has_none(calc: Inside):
    usual = [(await calc.request(m, p, **more)).status for m, p, _, more in ROUTES]
    assert usual == [200, 200, 200, 200, 200, 403]
    empty = [(await calc.request(m, p, token=make_token(scope=""), **more)).status for m, p, _, more in ROUTES]
    assert set(empty) == {403}


BAD = {
    "expired": make_token(ttl=-600),
    "another secret": make_token("another-secret-0123456789-abcdefghijklmnopqrstuvwxyz"),
    "another algorithm": make_token(algorithm="HS512"),
    "no exp": make_token(exp=None),
    "exp in milliseconds": make_token(exp=1_900_000_000_000),
    "not yet": make_token(nbf=4_000_000_000, exp=4_000_000_100),
    "unsigned": jwt.encode({"exp": 4_000_000_000}, None, algorithm="none"),
    "cut off": make_token()[:-4],
    "no token": "nonsense",
    "scope of a wrong kind": make_token(scope=7),
    "servers of a wrong kind": make_token(servers="calc"),
    "rate of a wrong kind": make_token(rate="many"),
    "endless": "a" * 9000,
}


@pytest.mark.parametrize("case", BAD)
async def test_a_token_that_is_not_sound_is_401_and_never_repeated(calc: Inside, case: str):
    for reply in [await calc.call("count", token=BAD[case]), await calc.get(f"/tools?token={BAD[case]}", token=None)]:
        assert refusal(reply) == (401, "unauthorized")
        assert 'error="invalid_token"' in reply.headers["www-authenticate"]
        assert BAD[case].encode() not in reply.body
    assert BAD[case] not in calc.log


@pytest.mark.parametrize(
    "value", ["Basic Zm9vOmJhcg==", "Bearer", "Bearer ", "bearer a b", "Token x", "Bearer a, Bearer b", ""]
)
async def test_an_authorization_that_is_no_bearer_token_is_401(calc: Inside, value: str):
    assert refusal(await calc.get("/tools", headers={"Authorization": value}, token=None)) == (401, "unauthorized")


async def test_the_scheme_is_read_in_any_case(calc: Inside):
    assert (await calc.get("/tools", headers={"Authorization": f"bEaReR  {make_token()}"}, token=None)).status == 200


@pytest.mark.parametrize(("method", "path", "scope", "more"), ROUTES)
async def test_the_query_may_carry_the_token_but_not_beside_a_header(
    calc: Inside, method: str, path: str, scope: str, more: dict[str, Any]
):
    token = make_token(scope=scope)
    assert (await calc.request(method, f"{path}?token={token}", token=None, **more)).status == 200
    assert refusal(await calc.request(method, f"{path}?token={token}", token=token, **more)) == (400, "bad_request")
    assert refusal(await calc.request(method, f"{path}?token={token}&token={token}", token=None, **more))[0] == 400
    assert refusal(await calc.request(method, f"{path}?token=", token=None, **more)) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": "ada"}, "ada"),
        ({"sub": None, "user_id": "u-1"}, "u-1"),
        ({"sub": None, "user_id": 7}, "7"),
        ({"sub": None}, "anonymous"),
    ],
)
async def test_the_caller_is_named_by_sub_else_user_id(calc: Inside, claims: dict[str, Any], name: str):
    reply = await calc.call("count", token=make_token(**claims))
    (line,) = calc.lines(request_id=reply.json["request_id"], event="request")
    assert (reply.status, line["principal"]) == (200, name)


async def test_a_revoked_token_is_refused_from_then_on_and_others_are_not(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url}}) as inside:
        doomed, other = make_token(jti="doomed"), make_token(jti="other")
        assert (await inside.call("count", token=doomed)).status == 200
        reply = await inside.post("/api/tokens/revoke", {"jti": "doomed"}, token=make_token(scope="admin"))
        assert (reply.status, reply.json) == (200, {"revoked": "doomed"})
        assert refusal(await inside.call("count", token=doomed)) == (401, "unauthorized")
        assert (await inside.call("count", token=other)).status == 200
        again = await inside.post("/api/tokens/revoke", {"jti": "doomed"}, token=make_token(scope="admin"))
        assert again.status == 200
        state = inside.app.runtime.settings.state_dir
        async with serving({"calc": {"url": upstream.url}}, state_dir=state) as after:
            assert (await after.call("count", token=doomed)).status == 401


async def test_a_revocation_by_another_process_is_taken_over(upstream: FaultyUpstream):
    from mcp_proxy.core.auth.revocation import revoke

    async with serving({"calc": {"url": upstream.url}}) as inside:
        token = make_token(jti="theirs")
        assert (await inside.call("count", token=token)).status == 200
        revoke(inside.app.runtime.settings.state_dir, "theirs", 0)

        async def refused() -> bool:
            return (await inside.call("count", token=token)).status == 401

        await eventually(refused, 3)


async def test_static_tokens_are_accepted_beside_jwts(upstream: FaultyUpstream):
    secret = "k7Pz0qWm3xVb9rTn5yLc1sDf8gHj2aQe"
    async with serving({"calc": {"url": upstream.url}}, api_tokens=f"ci:{secret}:tools:read+servers:read") as inside:
        assert (await inside.get("/tools", token=secret)).status == 200
        assert refusal(await inside.call("count", token=secret)) == (403, "insufficient_scope")
        assert (await inside.call("count")).status == 200
        assert (await inside.get("/tools", token=secret[:-1])).status == 401
        assert secret not in inside.log


@pytest.mark.parametrize(
    ("settings", "good", "bad"),
    [
        ({"jwt_issuer": "us"}, {"iss": "us"}, [{}, {"iss": "them"}]),
        ({"jwt_audience": "proxy"}, {"aud": ["x", "proxy"]}, [{}, {"aud": "other"}]),
        ({"jwt_max_ttl": 7200}, {}, [{"ttl": 7300}, {"iat": None}]),
        ({"jwt_algorithm": "HS512"}, {"algorithm": "HS512"}, [{}, {"algorithm": "HS384"}]),
    ],
)
async def test_what_is_configured_of_tokens_is_asked_of_them(
    settings: dict[str, Any], good: dict[str, Any], bad: list[dict[str, Any]]
):
    async with serving(**settings) as inside:
        assert (await inside.get("/tools", token=make_token(SECRET, **good))).status == 200
        for claims in bad:
            assert (await inside.get("/tools", token=make_token(SECRET, **claims))).status == 401, claims


async def test_without_tokens_everything_is_open_and_what_is_sent_is_not_read(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url}}, no_auth=True, jwt_secret=None) as inside:
        for token in (None, "nonsense", make_token(ttl=-600)):
            assert (await inside.call("count", token=token)).status == 200
        reply = await inside.post("/api/tokens/revoke", {"jti": "x"}, token=None)
        assert reply.status == 200
        assert {line["principal"] for line in inside.lines(event="request", path="/tools")} == {"local"}
