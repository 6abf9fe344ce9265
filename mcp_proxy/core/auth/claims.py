"""What a verified token's claims mean: from the payload to a `Principal`.

Pure: the signature was checked before (`verifier`), time is handed in. A claim that is present and malformed refuses
the token; it is never ignored, since ignoring a claim that narrows would widen. Messages name the claim and what is
expected, never its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_proxy.base.errors import UNAUTHORIZED, ProxyError
from mcp_proxy.core.auth.principal import DEFAULT_SCOPES, Principal, Scope
from mcp_proxy.core.auth.revocation import is_token_id

LEEWAY = 30
"""Seconds that two clocks may differ."""

ANONYMOUS = "anonymous"
"""Subject of a token that names none."""

MAX_SUBJECT = 256
_MOST = 10**12 - 1
_LAST_SECOND = 253_402_300_799  # of the year 9999; later ones are milliseconds or nonsense
COUNTS: Mapping[str, str] = {
    "rate": "calls a minute",
    "rpm": "completions a minute",
    "tpm": "tokens of completions a minute",
    "max_parallel": "completions at once",
    "budget_tokens": "tokens of completions in all",
    "max_tokens": "tokens of one answer",
}
"""The claims that are positive integers, each with what it counts. `Principal` has a field of the same name."""
_SCOPES: Mapping[str, Scope] = {str(scope): scope for scope in Scope}


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What a token must say beyond ``exp``; None where nothing is asked for."""

    issuer: str | None = None
    audience: str | None = None
    max_ttl: float | None = None


def refused(message: str) -> ProxyError:
    """The error of every token that is not accepted."""
    return ProxyError(UNAUTHORIZED, message)


def read_claims(claims: Mapping[str, Any], rules: ClaimRules, now: float) -> Principal:
    """The principal that ``claims`` describe at ``now`` (RFC 7519 §4.1, and this service's own claims).

    Raises `ProxyError` (unauthorized).
    """
    expires = _check_times(claims, rules.max_ttl, now)
    _check_origin(claims, rules)
    return Principal(
        subject=_subject(claims),
        scopes=_scopes(claims),
        servers=_globs(claims, "servers"),
        tools=_globs(claims, "tools"),
        models=_globs(claims, "models"),
        rate=_count(claims, "rate"),
        token_id=_token_id(claims),
        expires=expires,
        compact=_compact(claims),
        rpm=_count(claims, "rpm"),
        tpm=_count(claims, "tpm"),
        max_parallel=_count(claims, "max_parallel"),
        budget_tokens=_count(claims, "budget_tokens"),
        max_tokens=_count(claims, "max_tokens"),
    )


def _check_times(claims: Mapping[str, Any], max_ttl: float | None, now: float) -> int:
    expires, issued, not_before = (_seconds(claims, name) for name in ("exp", "iat", "nbf"))
    if expires is None:
        raise refused("the token has no exp claim; only tokens that expire are accepted")
    if now >= expires + LEEWAY:
        raise refused("the token has expired; ask for a new one")
    if not_before is not None and now < not_before - LEEWAY:
        raise refused("the token is not valid yet (nbf); wait, or check the issuer's clock")
    if issued is not None and now < issued - LEEWAY:
        raise refused("the token was issued in the future (iat); check the issuer's clock")
    if max_ttl is not None:
        if issued is None:
            raise refused("the token has no iat claim; it is required because the life of tokens is limited here")
        if expires - issued > max_ttl:
            raise refused(f"the token's life (exp minus iat) is longer than the {max_ttl:g} seconds accepted here")
    return expires


def _seconds(claims: Mapping[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    if type(value) is not int:  # bool is an int to isinstance
        raise refused(f"the token's {name} claim must be an integer: seconds since 1970")
    if not 0 <= value <= _LAST_SECOND:
        raise refused(f"the token's {name} claim is out of range; it counts seconds since 1970, not milliseconds")
    return value


def _check_origin(claims: Mapping[str, Any], rules: ClaimRules) -> None:
    if rules.issuer is not None:
        if "iss" not in claims:
            raise refused("the token has no iss claim; it is required here")
        if claims["iss"] != rules.issuer:
            raise refused("the token is from another issuer (iss) than the one accepted here")
    if rules.audience is not None:
        if "aud" not in claims:
            raise refused("the token has no aud claim; it is required here")
        audience = claims["aud"]
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(item, str) for item in named):
            raise refused("the token's aud claim must be a string or a list of strings")
        if rules.audience not in named:
            raise refused("the token is for another audience (aud) than this service")


def _subject(claims: Mapping[str, Any]) -> str:
    name = "sub" if "sub" in claims else "user_id"
    if name not in claims:
        return ANONYMOUS
    value = claims[name]
    if name == "user_id" and type(value) is int:
        value = str(value) if abs(value) < 10**64 else None
    if not is_subject(value):
        raise refused(f"the token's {name} claim must be a string of 1 to {MAX_SUBJECT} printable characters")
    return str(value)


def is_subject(value: object) -> bool:
    """Whether ``value`` can name a caller, in logs as well."""
    return isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT and value.isprintable()


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    if "scope" not in claims:
        return DEFAULT_SCOPES
    value = claims["scope"]
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise refused("the token's scope claim must be a string of words separated by spaces, or a list of strings")
    return frozenset(_SCOPES[word] for word in words if word in _SCOPES)


def _globs(claims: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise refused(f"the token's {name} claim must be a list of names or patterns")
    return tuple(value)


def _count(claims: Mapping[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    if not is_count(value):
        raise refused(f"the token's {name} claim must be a positive integer: {COUNTS[name]}")
    return int(value)


def is_count(value: object) -> bool:
    """Whether ``value`` can stand in one of the claims of `COUNTS`."""
    return type(value) is int and 0 < value <= _MOST


def _compact(claims: Mapping[str, Any]) -> bool:
    if "listing" not in claims:
        return False
    if claims["listing"] != "compact":
        raise refused('the token\'s listing claim must be "compact"')
    return True


def _token_id(claims: Mapping[str, Any]) -> str | None:
    if "jti" not in claims:
        return None
    value = claims["jti"]
    if not isinstance(value, str) or not is_token_id(value):  # one that could not be revoked
        raise refused("the token's jti claim must be a string of 1 to 256 printable characters")
    return value
