"""What a configured server is, once read: the same values whatever file, variable or request it came from.

Reading them from the many dialects is `dialects` and `loader`; living connections are `core.upstream`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class Transport(StrEnum):
    """How an upstream is reached. ``AUTO`` (a URL without a word) tries streamable HTTP, then SSE."""

    STDIO = "stdio"
    SSE = "sse"
    STREAMABLE_HTTP = "streamable-http"
    AUTO = "auto"


def _empty() -> Mapping[str, Any]:
    # A factory because Python 3.11 takes the proxy, which cannot be hashed, for a mutable default.
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ToolOverride:
    """How one tool is shown and called; None leaves what its server says.

    ``fixed``: arguments that are filled in here. ``hidden``: arguments that nobody can give. Callers see neither.
    """

    name: str | None = None
    title: str | None = None
    description: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=_empty, repr=False)
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolRules:
    """Which tools are offered, and how. All names here are the server's own.

    ``allow`` and ``deny``: globs over bare tool names; ``deny`` wins. ``override``: by the tool's name. ``pin``: whether
    a changed definition is held back until it is approved; None means the program's default.
    """

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    override: Mapping[str, ToolOverride] = field(default_factory=_empty)
    pin: bool | None = None


@dataclass(frozen=True, slots=True)
class RetryRules:
    """What may be sent a second time although the first may have been executed.

    ``idempotent``: globs over bare tool names. ``trust_annotations``: believe the server's own ``readOnlyHint`` and
    ``idempotentHint``. ``max``: further attempts after the first.
    """

    max: int = 1
    idempotent: tuple[str, ...] = ()
    trust_annotations: bool = False


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One server as configured. Exactly one of ``command`` and ``url`` is set.

    ``timeout`` (a call's) and ``connect_timeout`` are seconds; None means the program's default. ``max_concurrency``:
    calls sent at once, further ones wait; None means no bound below the queue's. ``replica_set`` joins servers that are
    replicas for every tool they define identically (the entries of ``MCP_URLS``); ``group`` joins declared replicas.
    ``provider`` is another name for the server, where no second server has the same provider. ``source`` says where it
    was written, for people. ``extra`` keeps keys that mean nothing here. ``written`` has the fields that variables were
    expanded in, as they stand in the file (``url``, ``args[1]``): people are shown these.
    """

    name: str
    transport: Transport
    source: str
    command: str | None = None
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=_empty, repr=False)
    cwd: str | None = None
    url: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=_empty, repr=False)
    group: str | None = None
    replica_set: str | None = None
    provider: str | None = None
    disabled: bool = False
    timeout: float | None = None
    connect_timeout: float | None = None
    max_concurrency: int | None = None
    tools: ToolRules = ToolRules()
    retry: RetryRules = RetryRules()
    description: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_empty, repr=False)
    written: Mapping[str, str] = field(default_factory=_empty, repr=False)


class Grade(StrEnum):
    """How well a configuration entry could be taken over."""

    APPROXIMATE = "approximate"
    MANUAL = "manual"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth saying about an entry. Never holds a value, only names."""

    server: str
    field: str
    grade: Grade
    message: str
    source: str


@dataclass(frozen=True, slots=True)
class RefusedServer:
    """A server that cannot be used as written (an unset variable, say): shown as ``failed``, the others go on.

    ``disabled``: it is also switched off, so nobody misses it.
    """

    name: str
    reason: str
    source: str
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Servers:
    """Everything that was configured, in order, with what is to be said about it."""

    specs: tuple[ServerSpec, ...] = ()
    refused: tuple[RefusedServer, ...] = ()
    findings: tuple[Finding, ...] = ()


class ConfigError(Exception):
    """A whole source cannot be used: not readable, of no known form, or a name given twice. Its text is one line."""

    def __init__(self, source: str, reason: str, line: int | None = None) -> None:
        self.source = source
        self.reason = " ".join(reason.split())
        self.line = line
        super().__init__(f"{source}{'' if line is None else f', line {line}'}: {self.reason}")
