"""Request state handed to clients (basic/patterns/mrtr): readable by nobody else's request, and only for a while.

The client carries it and could alter it, so it is signed, and bound to the principal and the request it belongs to.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.json import JsonError, decode, encode
from mcp_proxy.base.protocol import INVALID_PARAMS
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.gateway.envelope import Refusal
from mcp_proxy.settings import Settings

_VERSION = "1"


def state_key(settings: Settings) -> bytes:
    """The key of this service: drawn from the token secret, so that replicas and restarts agree, else by chance."""
    if settings.jwt_secret is None:
        return secrets.token_bytes(32)
    return hmac.digest(settings.jwt_secret.get_secret_value().encode(), b"mcp-proxy-api request state", sha256)


class Seal:
    """Signs and opens request state. ``key`` is secret; ``life`` is in seconds."""

    def __init__(self, key: bytes, clock: Clock, life: float) -> None:
        self._key = key
        self._clock = clock
        self._life = life

    def close(self, content: Mapping[str, Any], principal: Principal, purpose: str) -> str:
        """``content`` (JSON) as an opaque string for this principal and ``purpose``."""
        body = (
            base64.urlsafe_b64encode(encode({**content, "exp": self._clock.time() + self._life})).decode().rstrip("=")
        )
        return f"{_VERSION}.{body}.{self._sign(body, principal, purpose)}"

    def open(self, sealed: object, principal: Principal, purpose: str) -> dict[str, Any]:
        """What was sealed. Raises `Refusal` (-32602) for anything else: altered, somebody else's, another request's, too old."""
        version, _, rest = sealed.partition(".") if isinstance(sealed, str) else ("", "", "")
        body, _, signature = rest.partition(".")
        expected = self._sign(body, principal, purpose)
        if version != _VERSION or not hmac.compare_digest(signature.encode(errors="replace"), expected.encode()):
            raise Refusal(INVALID_PARAMS, "requestState is not one that was given to this caller for this request")
        try:
            content = decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (JsonError, binascii.Error):
            raise Refusal(INVALID_PARAMS, "requestState cannot be read") from None
        if not isinstance(content, dict) or content.get("exp", 0) < self._clock.time():
            raise Refusal(INVALID_PARAMS, "requestState has expired; call again without it")
        return content

    def _sign(self, body: str, principal: Principal, purpose: str) -> str:
        text = encode([body, principal.who, purpose])
        return base64.urlsafe_b64encode(hmac.digest(self._key, text, sha256)).decode().rstrip("=")
