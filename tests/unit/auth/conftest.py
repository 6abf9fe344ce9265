"""Keys, a clock that stands still, and tokens of every shape: well formed by PyJWT, malformed by hand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mcp_proxy.core.auth.keys import load_keys
from mcp_proxy.core.auth.revocation import Revocations
from mcp_proxy.core.auth.verifier import TokenVerifier
from mcp_proxy.settings import Settings, load_settings

SECRET = "Zk3vQ9xT7mB1rW5nY8cJ2pL6dH4fG0sAeUiOqXwV-7tR!eK_b2N@hMz0yPuC8gDj5"
NOW = 1_800_000_000


class FakeClock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.wall = float(NOW)
        self.mono = 50.0

    def monotonic(self) -> float:
        return self.mono

    def time(self) -> float:
        return self.wall

    def move(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


class Pair:
    """A key pair as PEM and as JWK."""

    def __init__(self, private: Any) -> None:
        self.private = private
        self.private_pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self.public_pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def jwk(self, algorithm: str, **members: Any) -> dict[str, Any]:
        """The public key as a member of a JWKS."""
        implementation = jwt.get_algorithm_by_name(algorithm)
        return {**implementation.to_jwk(self.private.public_key(), as_dict=True), **members}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def secret() -> str:
    return SECRET


@pytest.fixture(scope="session")
def rsa_pair() -> Pair:
    return Pair(rsa.generate_private_key(65537, 2048))


@pytest.fixture(scope="session")
def other_rsa_pair() -> Pair:
    return Pair(rsa.generate_private_key(65537, 2048))


@pytest.fixture(scope="session")
def ec_pair() -> Pair:
    return Pair(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="session")
def ed_pair() -> Pair:
    return Pair(ed25519.Ed25519PrivateKey.generate())


@pytest.fixture
def settings_from() -> Callable[..., Settings]:
    """Settings from environment variables only."""

    def build(**environ: str) -> Settings:
        return load_settings(environ=environ, env_file=None).settings

    return build


@pytest.fixture
def verifier_for(
    settings_from: Callable[..., Settings], clock: FakeClock, tmp_path: Path
) -> Callable[..., TokenVerifier]:
    """A verifier from environment variables; the usual secret unless something else is said."""

    def build(**environ: str) -> TokenVerifier:
        settings = settings_from(**(environ if "JWT_ALGORITHM" in environ else {"JWT_SECRET": SECRET, **environ}))
        return TokenVerifier(settings, load_keys(settings, clock), clock, Revocations(tmp_path))

    return build


@pytest.fixture
def sign() -> Callable[..., str]:
    """A token with exactly these claims (``exp`` in an hour unless given; None leaves it out)."""

    def build(
        _key: Any = SECRET, _algorithm: str = "HS256", _headers: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        claims.setdefault("exp", NOW + 3600)
        if claims["exp"] is None:
            del claims["exp"]
        return jwt.encode(claims, _key, algorithm=_algorithm, headers=_headers)

    return build


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def by_hand() -> Callable[..., str]:
    """A token that no library would make, with a valid HS256 signature under ``key`` (None: an empty signature)."""

    def build(header: Any, payload: Any, key: str | bytes | None = SECRET) -> str:
        parts = [data if isinstance(data, bytes) else json.dumps(data).encode() for data in (header, payload)]
        signed = ".".join(_segment(part) for part in parts)
        if key is None:
            return f"{signed}."
        raw = key if isinstance(key, bytes) else key.encode()
        return f"{signed}.{_segment(hmac.new(raw, signed.encode(), hashlib.sha256).digest())}"

    return build
