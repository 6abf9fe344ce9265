"""Making tokens: the counterpart of `verifier`, for the command line. The service itself never signs.

What is minted here is accepted there: the same bounds are checked, with the option's name in the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from mcp_proxy.base.errors import StartError
from mcp_proxy.base.quote import quote
from mcp_proxy.core.auth.claims import COUNTS, is_count, is_subject
from mcp_proxy.core.auth.keys import MIN_SECRET_BYTES, prepare_key, read_pem, shared_secret
from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.core.auth.revocation import is_token_id
from mcp_proxy.core.auth.verifier import MAX_TOKEN
from mcp_proxy.settings import Settings

MAX_TTL = 10 * 366 * 86_400
"""Seconds; a token for longer is a mistake."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What tokens are signed with. ``key_id`` becomes the header's ``kid``, which a JWKS with several keys needs."""

    algorithm: str
    key: Any
    key_id: str | None = None

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm})"


def signing_key(settings: Settings, key_file: str | None = None, key_id: str | None = None) -> SigningKey:
    """``JWT_SECRET`` for HS*, the private key in ``key_file`` (PEM) otherwise.

    Raises `StartError`: a missing or weak secret, a key that is not private or does not fit ``JWT_ALGORITHM``.
    """
    algorithm = settings.jwt_algorithm
    if algorithm in MIN_SECRET_BYTES:
        if key_file is not None:
            raise StartError(f"--key-file needs an algorithm with a key pair; JWT_ALGORITHM is {algorithm}")
        return SigningKey(algorithm, shared_secret(settings), key_id)
    if key_file is None:
        raise StartError(
            f"JWT_ALGORITHM is {algorithm}: give the private key with --key-file PRIVATE.pem (the service has none)"
        )
    key = prepare_key(read_pem(key_file, "--key-file"), algorithm, "--key-file")
    if not hasattr(key, "sign"):
        raise StartError("--key-file holds a public key; tokens are signed with the private one")
    return SigningKey(algorithm, key, key_id)


def mint(
    key: SigningKey,
    *,
    subject: str,
    now: float,
    ttl: int,
    scopes: Iterable[str] | None = None,
    servers: Iterable[str] | None = None,
    tools: Iterable[str] | None = None,
    models: Iterable[str] | None = None,
    rate: int | None = None,
    token_id: str | None = None,
    issuer: str | None = None,
    audience: str | None = None,
    max_ttl: float | None = None,
    compact: bool = False,
    counts: Mapping[str, int] | None = None,
) -> str:
    """A signed token (RFC 7519) for ``ttl`` seconds from ``now``. None leaves a claim out, empty narrows to nothing.
    ``counts``: more claims that are numbers (`claims.COUNTS`).

    Raises `StartError`: an unknown scope, a life beyond ``max_ttl``, values that the verifier would refuse.
    """
    numbers = ({} if rate is None else {"rate": rate}) | dict(counts or {})
    _check(subject, ttl, numbers, token_id, max_ttl)
    claims: dict[str, Any] = {"sub": subject, "iat": int(now), "exp": int(now) + ttl}
    if scopes is not None:
        claims["scope"] = " ".join(_known(scopes))
    for name, globs in (("servers", servers), ("tools", tools), ("models", models)):
        if globs is not None:
            claims[name] = list(globs)
    claims |= numbers
    optional = {"jti": token_id, "iss": issuer, "aud": audience}
    claims |= {name: value for name, value in optional.items() if value is not None}
    if compact:
        claims["listing"] = "compact"
    headers = {"kid": key.key_id} if key.key_id is not None else None
    token = jwt.encode(claims, key.key, algorithm=key.algorithm, headers=headers)
    if len(token) > MAX_TOKEN:
        raise StartError(f"the token would be longer than the {MAX_TOKEN} characters accepted; use fewer patterns")
    return token


def _check(subject: str, ttl: int, counts: Mapping[str, int], token_id: str | None, max_ttl: float | None) -> None:
    if not is_subject(subject):
        raise StartError("--sub must be 1 to 256 printable characters")
    if not 0 < ttl <= MAX_TTL:
        raise StartError("--ttl must be more than 0 and at most 10 years")
    if max_ttl is not None and ttl > max_ttl:
        raise StartError(f"--ttl is {ttl} seconds, MCP_PROXY_JWT_MAX_TTL allows {max_ttl:g}")
    for name, value in counts.items():
        if not is_count(value):
            raise StartError(f"{option_of(name)} must be a positive number of {COUNTS[name]}")
    if token_id is not None and not is_token_id(token_id):
        raise StartError("--jti must be 1 to 256 printable characters")


def option_of(claim: str) -> str:
    """How the command line calls a claim."""
    return f"--{claim.replace('_', '-')}"


def _known(scopes: Iterable[str]) -> list[str]:
    words = list(dict.fromkeys(scopes))
    known = [str(scope) for scope in Scope]
    if unknown := [word for word in words if word not in known]:
        raise StartError(f"--scope {quote(unknown[0], 64)} is not a scope; there are: {' '.join(known)}")
    return words
