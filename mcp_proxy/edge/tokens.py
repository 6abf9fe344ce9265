"""Finding the token of a request, wherever clients may put it, and taking it out: below no scope holds it any more.

What it says of the caller is `identity`.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from mcp_proxy.base.errors import BAD_REQUEST, UNAUTHORIZED, ProxyError
from mcp_proxy.edge.types import HEADERS_KEY, Header, Scope

_HEADER_ONLY = frozenset({"mcp", "sse", "messages", "hook", "v1"})
"""First parts of the paths of the MCP and LLM doors: MCP's specification forbids tokens in the query."""

_OFFERED = b"bearer."
"""What a token has in front where it stands among the subprotocols of a WebSocket."""

_KEYS_AT = "/v1/"
_KEYS = (b"x-api-key", b"api-key")
"""Headers that clients of the LLM APIs put their key in, below that path; with us it is the token."""


def take_token(scope: Scope) -> str | ProxyError | None:
    """Remove all tokens from ``scope`` and return the one that counts: None for none, an error for what is not one."""
    headers = scope[HEADERS_KEY]
    given = _take(scope, b"authorization") if b"authorization" in headers else []
    keys = _take_keys(scope) if b"x-api-key" in headers or b"api-key" in headers else []
    asked = _take_query(scope) if scope.get("query_string") else []
    offered = _take_protocols(scope) if scope["type"] == "websocket" else []
    try:
        match given, keys, asked, offered:
            case [], [], [], []:
                return None
            case [value], [], [], []:
                return _bearer(value)
        return _choose(scope["path"], given, keys, asked, offered)
    except ProxyError as error:
        return error


def _take(scope: Scope, name: bytes) -> list[bytes]:
    """Remove the headers with this name from ``scope``, where there are any, and return their values."""
    headers: list[Header] = scope["headers"]
    scope["headers"] = [header for header in headers if header[0] != name]
    del scope[HEADERS_KEY][name]
    return [value for key, value in headers if key == name]


def _take_keys(scope: Scope) -> list[str]:
    """Remove the headers with a key from ``scope`` and return their values."""
    if not scope["path"].startswith(_KEYS_AT):
        return []
    values = [value for name in _KEYS if name in scope[HEADERS_KEY] for value in _take(scope, name)]
    return [key for value in values if (key := value.decode("latin-1").strip())]


def _take_query(scope: Scope) -> list[bytes]:
    """Remove the ``token`` parameters from ``scope``'s query and return their values, still encoded."""
    query: bytes = scope["query_string"]
    if b"token" not in query and b"%" not in query:
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
    headers: list[Header] = scope["headers"]
    words = [word.strip() for name, value in headers if name == b"sec-websocket-protocol" for word in value.split(b",")]
    tokens = [word for word in words if word[: len(_OFFERED)].lower() == _OFFERED]
    if tokens:
        kept = [word for word in words if word not in tokens]
        _take(scope, b"sec-websocket-protocol")
        if kept:
            scope["headers"].append((b"sec-websocket-protocol", b", ".join(kept)))
            scope[HEADERS_KEY][b"sec-websocket-protocol"] = b", ".join(kept)
        scope["subprotocols"] = [word.decode("latin-1") for word in kept]
    return [word[len(_OFFERED) :] for word in tokens]


def _choose(path: str, given: list[bytes], keys: list[str], asked: list[bytes], offered: list[bytes]) -> str | None:
    """The one token of the request; None when it counts as none at this path. Raises `ProxyError` for several.

    By where they were: ``given`` in Authorization, ``keys`` and ``asked`` (in the query), ``offered`` as a subprotocol.
    """
    headers = [_bearer(value) for value in given]
    # Some clients send the same one in both ways.
    headers += [key for key in dict.fromkeys(keys) if key not in headers]
    if headers and asked:
        raise ProxyError(BAD_REQUEST, "a token in the Authorization header and one in the query: send one")
    if len(headers) + len(asked) + len(offered) > 1:
        raise ProxyError(BAD_REQUEST, "more than one token: send one")
    if headers:
        return headers[0]
    if offered:
        return offered[0].decode("latin-1")
    if not asked or path.lstrip("/").partition("/")[0] in _HEADER_ONLY:
        return None
    token = unquote_to_bytes(asked[0].replace(b"+", b" "))
    if not token:
        raise ProxyError(UNAUTHORIZED, "the token is empty; send Authorization: Bearer TOKEN")
    return token.decode("latin-1")


def _bearer(value: bytes) -> str:
    """RFC 6750 §2.1: the scheme, in any case, spaces, and one token."""
    value = value.strip()
    token = value[7:].strip()
    if value[:7].lower() != b"bearer " or not token or b" " in token or b"," in token:
        raise ProxyError(UNAUTHORIZED, "the Authorization header is not of the form: Bearer TOKEN")
    return token.decode("latin-1")
