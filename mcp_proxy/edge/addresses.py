"""Who may be talking to us, by Host and Origin (against DNS rebinding and foreign web pages), and sane headers.

The MCP transport's security section asks for the Origin check, RFC 9112 §6.1 and §3.2 for the framing and Host ones.
Tokens are `identity`; how large a body may be is `limits`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from itertools import chain

from mcp_proxy.base.errors import BAD_REQUEST, ORIGIN_NOT_ALLOWED, UNKNOWN_HOST, ProxyError, StartError
from mcp_proxy.base.quote import quote
from mcp_proxy.edge.respond import closing, refuse
from mcp_proxy.edge.types import HEADERS_KEY, App, Header, Receive, Scope, Send

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
"""Names and values together."""

_REMEMBERED = 128
"""Decisions about names, each as large as headers may be at most: the same few clients come again and again."""
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}))(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://(.+)", re.I)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ONCE = (b"host", b"origin", b"transfer-encoding")  # several lengths are judged by `limits`


@dataclass(frozen=True, slots=True)
class Authority:
    """Host and port of a URL or a Host header. ``host`` is lower case, IPv6 in brackets; ``port`` None if not given."""

    host: str
    port: int | None


class Addresses:
    """Refuses requests that name another host, come from another origin, or whose headers are not to be trusted."""

    def __init__(self, app: App, host: str, allow_host: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        """``host`` is the address bound to, ``origins`` are those of pages that may call besides our own.

        Raises `StartError` for an ``allow_host`` that is no host name.
        """
        self._app = app
        self._allowed = check_hosts(allow_host)
        self._origins = frozenset(origins)
        self._any_host = not self._allowed and not is_loopback_bind(host)
        self._judge_names = lru_cache(_REMEMBERED)(self._decide)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if (error := self._judge(scope)) is not None:
            return refuse(scope, send, error, closing(scope) if error.kind is BAD_REQUEST else ())
        return self._app(scope, receive, send)

    def _judge(self, scope: Scope) -> ProxyError | None:
        """The reason to refuse, or None."""
        headers, named = scope["headers"], scope[HEADERS_KEY]
        count = len(headers)
        if not scope["path"]:
            return _bad("its path is empty")
        if count > MAX_HEADERS:
            return _bad(f"more than {MAX_HEADERS} headers")
        if sum(map(len, chain.from_iterable(headers))) > MAX_HEADER_BYTES:
            return _bad(f"more than {MAX_HEADER_BYTES} bytes of headers")
        if len(named) < count and (twice := _twice(headers)) is not None:
            return _bad(f"several {twice.decode().title()} headers")
        if b"transfer-encoding" in named and b"content-length" in named:
            return _bad("both Content-Length and Transfer-Encoding")
        return self._judge_names(named.get(b"host"), named.get(b"origin"))

    def _decide(self, host: bytes | None, origin: bytes | None) -> ProxyError | None:
        own = parse_authority(host.decode("latin-1")) if host else None
        if host and own is None:
            return _bad("the Host header is malformed")
        if not self._any_host and (own is None or not self._accepts(own)):
            return ProxyError(UNKNOWN_HOST, "this service does not go by that Host name; --allow-host adds names")
        page = None if origin is None else origin.decode("latin-1")
        if page is not None and page not in self._origins and (own is None or not same_origin(page, own)):
            return ProxyError(
                ORIGIN_NOT_ALLOWED,
                "requests from web pages of another origin are not accepted; --cors-origin adds origins",
            )
        return None

    def _accepts(self, own: Authority) -> bool:
        return is_loopback(own.host) or own in self._allowed or Authority(own.host, None) in self._allowed


def parse_authority(text: str) -> Authority | None:
    """``host``, ``host:port``, ``[v6]`` or ``[v6]:port`` and nothing else; None when it is anything else."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host, port = match[1].lower(), None if match[2] is None else int(match[2])
    if port is not None and not 0 < port < 65536:
        return None
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1]).compressed}]"
        except AddressValueError:
            return None
    return Authority(host, port)


def same_origin(origin: str, own: Authority) -> bool:
    """Whether ``origin`` (RFC 6454 §6.2) names the host and port that the request was sent to.

    A port left out is the default of the origin's scheme on both sides: behind a TLS terminator the request itself
    is plain http. ``null`` is nobody's origin.
    """
    match = _ORIGIN.fullmatch(origin)
    page = parse_authority(match[2]) if match else None
    if match is None or page is None:
        return False
    default = _DEFAULT_PORTS[match[1].lower()]
    return page.host == own.host and (page.port or default) == (own.port or default)


def is_loopback(host: str) -> bool:
    """Whether ``host`` (as in `Authority`) is ``localhost``, an address in 127/8, or ``[::1]``."""
    if host in ("localhost", "[::1]"):
        return True
    try:
        return host.startswith("127.") and IPv4Address(host).is_loopback
    except AddressValueError:
        return False


def is_loopback_bind(host: str) -> bool:
    """Whether an address to listen on is reachable from this machine only."""
    bound = parse_authority(f"[{host}]" if ":" in host and not host.startswith("[") else host)
    return bound is not None and is_loopback(bound.host)


def check_hosts(allow_host: Iterable[str]) -> frozenset[Authority]:
    """The ``--allow-host`` names. Raises `StartError` for one that is no host name."""
    return frozenset(_allowed(entry) for entry in allow_host)


def refuse_open_doors(host: str, *, no_auth: bool) -> None:
    """Without tokens only this machine may call. Raises `StartError`."""
    if no_auth and not is_loopback_bind(host):
        text = f"--no-auth is for loopback binds only, and HOST is {quote(host)}; use tokens, or 127.0.0.1"
        raise StartError(text)


def _allowed(entry: str) -> Authority:
    bracketed = f"[{entry}]" if entry.count(":") > 1 and not entry.startswith("[") else entry
    authority = parse_authority(bracketed)
    if authority is None:
        raise StartError(
            f"--allow-host (MCP_PROXY_ALLOW_HOST) is {quote(entry)}; accepted: host names, with or without a port"
        )
    return authority


def _twice(headers: Iterable[Header]) -> bytes | None:
    """Which of the headers that are to be there once is there several times."""
    names = [name for name, _ in headers]
    return next((name for name in _ONCE if names.count(name) > 1), None)


def _bad(what: str) -> ProxyError:
    return ProxyError(BAD_REQUEST, f"the request is not acceptable: {what}")
