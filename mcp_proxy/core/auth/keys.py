"""From settings to the keys that tokens are verified with. One algorithm, pinned to the key, never taken from a token.

Sets of keys that are looked up by ``kid`` live in `jwks`; signing keys in `mint`; what a token says in `claims`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import StartError
from mcp_proxy.core.auth.jwks import Fetch, JwksKeys, fetch_https, read_jwks_file
from mcp_proxy.core.auth.secret import MAKE_ONE, weakness
from mcp_proxy.settings import Settings

MIN_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518 §3.2: a key of the same size as the hash output or larger."""

MAX_KEY_FILE = 64 * 1024


class KeySet(Protocol):
    """Where the verifier gets its key. ``find`` is a lookup in memory; only ``refresh`` and ``watch`` may wait."""

    @property
    def algorithm(self) -> str:
        """The one algorithm that all its keys are for."""
        ...

    def find(self, kid: str | None) -> Any:
        """The key for a token's (untrusted) ``kid``, None when there is none."""
        ...

    async def refresh(self) -> bool:
        """Look for new keys, unless that was just done. Whether it was done."""
        ...

    async def watch(self) -> None:
        """Keep the keys fresh until cancelled; returns at once where there is nothing to do."""
        ...


class OneKey:
    """A single key, the same for every ``kid``."""

    def __init__(self, algorithm: str, key: Any) -> None:
        self.algorithm = algorithm
        self._key = key

    def find(self, kid: str | None) -> Any:
        return self._key

    async def refresh(self) -> bool:
        return False

    async def watch(self) -> None:
        return


def load_keys(settings: Settings, clock: Clock, fetch: Fetch = fetch_https) -> KeySet | None:
    """The keys that JWTs are verified with; None when JWTs are not accepted (``--no-auth``, or static tokens only).

    Raises `StartError`: no key and no other way in, a weak secret, a key that is not a public one or does not fit the
    algorithm, settings that contradict each other. A JWKS that is fetched is not fetched here.
    """
    if settings.no_auth:
        return None
    algorithm = settings.jwt_algorithm
    if algorithm in MIN_SECRET_BYTES:
        _refuse_public_keys(settings)
        if settings.jwt_secret is None and settings.api_tokens is not None:
            return None
        return OneKey(algorithm, shared_secret(settings))
    if settings.jwt_public_key and settings.jwks:
        raise StartError("MCP_PROXY_JWT_PUBLIC_KEY and MCP_PROXY_JWKS are both set; keep one")
    if settings.jwt_public_key:
        return OneKey(algorithm, _public_key(settings.jwt_public_key, algorithm))
    if settings.jwks:
        return _jwks(settings.jwks, algorithm, clock, fetch)
    if settings.api_tokens is not None:
        return None
    raise StartError(f"JWT_ALGORITHM is {algorithm}: set MCP_PROXY_JWT_PUBLIC_KEY or MCP_PROXY_JWKS to its public key")


def shared_secret(settings: Settings) -> str:
    """``JWT_SECRET``, checked for the configured HS algorithm. Raises `StartError` when missing or weak."""
    algorithm = settings.jwt_algorithm
    size = MIN_SECRET_BYTES[algorithm]
    make_one = f"make one with: {MAKE_ONE}"
    if settings.jwt_secret is None:
        raise StartError(f"JWT_SECRET is not set; {make_one}")
    secret = settings.jwt_secret.get_secret_value()
    if problem := weakness(secret):
        raise StartError(f"JWT_SECRET {problem}; {make_one}")
    if (given := len(secret.encode("utf-8", "surrogateescape"))) < size:
        raise StartError(f"JWT_SECRET has {given} bytes, {algorithm} needs at least {size}; {make_one}")
    try:
        algorithm_named(algorithm).prepare_key(secret)
    except (PyJWTError, ValueError):
        raise StartError(
            f"JWT_SECRET holds a key document, not a secret; set JWT_ALGORITHM to the key's algorithm, or {make_one}"
        ) from None
    return secret


def algorithm_named(name: str) -> Algorithm:
    """PyJWT's implementation of one of the accepted algorithms."""
    return get_default_algorithms()[name]


def read_pem(value: str, setting: str) -> str:
    """PEM text from a setting that holds the text (``\\n`` escapes allowed, as in ``.env``) or a path to it.

    Raises `StartError` when it is neither.
    """
    if value.lstrip().startswith("-----BEGIN"):
        return value.strip().replace("\\n", "\n") + "\n"
    path = Path(value).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE + 1)
        text = data.decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise StartError(f"{setting} is neither PEM text nor a file that can be read ({reason})") from None
    if len(data) > MAX_KEY_FILE:
        raise StartError(f"{setting}: the file {path} is too large to be a key")
    return text


def prepare_key(pem: str, algorithm: str, setting: str) -> Any:
    """The key in ``pem``, of the algorithm's type, curve and size. Raises `StartError` when it does not fit."""
    implementation = algorithm_named(algorithm)
    try:
        key = implementation.prepare_key(pem)
        problem = implementation.check_key_length(key)
    except (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        raise StartError(f"{setting} is not an unencrypted PEM key for {algorithm}; see JWT_ALGORITHM") from None
    if problem:
        raise StartError(f"{setting}: {problem}")
    return key


def _refuse_public_keys(settings: Settings) -> None:
    """A public key beside HS* would be ignored, and whoever set it would believe that it is in use."""
    for name, value in (("MCP_PROXY_JWT_PUBLIC_KEY", settings.jwt_public_key), ("MCP_PROXY_JWKS", settings.jwks)):
        if value:
            raise StartError(
                f"{name} is set but JWT_ALGORITHM is {settings.jwt_algorithm}, which has no public key; "
                "set JWT_ALGORITHM to the key's (RS256, ES256, EdDSA, …)"
            )


def _public_key(value: str, algorithm: str) -> Any:
    setting = "MCP_PROXY_JWT_PUBLIC_KEY"
    pem = read_pem(value, setting)
    if "PRIVATE KEY-----" in pem:
        raise StartError(
            f"{setting} holds a private key; give the public one: openssl pkey -in PRIVATE.pem -pubout, "
            "and keep the private key away from this service"
        )
    if "CERTIFICATE-----" in pem:
        raise StartError(f"{setting} holds a certificate; give its key: openssl x509 -in CERT.pem -noout -pubkey")
    return prepare_key(pem, algorithm, setting)


def _jwks(source: str, algorithm: str, clock: Clock, fetch: Fetch) -> KeySet:
    if "://" in source:
        return JwksKeys.from_url(source, algorithm, clock, fetch)
    return JwksKeys.from_file(Path(source).expanduser(), algorithm, clock, read_jwks_file)
