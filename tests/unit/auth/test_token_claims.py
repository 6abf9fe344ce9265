"""What the claims of a signed token mean, and which ones refuse it."""

from __future__ import annotations

import pytest

from mcp_proxy.base.errors import UNAUTHORIZED, ProxyError
from mcp_proxy.core.auth.claims import COUNTS
from mcp_proxy.core.auth.principal import DEFAULT_SCOPES

NOW = 1_800_000_000


def refusal(verifier, token):
    """The message of the refusal; it never holds any part of the token."""
    with pytest.raises(ProxyError) as caught:
        verifier.verify(token)
    assert caught.value.kind is UNAUTHORIZED
    for part in token.split("."):
        assert len(part) < 8 or part not in caught.value.message
    return caught.value.message


def test_a_token_with_nothing_but_exp_is_accepted_with_the_default_scopes(verifier_for, sign):
    principal = verifier_for().verify(sign())
    assert principal.subject == "anonymous"
    assert principal.scopes == DEFAULT_SCOPES
    assert (principal.servers, principal.tools, principal.models, principal.rate) == (None, None, None, None)
    assert (principal.token_id, principal.expires) == (None, NOW + 3600)


def test_every_claim_reaches_the_principal(verifier_for, sign):
    principal = verifier_for().verify(
        sign(sub="alice", scope="tools:call logs:read", servers=["calc"], tools=["add*"], models=["fast"], rate=7,
             jti="t-1", iat=NOW, nbf=NOW)
    )  # fmt: skip
    assert principal.subject == "alice"
    assert principal.scopes == {"tools:call", "logs:read"}
    assert principal.servers == ("calc",)
    assert principal.tools == ("add*",)
    assert principal.models == ("fast",)
    assert (principal.rate, principal.token_id) == (7, "t-1")
    assert not principal.compact


def test_a_compact_listing_can_be_asked_for_and_nothing_else(verifier_for, sign):
    assert verifier_for().verify(sign(listing="compact")).compact
    for other in ("full", "Compact", "", True, None, ["compact"]):
        assert "listing claim" in refusal(verifier_for(), sign(listing=other))


@pytest.mark.parametrize(
    ("exp", "word"),
    [
        (None, "no exp"),
        (NOW + 3600.0, "integer"),
        (str(NOW + 3600), "integer"),
        (True, "integer"),
        ([NOW + 3600], "integer"),
        ((NOW + 3600) * 1000, "milliseconds"),
        (10**30, "out of range"),
        (-1, "out of range"),
    ],
)
def test_an_exp_that_is_not_a_plain_number_of_seconds_is_refused(verifier_for, sign, exp, word):
    assert word in refusal(verifier_for(), sign(exp=exp))


def test_a_null_exp_is_refused(verifier_for, by_hand):
    assert "integer" in refusal(verifier_for(), by_hand({"alg": "HS256"}, {"exp": None}))


@pytest.mark.parametrize("text", [b'{"exp": 1e400}', b'{"exp": NaN}', b'{"exp": Infinity}'])
def test_numbers_that_are_not_json_are_refused(verifier_for, by_hand, text):
    assert "JSON" in refusal(verifier_for(), by_hand({"alg": "HS256"}, text))


def test_a_claim_that_stands_twice_is_refused(verifier_for, by_hand):
    payload = b'{"exp": 1900000000, "scope": "tools:read", "scope": "admin"}'
    assert "JSON" in refusal(verifier_for(), by_hand({"alg": "HS256"}, payload))


def test_a_payload_that_is_no_object_is_refused(verifier_for, by_hand):
    assert "object" in refusal(verifier_for(), by_hand({"alg": "HS256"}, [1]))


def test_a_token_is_good_until_thirty_seconds_after_its_end(verifier_for, sign, clock):
    token = sign(exp=NOW)
    clock.move(29.9)
    verifier_for().verify(token)
    clock.move(0.1)
    assert "expired" in refusal(verifier_for(), token)


@pytest.mark.parametrize(("claim", "word"), [("nbf", "not valid yet"), ("iat", "in the future")])
def test_a_token_from_the_future_is_refused_beyond_the_leeway(verifier_for, sign, claim, word):
    verifier_for().verify(sign(**{claim: NOW + 30}))
    assert word in refusal(verifier_for(), sign(**{claim: NOW + 31}))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
@pytest.mark.parametrize("value", [NOW - 1.5, str(NOW), True, False])
def test_times_that_are_not_integers_are_refused(verifier_for, by_hand, claim, value):
    token = by_hand({"alg": "HS256"}, {"exp": NOW + 60, claim: value})
    assert f"{claim} claim must be an integer" in refusal(verifier_for(), token)


def test_issuer_and_audience_are_not_asked_for_unless_configured(verifier_for, sign):
    verifier_for().verify(sign(iss="whoever", aud="another service"))


@pytest.mark.parametrize(
    ("claims", "word"),
    [({}, "no iss"), ({"iss": "https://evil"}, "another issuer")],
)
def test_a_configured_issuer_must_be_the_tokens(verifier_for, sign, claims, word):
    verifier = verifier_for(MCP_PROXY_JWT_ISSUER="https://idp")
    verifier.verify(sign(iss="https://idp"))
    assert word in refusal(verifier, sign(**claims))


