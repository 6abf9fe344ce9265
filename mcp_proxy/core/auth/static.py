"""Static tokens: fixed secrets with a name and scopes, beside JWTs (``MCP_PROXY_API_TOKENS``).

Only SHA-256 digests are kept. Secrets of this length need no slow hash: they cannot be guessed.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256

from mcp_proxy.base.errors import StartError
from mcp_proxy.core.auth.principal import DEFAULT_SCOPES, Principal, Scope
from mcp_proxy.core.auth.secret import MAKE_ONE, weakness

MIN_SECRET = 32

_FORMAT = "name:secret:scope+scope"
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_SCOPES = frozenset(str(scope) for scope in Scope)


class StaticTokens:
    """The configured static tokens, found by digest."""

    def __init__(self, entries: Sequence[tuple[bytes, Principal]] = ()) -> None:
        self._entries = tuple(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, digest: bytes) -> Principal | None:
        """The principal whose secret has this SHA-256 digest. All entries are compared, in constant time."""
        found = None
        for known, principal in self._entries:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def parse_static_tokens(text: str) -> StaticTokens:
    """Read ``name:secret:scope+scope,…``; an entry without a third part has the default scopes.

    Raises `StartError` naming the entry's position, and its name where that cannot be a misplaced secret.
    """
    entries: dict[bytes, Principal] = {}
    names: set[str] = set()
    for position, entry in enumerate((part.strip() for part in text.split(",")), start=1):
        if not entry:
            continue
        digest, principal = _parse(entry, position)
        if principal.subject in names or digest in entries:
            what = "name" if principal.subject in names else "secret"
            raise StartError(f"MCP_PROXY_API_TOKENS: entry {position} has the {what} of an earlier one")
        names.add(principal.subject)
        entries[digest] = principal
    if not entries:
        raise StartError(f"MCP_PROXY_API_TOKENS holds no token; entries are {_FORMAT}, separated by commas")
    return StaticTokens(tuple(entries.items()))


def _parse(entry: str, position: int) -> tuple[bytes, Principal]:
    name, colon, rest = entry.partition(":")
    where = f"MCP_PROXY_API_TOKENS: entry {position}"
    if not colon or _NAME.fullmatch(name) is None:
        raise StartError(f"{where} is not {_FORMAT}; names are letters, digits and any of _ . @ -")
    if len(name) < MIN_SECRET:  # a longer one may be a secret in the wrong place
        where += f" ({name})"
    secret, colon, scopes = rest.partition(":")
    if len(secret) < MIN_SECRET:
        raise StartError(
            f"{where}: the secret has {len(secret)} characters, at least {MIN_SECRET} are needed; "
            f"make one with: {MAKE_ONE}"
        )
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise StartError(f"{where}: the secret must be visible ASCII characters; make one with: {MAKE_ONE}")
    if problem := weakness(secret):
        raise StartError(f"{where}: the secret {problem}; make one with: {MAKE_ONE}")
    granted = frozenset(word.strip() for word in scopes.split("+")) if colon else DEFAULT_SCOPES
    if not granted <= _SCOPES:  # not repeated: with a colon in the secret, its end stands here
        raise StartError(f"{where}: an unknown scope; accepted, joined by +: {' '.join(Scope)}")
    return sha256(secret.encode()).digest(), Principal(subject=name, scopes=granted)
