"""Signatures, static tokens, and what the cache may and may not remember."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.base.errors import UNAUTHORIZED, ProxyError, StartError
from mcp_proxy.core.auth import verifier as module
from mcp_proxy.core.auth.keys import load_keys
from mcp_proxy.core.auth.principal import DEFAULT_SCOPES, EVERYTHING
from mcp_proxy.core.auth.revocation import Revocations, revoke
from mcp_proxy.core.auth.verifier import TokenVerifier

NOW = 1_800_000_000
EXP = {"exp": NOW + 3600}
STATIC = "q8Vn3kX0zR7tLw2pYc5mJd9sHf1gBa6e"


def refusal(verifier, token):
    with pytest.raises(ProxyError) as caught:
        verifier.verify(token)
    assert caught.value.kind is UNAUTHORIZED
    assert len(token) < 16 or token not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_shared_secret_algorithms_verify(verifier_for, sign, secret, algorithm):
    verifier = verifier_for(JWT_ALGORITHM=algorithm, JWT_SECRET=secret)
    assert verifier.verify(sign(_algorithm=algorithm, sub="a")).subject == "a"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa_algorithms_verify_and_do_not_stand_in_for_each_other(verifier_for, sign, rsa_pair, algorithm):
    verifier = verifier_for(JWT_ALGORITHM=algorithm, MCP_PROXY_JWT_PUBLIC_KEY=rsa_pair.public_pem)
    assert verifier.verify(sign(rsa_pair.private, algorithm, sub="a")).subject == "a"
    other = "PS256" if algorithm == "RS256" else "RS256"
    assert algorithm in refusal(verifier, sign(rsa_pair.private, other, sub="a"))


def test_elliptic_curve_and_edwards_algorithms_verify(verifier_for, sign, ec_pair, ed_pair):
    for algorithm, pair in (("ES256", ec_pair), ("EdDSA", ed_pair)):
        verifier = verifier_for(JWT_ALGORITHM=algorithm, MCP_PROXY_JWT_PUBLIC_KEY=pair.public_pem)
        assert verifier.verify(sign(pair.private, algorithm, sub="a")).subject == "a"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, ["HS256"], {"HS256": 1}, 1, "hs256"])
@pytest.mark.parametrize("signed", [True, False])
def test_no_spelling_of_none_is_an_algorithm(verifier_for, by_hand, secret, alg, signed):
    token = by_hand({"alg": alg, "typ": "JWT"}, EXP, secret if signed else None)
    assert "not signed with HS256" in refusal(verifier_for(), token)


def test_a_header_without_alg_is_refused(verifier_for, by_hand):
    assert "not signed with HS256" in refusal(verifier_for(), by_hand({"typ": "JWT"}, EXP))


def test_an_empty_signature_is_refused(verifier_for, by_hand):
    assert "signature does not match" in refusal(verifier_for(), by_hand({"alg": "HS256"}, EXP, None))


def test_the_public_key_is_never_taken_for_a_shared_secret(verifier_for, by_hand, rsa_pair):
    verifier = verifier_for(JWT_ALGORITHM="RS256", MCP_PROXY_JWT_PUBLIC_KEY=rsa_pair.public_pem)
    for key in (rsa_pair.public_pem, rsa_pair.public_pem.strip()):
        assert "not signed with RS256" in refusal(verifier, by_hand({"alg": "HS256"}, EXP, key))
        assert "does not match" in refusal(verifier, by_hand({"alg": "RS256"}, EXP, key))


def test_keys_that_a_token_brings_along_are_not_looked_at(verifier_for, sign, rsa_pair, other_rsa_pair):
    verifier = verifier_for(JWT_ALGORITHM="RS256", MCP_PROXY_JWT_PUBLIC_KEY=rsa_pair.public_pem)
    jwk = other_rsa_pair.jwk("RS256")
    for header in ({"jwk": jwk}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example/x"}):
        token = sign(other_rsa_pair.private, "RS256", header, sub="evil")
        assert "does not match" in refusal(verifier, token)


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": True}, {"crit": "b64"}])
def test_a_critical_extension_refuses_the_token(verifier_for, by_hand, header):
    assert refusal(verifier_for(), by_hand({"alg": "HS256", **header}, EXP))


def test_a_detached_payload_refuses_the_token(verifier_for, by_hand):
    assert refusal(verifier_for(), by_hand({"alg": "HS256", "b64": False, "crit": ["b64"]}, b""))


def test_a_token_signed_with_another_secret_is_refused(verifier_for, sign):
    assert "signature does not match" in refusal(verifier_for(), sign("x" * 64))


def test_a_changed_payload_is_refused(verifier_for, sign):
    one, other = sign(sub="a").split("."), sign(sub="b").split(".")
    assert "signature does not match" in refusal(verifier_for(), ".".join([one[0], other[1], one[2]]))


def test_spaces_and_line_ends_around_a_token_are_refused(verifier_for, sign):
    token = sign()
    for spoiled in (f"{token}\n", f"{token} ", f" {token}", f"{token}\t", token.replace(".", " .", 1)):
        assert "malformed" in refusal(verifier_for(), spoiled)


def test_a_token_of_nine_kibibytes_is_refused_before_it_is_parsed(verifier_for, sign, monkeypatch):
    verifier = verifier_for()
    token = sign(note="x" * 7 * 1024)
    assert len(token) > 9 * 1024
    monkeypatch.setattr(verifier, "_jws", None)
    assert "longer than 8192" in refusal(verifier, token)


@pytest.mark.parametrize("token", ["", ".", "..", "...", "a.b", "a.b.c", "Bearer x", "é.é.é", "\ud800", "a" * 8192])
def test_what_is_no_token_is_refused(verifier_for, token):
    assert refusal(verifier_for(), token)


@given(st.one_of(st.text(max_size=80), st.from_regex(r"\A[A-Za-z0-9_=-]{0,40}(\.[A-Za-z0-9_=-]{0,40}){0,4}\Z")))
@settings(max_examples=200, deadline=None)
def test_no_text_makes_the_verifier_fail_otherwise_than_by_refusing(tmp_path_factory, text):
    from mcp_proxy.base.clock import SystemClock
    from mcp_proxy.settings import load_settings

    configured = load_settings(environ={"JWT_SECRET": "Zk3vQ9xT7mB1rW5nY8cJ2pL6dH4fG0sAe"}, env_file=None).settings
    clock = SystemClock()
    empty = Revocations(tmp_path_factory.getbasetemp() / "nothing")
    refusal(TokenVerifier(configured, load_keys(configured, clock), clock, empty), text)


def test_a_non_text_key_id_is_refused(verifier_for, by_hand):
    for kid in (1, None, ["a"], {"a": 1}):
        assert refusal(verifier_for(), by_hand({"alg": "HS256", "kid": kid}, EXP))


# The cache


def test_a_token_is_verified_once_a_minute(verifier_for, sign, clock, monkeypatch):
    verifier = verifier_for()
    calls = []
    real = verifier._jws.decode_complete
    monkeypatch.setattr(verifier._jws, "decode_complete", lambda *a, **k: calls.append(1) or real(*a, **k))
    token = sign(sub="a")
    first = verifier.verify(token)
    clock.move(59)
    assert verifier.verify(token) is first
    assert len(calls) == 1
    clock.move(1)
    verifier.verify(token)
    assert len(calls) == 2


def test_a_remembered_token_still_expires_on_time(verifier_for, sign, clock):
    verifier = verifier_for()
    token = sign(exp=NOW + 5)
    verifier.verify(token)
    clock.move(34)
    verifier.verify(token)
    clock.move(1)
    assert "expired" in refusal(verifier, token)


def test_a_remembered_token_expires_by_the_wall_clock_though_the_other_stood_still(verifier_for, sign, clock):
    """As on a machine that was suspended."""
    verifier = verifier_for()
    token = sign(exp=NOW + 5)
    verifier.verify(token)
    clock.wall += 3600
    assert "expired" in refusal(verifier, token)


def test_a_remembered_token_is_refused_once_revoked(settings_from, secret, sign, clock, tmp_path):
    configured = settings_from(JWT_SECRET=secret)
    revocations = Revocations(tmp_path)
    verifier = TokenVerifier(configured, load_keys(configured, clock), clock, revocations)
    token, other = sign(jti="gone"), sign(jti="stays")
    verifier.verify(token)
    revoke(tmp_path, "gone", NOW)
    assert revocations.reload_if_changed()
    assert "revoked" in refusal(verifier, token)
    assert verifier.verify(other).token_id == "stays"


def test_a_revoked_token_that_was_never_seen_is_refused(settings_from, secret, sign, clock, tmp_path):
    revoke(tmp_path, "gone", NOW)
    configured = settings_from(JWT_SECRET=secret)
    verifier = TokenVerifier(configured, load_keys(configured, clock), clock, Revocations(tmp_path))
    assert "revoked" in refusal(verifier, sign(jti="gone"))


def test_the_cache_is_bounded_and_forgets_the_least_recently_used(verifier_for, sign, monkeypatch):
    monkeypatch.setattr(module, "CACHE_SIZE", 2)
    verifier = verifier_for()
    a, b, c = (sign(sub=name) for name in "abc")
    kept = verifier.verify(a)
    forgotten = verifier.verify(b)
    verifier.verify(a)
    verifier.verify(c)
    assert len(verifier._cache) == 2
    assert verifier.verify(a) is kept
    assert verifier.verify(b) is not forgotten


def test_a_token_is_known_from_its_verification_until_it_is_revoked_expires_or_a_minute_is_over(
    settings_from, secret, sign, clock, tmp_path
):
    configured = settings_from(JWT_SECRET=secret)
    revocations = Revocations(tmp_path)
    verifier = TokenVerifier(configured, load_keys(configured, clock), clock, revocations)
    lasting, short, revoked = sign(jti="stays"), sign(exp=NOW + 5), sign(jti="gone")
    assert [verifier.known(token) for token in (lasting, short, revoked, "")] == [None] * 4
    principals = [verifier.verify(token) for token in (lasting, short, revoked)]
    assert [verifier.known(token) for token in (lasting, short, revoked)] == principals
    revoke(tmp_path, "gone", NOW)
    assert revocations.reload_if_changed()
    clock.move(35)
    assert [verifier.known(token) for token in (lasting, short, revoked)] == [principals[0], None, None]
    clock.move(25)
    assert verifier.known(lasting) is None


def test_refusals_are_not_remembered(verifier_for, sign, clock):
    verifier = verifier_for()
    token = sign(nbf=NOW + 40)
    assert "not valid yet" in refusal(verifier, token)
    clock.move(10)
    verifier.verify(token)


# Static tokens


def test_a_static_token_is_a_principal_with_its_name_and_scopes(verifier_for):
    verifier = verifier_for(MCP_PROXY_API_TOKENS=f"ci:{STATIC}:tools:read+tools:call")
    principal = verifier.verify(STATIC)
    assert (principal.subject, principal.scopes) == ("ci", {"tools:read", "tools:call"})
    assert (principal.token_id, principal.expires) == (None, None)
    assert verifier.verify(STATIC) is principal


def test_static_tokens_stand_beside_jwts(verifier_for, sign):
    verifier = verifier_for(MCP_PROXY_API_TOKENS=f"ci:{STATIC},ops:{STATIC[::-1]}:admin")
    assert verifier.verify(STATIC).scopes == DEFAULT_SCOPES
    assert verifier.verify(STATIC[::-1]).scopes == {"admin"}
    assert verifier.verify(sign(sub="alice")).subject == "alice"


def test_every_scope_can_be_given_to_a_static_token(verifier_for):
    verifier = verifier_for(MCP_PROXY_API_TOKENS=f"ci:{STATIC}:{'+'.join(EVERYTHING)}")
    assert verifier.verify(STATIC).scopes == EVERYTHING


def test_with_static_tokens_only_jwts_are_not_accepted(settings_from, sign, clock, tmp_path):
    configured = settings_from(MCP_PROXY_API_TOKENS=f"ci:{STATIC}")
    verifier = TokenVerifier(configured, load_keys(configured, clock), clock, Revocations(tmp_path))
    assert verifier.verify(STATIC).subject == "ci"
    assert "static tokens" in refusal(verifier, sign())
    assert refusal(verifier, "")


def test_part_of_a_static_token_is_refused(verifier_for):
    verifier = verifier_for(MCP_PROXY_API_TOKENS=f"ci:{STATIC}")
    for wrong in (STATIC[:-1], f"{STATIC}x", STATIC.lower(), f"{STATIC} ", f"ci:{STATIC}"):
        assert refusal(verifier, wrong)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (f"ok:{STATIC},short:abc", ["entry 2 (short)", "3 characters"]),
        (STATIC, ["entry 1", "name:secret"]),
        (f":{STATIC}", ["entry 1"]),
        (f"a b:{STATIC}", ["entry 1"]),
        (f"ci:{STATIC}:root", ["entry 1 (ci)", "unknown scope", "tools:read"]),
        (f"ci:{STATIC}:", ["unknown scope"]),
        (f"{STATIC}:ci", ["entry 1:", "2 characters"]),
        (f"ci:{'a' * 40}", ["(ci)", "too few"]),
        (f"ci:{'your-secret-key-' * 3}", ["(ci)", "placeholder"]),
        (f"ci:{STATIC} and more", ["visible ASCII"]),
        (f"ci:{STATIC},ci:{STATIC[::-1]}", ["entry 2", "name of an earlier"]),
        (f"ci:{STATIC},cd:{STATIC}", ["entry 2", "secret of an earlier"]),
        (",", ["no token"]),
    ],
)
def test_a_bad_static_token_stops_the_start_without_showing_its_secret(verifier_for, entries, words):
    with pytest.raises(StartError) as caught:
        verifier_for(MCP_PROXY_API_TOKENS=entries)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert STATIC not in message
    assert "\n" not in message