def test_an_issuer_that_is_a_list_is_refused(verifier_for, by_hand):
    verifier = verifier_for(MCP_PROXY_JWT_ISSUER="https://idp")
    token = by_hand({"alg": "HS256"}, {"exp": NOW + 60, "iss": ["https://idp"]})
    assert "issuer" in refusal(verifier, token)


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({}, "no aud"),
        ({"aud": "other"}, "another audience"),
        ({"aud": "proxyx"}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": ["other"]}, "another audience"),
        ({"aud": ["proxy", 1]}, "must be a string"),
        ({"aud": {"proxy": 1}}, "must be a string"),
    ],
)
def test_a_configured_audience_must_be_among_the_tokens(verifier_for, sign, claims, word):
    verifier = verifier_for(MCP_PROXY_JWT_AUDIENCE="proxy")
    verifier.verify(sign(aud="proxy"))
    verifier.verify(sign(aud=["other", "proxy"]))
    assert word in refusal(verifier, sign(**claims))


def test_a_longest_life_needs_iat_and_bounds_the_difference(verifier_for, sign):
    verifier = verifier_for(MCP_PROXY_JWT_MAX_TTL="600")
    verifier.verify(sign(iat=NOW, exp=NOW + 600))
    assert "no iat" in refusal(verifier, sign(exp=NOW + 600))
    assert "longer than the 600 seconds" in refusal(verifier, sign(iat=NOW, exp=NOW + 601))


@pytest.mark.parametrize(
    ("claims", "subject"),
    [({"sub": "a", "user_id": "b"}, "a"), ({"user_id": "b"}, "b"), ({"user_id": 123}, "123"), ({"sub": "é"}, "é")],
)
def test_the_subject_is_sub_or_else_user_id(verifier_for, sign, claims, subject):
    assert verifier_for().verify(sign(**claims)).subject == subject


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": ""},
        {"sub": 5},
        {"sub": None},
        {"sub": "a\nb"},
        {"sub": "a" * 257},
        {"user_id": True},
        {"user_id": 1.5},
        {"user_id": ""},
        {"user_id": 10**64},
    ],
)
def test_a_subject_that_cannot_be_shown_is_refused(verifier_for, by_hand, claims):
    token = by_hand({"alg": "HS256"}, {"exp": NOW + 60, **claims})
    assert f"the token's {next(iter(claims))} claim" in refusal(verifier_for(), token)


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("tools:read tools:call", {"tools:read", "tools:call"}),
        (["tools:read", "admin"], {"tools:read", "admin"}),
        ("  logs:read\topenid ", {"logs:read"}),
        ("", set()),
        ([], set()),
        ("everything", set()),
        ("ADMIN", set()),
    ],
)
def test_scope_is_words_or_a_list_and_unknown_words_grant_nothing(verifier_for, sign, scope, granted):
    assert verifier_for().verify(sign(scope=scope)).scopes == granted


@pytest.mark.parametrize("scope", [None, 1, {"admin": True}, ["admin", 1], [["admin"]]])
def test_a_malformed_scope_is_refused(verifier_for, sign, scope):
    assert "scope claim" in refusal(verifier_for(), sign(scope=scope))


@pytest.mark.parametrize("claim", ["servers", "tools", "models"])
@pytest.mark.parametrize("value", ["calc", None, 1, {"calc": 1}, ["calc", 1], [""], [None]])
def test_a_malformed_narrowing_claim_is_refused_and_never_ignored(verifier_for, sign, claim, value):
    assert f"the token's {claim} claim must be a list" in refusal(verifier_for(), sign(**{claim: value}))


def test_an_empty_list_narrows_to_nothing(verifier_for, sign):
    principal = verifier_for().verify(sign(servers=[], tools=[], models=[]))
    assert (principal.servers, principal.tools, principal.models) == ((), (), ())
    assert not principal.sees_server("calc")


@pytest.mark.parametrize("claim", COUNTS)
@pytest.mark.parametrize("value", [0, -1, 1.0, "5", True, None, 10**12, 10**40, [5]])
def test_a_number_that_is_no_positive_integer_is_refused_and_never_ignored(verifier_for, sign, claim, value):
    message = refusal(verifier_for(), sign(**{claim: value}))
    assert message == f"the token's {claim} claim must be a positive integer: {COUNTS[claim]}"


def test_the_claims_about_completions_reach_the_principal(verifier_for, sign):
    claims = {"rate": 1, "rpm": 2, "tpm": 3, "max_parallel": 4, "budget_tokens": 10**12 - 1, "max_tokens": 6}
    assert set(claims) == set(COUNTS)
    principal = verifier_for().verify(sign(**claims))
    assert {name: getattr(principal, name) for name in COUNTS} == claims
    assert all(getattr(verifier_for().verify(sign()), name) is None for name in COUNTS)


@pytest.mark.parametrize("jti", ["", 5, None, "a" * 257, "a\x00b", ["x"]])
def test_an_id_that_could_not_be_revoked_is_refused(verifier_for, by_hand, jti):
    assert "jti claim" in refusal(verifier_for(), by_hand({"alg": "HS256"}, {"exp": NOW + 60, "jti": jti}))
