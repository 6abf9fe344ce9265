"""Names under which the tools of this service are given to models: what all APIs allow, and back again.

OpenAI's and Anthropic's APIs allow ``^[a-zA-Z0-9_-]{1,64}$``; MCP allows nearly anything, and the same name on several
servers. How tools are called at the doors is the catalogue's. Pure.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Iterable
from hashlib import sha256

MOST = 64
"""Characters of a name."""
SEPARATOR = "__"
_MISFIT = re.compile(r"[^a-zA-Z0-9_-]")
_TAIL = 8

OwnName = tuple[str, str]
"""A server or group, and what it calls its tool."""


def tool_name(server: str, tool: str) -> str:
    """The name of a tool wherever nothing else is called so; the same each time, and different for nearly any two."""
    return _candidate(server, tool, 0)


def named(tools: Iterable[OwnName], taken: Container[str] = ()) -> dict[str, OwnName]:
    """The tools by their names for a model, in order; none of the names is in ``taken``. A tool that comes twice has one."""
    found: dict[str, OwnName] = {}
    for server, tool in dict.fromkeys(tools):
        names = (_candidate(server, tool, salt) for salt in itertools.count())
        found[next(name for name in names if name not in found and name not in taken)] = (server, tool)
    return found


def fitted(name: str) -> str:
    """Any name made to fit: names that fit already stay as they are."""
    return _MISFIT.sub("_", name)[:MOST] or "_"


def _candidate(server: str, tool: str, salt: int) -> str:
    """Both names where they fit; with a hash in the place of what does not, or for another name than the first."""
    whole = f"{server}{SEPARATOR}{tool}"
    if not salt and len(whole) <= MOST and _MISFIT.search(whole) is None:
        return whole
    exact = f"{len(server)} {server} {tool} {salt or ''}".encode(errors="surrogatepass")
    return f"{fitted(whole)[: MOST - _TAIL - 1]}_{sha256(exact).hexdigest()[:_TAIL]}"
