"""Public keys published as a JSON Web Key Set (RFC 7517): parsing, fetching, keeping fresh.

The last good set stays in force when its source fails. A token's ``kid`` chooses among these keys and nothing else:
``jku``, ``x5u`` and ``jwk`` in a token's header are never followed (RFC 8725 §3.10).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import StartError
from mcp_proxy.base.json import JsonError, read_strict

MAX_JWKS = 1024 * 1024
FETCH_TIMEOUT = 5.0
REFRESH_EVERY = 300.0
RETRY_EVERY = 30.0
"""Seconds between two attempts that tokens with an unknown ``kid`` (or a failed refresh) cause."""

Fetch = Callable[[str], Awaitable[bytes]]
"""From URL or path to the document. Raises `JwksError`."""

_log = logging.getLogger(__name__)

_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class JwksError(Exception):
    """A key set could not be had or used. The text says why and is fit for the log: no key material, no URL."""


def parse_jwks(data: bytes, algorithm: str) -> dict[str | None, Any]:
    """The set's keys that fit ``algorithm``, by ``kid``; under None the key for tokens without one, when it is alone.

    Keys of other types, for other algorithms or for encryption are left out. Raises `JwksError`: not a JWKS, a set
    with private keys, a set without a key that fits.
    """
    try:
        document = read_strict(data)
    except JsonError as error:
        raise JwksError(f"not JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise JwksError('not a JSON Web Key Set: there is no "keys" list')
    if any(isinstance(key, dict) and "d" in key for key in document["keys"]):
        raise JwksError("it holds a private key; publish the public halves only")
    found: dict[str | None, Any] = {}
    fitting = [(jwk.get("kid"), key) for jwk in document["keys"] if (key := _usable(jwk, algorithm)) is not None]
    for kid, key in fitting:
        if isinstance(kid, str):
            found.setdefault(kid, key)
    if not fitting:
        raise JwksError(f"it holds no usable key for {algorithm}")
    if len(fitting) == 1:
        found[None] = fitting[0][1]
    return found


def _usable(jwk: Any, algorithm: str) -> Any:
    """The public key in one member of the set, None when it is for something else, malformed or too short."""
    if not isinstance(jwk, dict) or not _fits(jwk, algorithm):
        return None
    try:
        parsed = PyJWK(jwk, algorithm)
        too_short = parsed.Algorithm.check_key_length(parsed.key)
    except (PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return None  # RFC 7517 §5: members that cannot be used are ignored
    return None if too_short else parsed.key


def _fits(jwk: dict[str, Any], algorithm: str) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("kty") == _TYPES[algorithm[:2]]
        and jwk.get("alg", algorithm) == algorithm
        and jwk.get("use", "sig") == "sig"
        and (algorithm not in _CURVES or jwk.get("crv") == _CURVES[algorithm])
        and isinstance(operations, list)
        and "verify" in operations
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a set comes from: ``name`` stands in messages, ``address`` goes to the fetch function."""

    name: str
    address: str
    fetch: Fetch


class JwksKeys:
    """A key set that follows its source. ``problem`` says why the last refresh failed, None when it did not."""

    def __init__(self, source: _Source, algorithm: str, clock: Clock) -> None:
        self.algorithm = algorithm
        self.problem: str | None = None
        self._source = source
        self._clock = clock
        self._keys: dict[str | None, Any] = {}
        self._attempted: float | None = None
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    def from_url(cls, url: str, algorithm: str, clock: Clock, fetch: Fetch) -> JwksKeys:
        """Keys at an https URL (http for loopback), empty until the first `refresh`. Raises `StartError`."""
        check_url(url)
        return cls(_Source("MCP_PROXY_JWKS", url, fetch), algorithm, clock)

    @classmethod
    def from_file(cls, path: Path, algorithm: str, clock: Clock, read: Callable[[Path], bytes]) -> JwksKeys:
        """Keys in a file, read now and followed from then on. Raises `StartError` when it is not a usable set."""

        async def fetch(address: str) -> bytes:
            return await asyncio.to_thread(read, Path(address))

        keys = cls(_Source(f"MCP_PROXY_JWKS ({path})", str(path), fetch), algorithm, clock)
        try:
            keys._keys = parse_jwks(read(path), algorithm)
        except JwksError as error:
            raise StartError(f"MCP_PROXY_JWKS: {path}: {error}") from None
        return keys

    def find(self, kid: str | None) -> Any:
        """The key for ``kid``, None when the set has none (or several, and the token names none)."""
        return self._keys.get(kid)

    async def refresh(self) -> bool:
        """Fetch now, at most every 30 seconds. Whether a good set came in; a bad one leaves the last good in force."""
        async with self._one_at_a_time:
            now = self._clock.monotonic()
            if self._attempted is not None and now - self._attempted < RETRY_EVERY:
                return False
            return await self._load(now)

    async def _load(self, now: float) -> bool:
        self._attempted = now
        try:
            self._keys = parse_jwks(await self._source.fetch(self._source.address), self.algorithm)
        except JwksError as error:
            self.problem = f"{self._source.name} cannot be refreshed: {error}"
            _log.warning("%s", self.problem)
            return False
        self.problem = None
        return True

    async def watch(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Refresh now and every five minutes, after a failure every 30 seconds, until cancelled."""
        while True:
            async with self._one_at_a_time:
                await self._load(self._clock.monotonic())
            await sleep(RETRY_EVERY if self.problem else REFRESH_EVERY)


def check_url(url: str) -> None:
    """Refuse what keys must not be fetched from: whoever can change the answer can sign tokens. Raises `StartError`."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise StartError("MCP_PROXY_JWKS is not a URL") from None
    if host and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        return
    raise StartError("MCP_PROXY_JWKS must be a path or an https URL (http only for a loopback address)")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_jwks_file(path: Path) -> bytes:
    """The file's content. Raises `JwksError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JWKS + 1)
    except OSError as error:
        raise JwksError(f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_JWKS:
        raise JwksError("larger than 1 MiB")
    return data


async def fetch_https(url: str) -> bytes:
    """GET ``url``: no redirects, 1 MiB and 5 seconds at most. Raises `JwksError`."""
    import aiohttp  # here, not above: the token command reads keys and needs no HTTP client

    body = bytearray()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT)) as session,
            session.get(url, allow_redirects=False, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status != 200:
                raise JwksError(f"answered {answer.status}" + (" (redirects are not followed)" * (answer.status < 400)))
            async for chunk in answer.content.iter_chunked(65_536):
                body += chunk
                if len(body) > MAX_JWKS:
                    raise JwksError("larger than 1 MiB")
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise JwksError(f"cannot be reached ({type(error).__name__})") from None
    return bytes(body)
