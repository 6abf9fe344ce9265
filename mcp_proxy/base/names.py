"""Names of servers: what is accepted, what is made to fit, what is made from a URL.

How tools are named at the doors is the catalogue's business.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

RESERVED = frozenset({"mcp", "hook", "v1", "api"})
"""Names that doors use for themselves."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MISFIT = re.compile(r"[^A-Za-z0-9_-]")


def is_name(text: str) -> bool:
    """Whether ``text`` can name a server or a group."""
    return _NAME.fullmatch(text) is not None and text not in RESERVED


def fit_name(text: str) -> str:
    """The nearest acceptable name: misfits become ``-``, 64 characters at most; "" when nothing is left."""
    fitted = _MISFIT.sub("-", text.strip())[:64]
    return f"{fitted}-server" if fitted in RESERVED else fitted


def name_from_url(url: str) -> str:
    """Host, port and path joined by ``-``: ``http://10.0.0.5:8999/sse`` is ``10-0-0-5-8999-sse``."""
    parts = urlsplit(url)
    pieces = [parts.hostname or "", str(parts.port or ""), *parts.path.split("/")]
    return fit_name("-".join(piece for piece in pieces if piece))
