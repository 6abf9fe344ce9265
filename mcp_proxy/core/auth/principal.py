"""The principal: what a verified token (or a trusted door) says of a caller. One place decides what it may do.

Reading tokens is `verifier`; this module knows no JWT.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import translate
from functools import lru_cache


class Scope(StrEnum):
    """What a principal may do; ``admin`` includes all others."""

    TOOLS_READ = "tools:read"
    TOOLS_CALL = "tools:call"
    SERVERS_READ = "servers:read"
    SERVERS_WRITE = "servers:write"
    LOGS_READ = "logs:read"
    LLM_CALL = "llm:call"
    LLM_SERVE = "llm:serve"
    ADMIN = "admin"


DEFAULT_SCOPES = frozenset({Scope.TOOLS_READ, Scope.TOOLS_CALL, Scope.SERVERS_READ, Scope.LLM_CALL})
"""Of a token without a ``scope`` claim."""


@lru_cache(maxsize=4096)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller.

    ``servers`` and ``tools`` are globs, None where the token does not narrow. A tool glob with a dot is matched against
    ``server.tool`` (and ``group.tool``), one without against the tool's bare name. ``rate`` is calls a minute.
    ``expires`` is Unix time, None for callers without a token.
    """

    subject: str
    scopes: frozenset[str] = field(default=DEFAULT_SCOPES)
    servers: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    rate: int | None = None
    token_id: str | None = None
    expires: float | None = None
    owner: str | None = None
    """Tells callers apart whose tokens name nobody."""
    compact: bool = False
    """Whether MCP clients with this token list the meta tools instead of all tools."""
    rpm: int | None = None
    """Completions a minute. As the next ones None where the token does not limit."""
    tpm: int | None = None
    """Tokens a minute, of questions and answers."""
    max_parallel: int | None = None
    """Completions at once."""
    budget_tokens: int | None = None
    """Tokens of questions and answers in all, for as long as the token is accepted."""
    max_tokens: int | None = None
    """Tokens of one answer."""

    @property
    def who(self) -> str:
        """Equal for requests of one caller, and for no two callers."""
        return self.subject if self.owner is None else self.owner

    def has(self, scope: Scope) -> bool:
        """Whether this caller holds ``scope``."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def sees_server(self, name: str, group: str | None = None) -> bool:
        """Whether the server, by its own name or its group's, is within the token's ``servers``."""
        return self.servers is None or any(
            _glob(pattern).match(word) for pattern in self.servers for word in (name, group) if word
        )

    def sees_model(self, name: str) -> bool:
        """Whether the model is within the token's ``models``."""
        return self.models is None or any(_glob(pattern).match(name) for pattern in self.models)

    def sees_tool(self, tool: str, server: str, group: str | None = None) -> bool:
        """Whether the tool is within the token's ``servers`` and ``tools``."""
        if not self.sees_server(server, group):
            return False
        if self.tools is None:
            return True
        full = [f"{owner}.{tool}" for owner in (server, group) if owner]
        return any(
            any(_glob(pattern).match(name) for name in (full if "." in pattern else (tool,))) for pattern in self.tools
        )


EVERYTHING = frozenset({str(scope) for scope in Scope})
LOCAL = Principal(subject="local", scopes=EVERYTHING)
"""The caller at doors that need no token (``--no-auth``, stdio)."""

PRINCIPAL_KEY = "mcp_proxy.principal"
"""Where the edge keeps the caller in the ASGI scope; the value is None when no token was sent."""
