"""Minted tokens are accepted by the verifier, and what it would refuse is not minted."""

from __future__ import annotations

import jwt
import pytest

from mcp_proxy.base.errors import StartError
from mcp_proxy.core.auth.mint import SigningKey, mint, signing_key

NOW = 1_800_000_000


@pytest.fixture
def key(settings_from, secret):
    return signing_key(settings_from(JWT_SECRET=secret))


def test_a_minted_token_says_what_was_asked_for(verifier_for, key):
    token = mint(
        key, subject="alice", now=NOW + 0.9, ttl=60, scopes=["tools:call", "logs:read"], servers=["calc"],
        tools=["add"], models=[], rate=5, token_id="t-1", issuer="me", audience="proxy", compact=True,
        counts={"rpm": 6, "max_tokens": 7},
    )  # fmt: skip
    verifier = verifier_for(MCP_PROXY_JWT_ISSUER="me", MCP_PROXY_JWT_AUDIENCE="proxy", MCP_PROXY_JWT_MAX_TTL="60")
    principal = verifier.verify(token)
    assert (principal.subject, principal.rate, principal.token_id) == ("alice", 5, "t-1")
    assert principal.scopes == {"tools:call", "logs:read"}
    assert (principal.servers, principal.tools, principal.models) == (("calc",), ("add",), ())
    assert principal.expires == NOW + 60
    assert principal.compact
    assert (principal.rpm, principal.max_tokens, principal.tpm) == (6, 7, None)


def test_what_is_not_asked_for_is_not_in_the_token(key, secret):
    claims = jwt.decode(mint(key, subject="a", now=NOW, ttl=9), options={"verify_signature": False})
    assert claims == {"sub": "a", "iat": NOW, "exp": NOW + 9}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"scopes": ["root"]}, "'root' is not a scope"),
        ({"ttl": 0}, "--ttl"),
        ({"ttl": -5}, "--ttl"),
        ({"ttl": 10**12}, "10 years"),
        ({"ttl": 61, "max_ttl": 60.0}, "MCP_PROXY_JWT_MAX_TTL allows 60"),
        ({"subject": ""}, "--sub"),
        ({"subject": "a\n"}, "--sub"),
        ({"rate": 0}, "--rate must be a positive number of calls a minute"),
        ({"counts": {"rpm": 0}}, "--rpm must be a positive number"),
        ({"counts": {"budget_tokens": 10**12}}, "--budget-tokens must be a positive number of tokens"),
        ({"token_id": ""}, "--jti"),
        ({"tools": ["x" * 7000]}, "longer than"),
    ],
)
def test_what_the_verifier_would_refuse_is_not_minted(key, given, word):
    with pytest.raises(StartError, match=word):
        mint(key, **{"subject": "a", "now": NOW, "ttl": 60, **given})


@pytest.mark.parametrize(("algorithm", "name"), [("RS256", "rsa_pair"), ("ES256", "ec_pair"), ("EdDSA", "ed_pair")])
def test_key_pairs_sign_with_the_private_key_from_a_file(
    request, settings_from, verifier_for, tmp_path, algorithm, name
):
    pair = request.getfixturevalue(name)
    file = tmp_path / "private.pem"
    file.write_text(pair.private_pem)
    private = signing_key(settings_from(JWT_ALGORITHM=algorithm), str(file), "k1")
    token = mint(private, subject="a", now=NOW, ttl=60)
    assert jwt.get_unverified_header(token)["kid"] == "k1"
    verifier = verifier_for(JWT_ALGORITHM=algorithm, MCP_PROXY_JWT_PUBLIC_KEY=pair.public_pem)
    assert verifier.verify(token).subject == "a"


def test_key_pairs_need_a_private_key(settings_from, rsa_pair, ec_pair, secret, tmp_path):
    with pytest.raises(StartError, match="give the private key with --key-file"):
        signing_key(settings_from(JWT_ALGORITHM="RS256"))
    with pytest.raises(StartError, match="holds a public key"):
        signing_key(settings_from(JWT_ALGORITHM="RS256"), rsa_pair.public_pem)
    with pytest.raises(StartError, match="PEM key for RS256"):
        signing_key(settings_from(JWT_ALGORITHM="RS256"), ec_pair.private_pem)
    with pytest.raises(StartError, match="--key-file is neither"):
        signing_key(settings_from(JWT_ALGORITHM="RS256"), str(tmp_path / "none.pem"))
    with pytest.raises(StartError, match="HS256"):
        signing_key(settings_from(JWT_SECRET=secret), rsa_pair.private_pem)


def test_a_weak_secret_signs_nothing(settings_from):
    with pytest.raises(StartError, match="openssl rand"):
        signing_key(settings_from(JWT_SECRET="your-secret-key"))


def test_a_signing_key_does_not_show_itself(secret):
    assert secret not in repr(SigningKey("HS256", secret))
