"""From the text of a token to its principal: static tokens, then signatures (RFC 7515, 7519, 8725), and a cache.

What claims mean is `claims`; which key is used is `keys`. Finding the token in a request is the edge's business.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from jwt import PyJWS
from jwt.exceptions import InvalidSignatureError, PyJWTError

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import UNAUTHORIZED, ProxyError
from mcp_proxy.base.json import JsonError, read_strict
from mcp_proxy.core.auth.claims import ANONYMOUS, LEEWAY, ClaimRules, read_claims, refused
from mcp_proxy.core.auth.keys import KeySet
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.auth.revocation import Revocations
from mcp_proxy.core.auth.static import StaticTokens, parse_static_tokens
from mcp_proxy.settings import Settings

MAX_TOKEN = 8 * 1024
CACHE_SIZE = 4096
CACHE_SECONDS = 60.0
"""Longest trust in an earlier verification: how long a removed key can still matter."""

_NEVER = float("inf")


class _UnknownKey(ProxyError):
    """No key for the token's ``kid`` yet: worth one look at the key set's source."""

    def __init__(self, named: bool) -> None:
        how = "is not known here" if named else "is not named (kid), and there are several"
        super().__init__(UNAUTHORIZED, f"the token's signing key {how}; ask the issuer for a new token")


class TokenVerifier:
    """Verifies tokens. ``keys`` None means that JWTs are not accepted.

    Raises `StartError` when the static tokens are malformed.
    """

    def __init__(self, settings: Settings, keys: KeySet | None, clock: Clock, revocations: Revocations) -> None:
        given = settings.api_tokens
        self._static = parse_static_tokens(given.get_secret_value()) if given is not None else StaticTokens()
        self._rules = ClaimRules(settings.jwt_issuer, settings.jwt_audience, settings.jwt_max_ttl)
        self._keys = keys
        # Bound once: `verify` runs for every request, and on a hit costs little more than its digest.
        self._monotonic, self._time = clock.monotonic, clock.time
        self._is_revoked = revocations.is_revoked
        self._jws = PyJWS(
            algorithms=[keys.algorithm] if keys is not None else [],
            options={"verify_signature": True, "enforce_minimum_key_length": True},
        )
        self._cache: OrderedDict[bytes, tuple[Principal, float, float]] = OrderedDict()

    def known(self, token: str) -> Principal | None:
        """The principal of a token that was verified within the last minute and has neither expired nor been revoked."""
        digest = _digest(token)
        entry = self._cache.get(digest)
        if entry is None:
            return None
        principal, stale, expired = entry
        revoked = principal.token_id is not None and self._is_revoked(principal.token_id)
        if revoked or self._monotonic() >= stale or self._time() >= expired:
            del self._cache[digest]
            return None
        self._cache.move_to_end(digest)
        return principal

    def verify(self, token: str) -> Principal:
        """The principal of ``token``.

        Raises `ProxyError` (unauthorized) with a message for the caller that never repeats the token or its content.
        """
        if len(token) > MAX_TOKEN:
            raise refused(f"the token is longer than {MAX_TOKEN} characters; ask for one with fewer claims")
        if (known := self.known(token)) is not None:
            return known
        digest = _digest(token)
        principal = self._static.find(digest) or self._verify_jwt(token)
        if principal.subject == ANONYMOUS:
            principal = replace(principal, owner=f"{ANONYMOUS} {digest.hex()[:32]}")
        self._remember(digest, principal)
        return principal

    async def authenticate(self, token: str) -> Principal:
        """As `verify`; a token signed with an unknown key causes one refresh of the key set and a second attempt."""
        try:
            return self.verify(token)
        except _UnknownKey:
            assert self._keys is not None
            await self._keys.refresh()
            return self.verify(token)

    def _remember(self, digest: bytes, principal: Principal) -> None:
        """Keep the result for a minute. Its end is asked of the wall clock: the other one stands still in a suspend."""
        expired = _NEVER if principal.expires is None else principal.expires + LEEWAY
        self._cache[digest] = (principal, self._monotonic() + CACHE_SECONDS, expired)
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)

    def _verify_jwt(self, token: str) -> Principal:
        claims = _payload(self._check_signature(token))
        principal = read_claims(claims, self._rules, self._time())
        if principal.token_id is not None and self._is_revoked(principal.token_id):
            raise _revoked()
        return principal

    def _check_signature(self, token: str) -> bytes:
        """The signed bytes. The key is chosen by this service; the header's ``alg`` can only agree with it."""
        if not token:
            raise refused("the token is empty; send Authorization: Bearer TOKEN")
        if self._keys is None:
            raise refused("the token is not one of this service's static tokens, and no others are accepted")
        if not token.isascii():
            raise refused("the token is not a JWT: it holds characters that none can have")
        try:
            header = self._jws.get_unverified_header(token)
            _check_header(header, self._keys.algorithm)
            kid = header.get("kid")
            key = self._keys.find(kid)
            if key is None:
                raise _UnknownKey(named=kid is not None)
            payload: bytes = self._jws.decode_complete(token, key, algorithms=[self._keys.algorithm])["payload"]
        except InvalidSignatureError:
            raise refused("the token's signature does not match; it was changed, or made with another key") from None
        except (PyJWTError, ValueError, TypeError):
            raise refused("the token is malformed; send it whole, as it was issued, without spaces") from None
        return payload


def _check_header(header: Mapping[str, Any], algorithm: str) -> None:
    """What is settled before a key is looked for, so that a hopeless token causes no refresh of the key set."""
    if header.get("alg") != algorithm:
        raise refused(f"the token is not signed with {algorithm}, the algorithm accepted here")
    if "crit" in header:  # RFC 7515 §4.1.11: extensions that must be understood; none is here
        raise refused("the token's header has a crit parameter, which is not supported")


def _payload(data: bytes) -> Mapping[str, Any]:
    try:
        claims = read_strict(data)
    except JsonError:
        raise refused("the token's content is not acceptable JSON") from None
    if not isinstance(claims, dict):
        raise refused("the token's content is not a JSON object")
    return claims


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _revoked() -> ProxyError:
    return refused("the token has been revoked; ask for a new one")
