"""Words for transports, and URLs of servers: which are accepted, and what a path says about the transport.

Whether an address may be called (private networks, say) is decided where servers come in over the API.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from mcp_proxy.config.model import Transport

_WORDS = {
    "http": Transport.STREAMABLE_HTTP,
    "streamablehttp": Transport.STREAMABLE_HTTP,
    "remote": Transport.STREAMABLE_HTTP,
    "sse": Transport.SSE,
    "stdio": Transport.STDIO,
    "std": Transport.STDIO,
    "local": Transport.STDIO,
    "auto": Transport.AUTO,
}
_NOT_LETTER = re.compile(r"[^A-Za-z]")
_NOT_IN_URL = re.compile(r"[\s\x00-\x20\x7f-\x9f\ud800-\udfff]")
_HOST = re.compile(r"""[^/\\?#@<>"'{}|^`%\[\]:,;()$&*!=+]+""")


def transport_word(word: str) -> Transport | None:
    """The transport that a client means by ``streamableHttp``, ``STREAMABLE_HTTP``, ``remote``…; None for no known."""
    return _WORDS.get(_NOT_LETTER.sub("", word).lower())


def url_fault(url: str) -> str | None:
    """Why ``url`` cannot be a server's, None when it can. The text repeats nothing of it: it may hold a password."""
    # First of all, because the parser below drops line breaks without a word.
    if _NOT_IN_URL.search(url):
        return "holds a space or a control character"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL: its host or port cannot be read"
    if parts.scheme not in ("http", "https"):
        return "must begin with http:// or https://"
    if "@" in parts.netloc:
        return "carries a user name or password; send them in a header instead"
    if not host or not _is_host(host, bracketed="[" in parts.netloc):
        return "has no host that can be called"
    if port == 0:
        return "has no port that can be called"
    return None


def looks_like_url(text: str) -> bool:
    """Whether a text that should be a command is an address."""
    return text.lower().startswith(("http://", "https://"))


def transport_of(url: str) -> Transport:
    """What the path of an accepted URL says: ``…/sse`` is SSE, anything else leaves it open."""
    return Transport.SSE if urlsplit(url).path.rstrip("/").endswith("/sse") else Transport.AUTO


def _is_host(host: str, *, bracketed: bool) -> bool:
    if not bracketed:
        return _HOST.fullmatch(host) is not None
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
