"""Finding the token of a request and what it says of the caller; below here no scope holds the token any more.

Whether a caller may do what it asks is decided where it is asked; a caller without a token is passed on as None.
Reading tokens is `core.auth.verifier`.
"""

from __future__ import annotations

from typing import Protocol
from urllib.parse import unquote_to_bytes

from mcp_proxy.base.errors import BAD_REQUEST, UNAUTHORIZED, ProxyError
from mcp_proxy.core.auth.principal import LOCAL, PRINCIPAL_KEY, Principal
from mcp_proxy.core.auth.resource import WELL_KNOWN
from mcp_proxy.edge.respond import refuse
from mcp_proxy.edge.types import App, Header, Receive, Scope, Send
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord

_HEADER_ONLY = frozenset({"mcp", "sse", "messages", "hook", "v1"})
"""First parts of the paths of the MCP and LLM doors: MCP's specification forbids tokens in the query."""

_OFFERED = b"bearer."
"""What a token has in front where it stands among the subprotocols of a WebSocket."""

_KEYS_AT = "/v1/"
_KEYS = frozenset({b"x-api-key", b"api-key"})
"""Headers that clients of the LLM APIs put their key in, below that path; with us it is the token."""

_HEALTH = frozenset({"/health", "/health/live", "/health/ready"})
_OPEN = frozenset({"/"}) | _HEALTH
"""Paths for everybody: a token that is not accepted counts as none, so that no probe fails of an old one.

So is everything below `WELL_KNOWN`, which clients read when their token is not accepted.
"""


class Verifier(Protocol):
    """What a token says. Raises `ProxyError` (unauthorized) for one that is not accepted, without repeating it."""

    async def authenticate(self, token: str) -> Principal: ...


class Rates(Protocol):
    """How many requests are accepted. Raises `ProxyError` (rate_limited)."""

    async def take(self, principal: Principal | None, address: str | None) -> None: ...


class Identity:
    """Puts the `Principal`, or None, under ``PRINCIPAL_KEY``; refuses tokens that are not accepted, on any path.

    With ``no_auth`` everyone is ``LOCAL``, and tokens are dropped unread.
    """

    def __init__(self, app: App, verifier: Verifier, *, no_auth: bool, rates: Rates) -> None:
        self._app = app
        self._verifier = verifier
        self._no_auth = no_auth
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            given = _take_header(scope)
            keys = _take_keys(scope) if scope["path"].startswith(_KEYS_AT) else []
            asked = _take_query(scope)
            offered = _take_protocols(scope)
            principal = LOCAL if self._no_auth else None
            if (given or keys or asked or offered) and not self._no_auth:
                try:
                    bearers = [_bearer(value) for value in given]
                    # Some clients send the same one in both ways.
                    bearers += [key for key in dict.fromkeys(keys) if key not in bearers]
                    token = _choose(scope["path"], bearers, asked, offered)
                    principal = None if token is None else await self._verifier.authenticate(token)
                except ProxyError as error:
                    if error.status != 401 or not (scope["path"] in _OPEN or scope["path"].startswith(WELL_KNOWN)):
                        limited = await self._over(scope, None)
                        return await refuse(scope, send, limited or error, token_given=limited is None)
            scope[PRINCIPAL_KEY] = principal
            record: RequestRecord | None = scope.get(SCOPE_KEY)
            if record is not None and principal is not None:
                record.principal = principal.subject
            if (limited := await self._over(scope, principal)) is not None:
                return await refuse(scope, send, limited)
        return await self._app(scope, receive, send)

    async def _over(self, scope: Scope, principal: Principal | None) -> ProxyError | None:
        """The error for a caller that sends too much. Probes of the service's health are not counted."""
        if scope["path"] in _HEALTH:
            return None
        client = scope.get("client")
        try:
            await self._rates.take(principal, client[0] if client else None)
        except ProxyError as error:
            return error
        return None


def _take_header(scope: Scope) -> list[bytes]:
    """Remove the ``Authorization`` headers from ``scope`` and return their values."""
    headers: list[Header] = scope["headers"]
    values = [value for name, value in headers if name == b"authorization"]
    if values:
        scope["headers"] = [header for header in headers if header[0] != b"authorization"]
    return values


def _take_keys(scope: Scope) -> list[str]:
    """Remove the headers with a key from ``scope`` and return their values."""
    headers: list[Header] = scope["headers"]
    values = [value.decode("latin-1").strip() for name, value in headers if name in _KEYS]
    if values:
        scope["headers"] = [header for header in headers if header[0] not in _KEYS]
    return [value for value in values if value]


def _take_query(scope: Scope) -> list[bytes]:
    """Remove the ``token`` parameters from ``scope``'s query and return their values, still encoded."""
    query: bytes = scope.get("query_string", b"")
    if not query or (b"token" not in query and b"%" not in query):
        return []
    kept, values = [], []
    for piece in query.split(b"&"):
        name, _, value = piece.partition(b"=")
        if unquote_to_bytes(name) == b"token":
            values.append(value)
        else:
            kept.append(piece)
    if values:
        scope["query_string"] = b"&".join(kept)
        raw_path = scope.get("raw_path")
        if raw_path and b"?" in raw_path:  # some servers leave the query there
            scope["raw_path"] = raw_path.partition(b"?")[0]
    return values


def _take_protocols(scope: Scope) -> list[bytes]:
    """Remove the tokens among a WebSocket's subprotocols (``bearer.TOKEN``) from ``scope`` and return them.

    A script in a browser has no other way but the query.
    """
    if scope["type"] != "websocket":
        return []
    headers: list[Header] = scope["headers"]
    words = [word.strip() for name, value in headers if name == b"sec-websocket-protocol" for word in value.split(b",")]
    tokens = [word for word in words if word[: len(_OFFERED)].lower() == _OFFERED]
    if tokens:
        kept = [word for word in words if word not in tokens]
        scope["headers"] = [header for header in headers if header[0] != b"sec-websocket-protocol"]
        scope["headers"] += [(b"sec-websocket-protocol", b", ".join(kept))] if kept else []
        scope["subprotocols"] = [word.decode("latin-1") for word in kept]
    return [word[len(_OFFERED) :] for word in tokens]


def _choose(path: str, given: list[str], asked: list[bytes], offered: list[bytes]) -> str | None:
    """The one token of the request; None when it counts as none at this path. Raises `ProxyError` when there are several.

    ``given``: those of the headers.
    """
    if given and asked:
        raise ProxyError(BAD_REQUEST, "a token in the Authorization header and one in the query: send one")
    if len(given) + len(asked) + len(offered) > 1:
        raise ProxyError(BAD_REQUEST, "more than one token: send one")
    if given:
        return given[0]
    if offered:
        return offered[0].decode("latin-1")
    if path.lstrip("/").partition("/")[0] in _HEADER_ONLY:
        return None
    token = unquote_to_bytes(asked[0].replace(b"+", b" "))
    if not token:
        raise ProxyError(UNAUTHORIZED, "the token is empty; send Authorization: Bearer TOKEN")
    return token.decode("latin-1")


def _bearer(value: bytes) -> str:
    """RFC 6750 §2.1: the scheme, in any case, spaces, and one token."""
    scheme, _, token = value.strip().partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token or b" " in token or b"," in token:
        raise ProxyError(UNAUTHORIZED, "the Authorization header is not of the form: Bearer TOKEN")
    return token.decode("latin-1")
