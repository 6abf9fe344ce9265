"""From settings to keys: what stops the start, and with which advice."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat

from mcp_proxy.base.errors import StartError
from mcp_proxy.core.auth.keys import load_keys
from mcp_proxy.core.auth.secret import random_secret, weakness

STATIC = "ci:q8Vn3kX0zR7tLw2pYc5mJd9sHf1gBa6e"


@pytest.fixture
def stop(settings_from, clock):
    """The one line that stops the start."""

    def run(**environ):
        with pytest.raises(StartError) as caught:
            load_keys(settings_from(**environ), clock)
        message = str(caught.value)
        assert "\n" not in message
        assert environ.get("JWT_SECRET", "-----") not in message
        return message

    return run


def test_a_missing_secret_stops_the_start_with_the_command_that_makes_one(stop):
    assert "JWT_SECRET is not set; make one with: openssl rand -base64 48" in stop()


def test_a_missing_secret_is_no_obstacle_with_static_tokens_or_without_auth(settings_from, clock):
    assert load_keys(settings_from(MCP_PROXY_API_TOKENS=STATIC), clock) is None
    assert load_keys(settings_from(MCP_PROXY_API_TOKENS=STATIC, JWT_ALGORITHM="RS256"), clock) is None
    assert load_keys(settings_from(MCP_PROXY_NO_AUTH="on"), clock) is None


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_has_at_least_the_bytes_of_the_hash(stop, settings_from, clock, secret, algorithm, size):
    message = stop(JWT_ALGORITHM=algorithm, JWT_SECRET=secret[: size - 1])
    assert f"has {size - 1} bytes, {algorithm} needs at least {size}" in message
    assert load_keys(settings_from(JWT_ALGORITHM=algorithm, JWT_SECRET=secret[:size]), clock) is not None


def test_length_is_counted_in_bytes(settings_from, clock):
    assert load_keys(settings_from(JWT_SECRET="äöüßéèêñçøåæœþðłđħ"), clock) is not None


@pytest.mark.parametrize(
    "secret",
    [
        "your-secret-key",
        "your-secret-key-here",
        "your_secret_key_here_change_in_production",
        "changeme",
        "change-me-please-this-is-only-a-template-1",
        "CHANGE_THIS_TO_SOMETHING_RANDOM_0123456789",
        "__REPLACE_ME__",
        "<put the output of openssl rand here......>",
        "${JWT_SECRET_FROM_THE_VAULT_OF_THE_CLUSTER}",
        "{{ .Values.jwt.theSecretOfTheDeployment12 }}",
        "a-string-secret-at-least-256-bits-long",
        "my-super-secret-jwt-key-for-this-proxy-2026",
        "a" * 64,
        "ab" * 32,
        "secretsecretsecretsecretsecretsecret",
        "q8Vn3kX0zR7tLw2pq8Vn3kX0zR7tLw2p",
        "0123456789" * 7,
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP",
    ],
)
def test_guessable_secrets_stop_the_start(stop, secret):
    assert stop(JWT_SECRET=secret).endswith("openssl rand -base64 48")


def test_random_secrets_are_never_called_weak():
    assert all(weakness(random_secret()) is None for _ in range(300))


def test_a_random_secret_is_long_enough_for_every_algorithm(settings_from, clock):
    assert load_keys(settings_from(JWT_ALGORITHM="HS512", JWT_SECRET=random_secret()), clock) is not None


def test_a_key_document_is_no_secret(stop, rsa_pair):
    for document in (rsa_pair.public_pem, rsa_pair.private_pem, '{"kty": "oct", "k": "q8Vn3kX0zR7tLw2pYc5mJd9sHf1gB"}'):
        assert "holds a key document" in stop(JWT_SECRET=document)


def test_a_public_key_beside_hs256_stops_the_start(stop, secret, rsa_pair):
    for setting in ("MCP_PROXY_JWT_PUBLIC_KEY", "MCP_PROXY_JWKS"):
        message = stop(JWT_SECRET=secret, **{setting: rsa_pair.public_pem})
        assert message.startswith(f"{setting} is set but JWT_ALGORITHM is HS256")


def test_an_algorithm_with_key_pairs_needs_a_key(stop):
    assert "MCP_PROXY_JWT_PUBLIC_KEY or MCP_PROXY_JWKS" in stop(JWT_ALGORITHM="RS256")


def test_two_sources_of_public_keys_contradict_each_other(stop, rsa_pair):
    message = stop(JWT_ALGORITHM="RS256", MCP_PROXY_JWT_PUBLIC_KEY=rsa_pair.public_pem, MCP_PROXY_JWKS="https://x/y")
    assert "keep one" in message


def test_a_public_key_may_be_text_escaped_text_or_a_path(settings_from, clock, rsa_pair, tmp_path):
    file = tmp_path / "key.pem"
    file.write_text(rsa_pair.public_pem)
    for value in (rsa_pair.public_pem, rsa_pair.public_pem.replace("\n", "\\n"), str(file)):
        assert load_keys(settings_from(JWT_ALGORITHM="RS256", MCP_PROXY_JWT_PUBLIC_KEY=value), clock) is not None


def test_a_private_key_in_the_place_of_a_public_one_stops_the_start(stop, rsa_pair, tmp_path):
    file = tmp_path / "key.pem"
    file.write_text(rsa_pair.private_pem)
    for value in (rsa_pair.private_pem, str(file)):
        message = stop(JWT_ALGORITHM="RS256", MCP_PROXY_JWT_PUBLIC_KEY=value)
        assert "holds a private key" in message
        assert "-pubout" in message


def test_a_certificate_in_the_place_of_a_key_stops_the_start(stop):
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    assert "certificate" in stop(JWT_ALGORITHM="RS256", MCP_PROXY_JWT_PUBLIC_KEY=pem)


@pytest.mark.parametrize("algorithm", ["RS256", "PS512", "ES384", "EdDSA"])
def test_a_key_that_does_not_fit_the_algorithm_stops_the_start(stop, ec_pair, algorithm):
    assert f"PEM key for {algorithm}" in stop(JWT_ALGORITHM=algorithm, MCP_PROXY_JWT_PUBLIC_KEY=ec_pair.public_pem)


def test_a_short_rsa_key_stops_the_start(stop):
    public = rsa.generate_private_key(65537, 1024).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert "1024 bits" in stop(JWT_ALGORITHM="RS256", MCP_PROXY_JWT_PUBLIC_KEY=pem)


@pytest.mark.parametrize("value", ["/no/such/file.pem", "x" * 5000, "nonsense", "/"])
def test_what_is_neither_pem_nor_a_file_stops_the_start(stop, value):
    message = stop(JWT_ALGORITHM="RS256", MCP_PROXY_JWT_PUBLIC_KEY=value)
    assert message.startswith("MCP_PROXY_JWT_PUBLIC_KEY is neither PEM text nor a file")


def test_a_file_that_is_no_key_stops_the_start(stop, tmp_path):
    for content, word in ((b"hello", "PEM key"), (b"\xff\xfe", "not a text file"), (b"x" * 70_000, "too large")):
        file = tmp_path / "key.pem"
        file.write_bytes(content)
        assert word in stop(JWT_ALGORITHM="RS256", MCP_PROXY_JWT_PUBLIC_KEY=str(file))


def test_an_encrypted_private_key_is_reported_as_private(stop, rsa_pair):
    pem = rsa_pair.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")).decode()
    assert "holds a private key" in stop(JWT_ALGORITHM="RS256", MCP_PROXY_JWT_PUBLIC_KEY=pem)
