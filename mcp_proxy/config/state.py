"""What was changed over the API, kept in ``STATE_DIR/servers.json``: servers added, and others switched on or off.

Only this program writes the file. It holds secrets in clear, as hand-written files do, and is readable by its owner
alone. What the entries mean together with variables and files is `sources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mcp_proxy.base.atomic_file import replace_file
from mcp_proxy.base.errors import StartError
from mcp_proxy.base.json import encode
from mcp_proxy.config.model import ConfigError
from mcp_proxy.config.reading import MAX_FILE, read_document
from mcp_proxy.config.syntax import refuse_depth

FILE = "servers.json"
VERSION = 1
_KEYS = frozenset({"version", "revision", "servers", "disabled", "enabled"})


class StoreError(Exception):
    """The state could not be kept; what was kept before is as it was. One line."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the API has changed.

    ``revision`` grows with every change. ``servers``: entries by name in the canonical keys, as the API was given them.
    ``disabled``: servers of files and variables that were switched off; ``enabled``: servers that their file switches
    off and that were switched on. Names of servers that are nowhere any more mean nothing.
    """

    revision: int = 0
    servers: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    disabled: frozenset[str] = frozenset()
    enabled: frozenset[str] = frozenset()


class StateStore:
    """The state of one service on disk. One process writes it."""

    def __init__(self, directory: Path) -> None:
        self.path = state_file(directory)
        self._known: tuple[int, int] | None = None
        """The file as this program last saw it (inode, time of change); None before that."""

    def load(self) -> State:
        """The state as it was last kept; a missing file is an empty state.

        Raises `StartError` with file, line and reason: a state that cannot be read never counts as an empty one.
        """
        try:
            state = self._read()
            self._known = self._look()
            return state
        except ConfigError as error:
            raise StartError(f"{error}; mend it, or remove it to forget what the API changed") from None

    def _read(self) -> State:
        try:
            self.path.lstat()
        except FileNotFoundError:
            return State()
        except OSError as error:
            raise ConfigError(str(self.path), f"cannot be read: {error.strerror}") from None
        document = read_document(self.path)
        if fault := _fault(document):
            raise ConfigError(str(self.path), fault)
        return State(
            document["revision"], document["servers"], frozenset(document["disabled"]), frozenset(document["enabled"])
        )

    def save(self, state: State) -> None:
        """Replace the file as a whole, readable by the owner only. Raises `StoreError`; the old file is then in place.

        A file that another program has changed is not replaced: that change would be lost.
        """
        content = self._written(state)
        found = self._look()
        if None not in (found, self._known) and found != self._known:
            raise StoreError(f"{self.path} was changed by another program; restart this one to take that over")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.path, content)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror or type(error).__name__}") from None
        self._known = self._look()
        self._sweep()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _sweep(self) -> None:
        """Remove what a process left that was killed while it wrote: it holds secrets, and would pile up."""
        for left in self.path.parent.glob(f".{self.path.name}.*"):
            with suppress(OSError):
                left.unlink()

    def _written(self, state: State) -> bytes:
        """The file's content. Raises `StoreError` for what could not be read back at the next start."""
        document = {
            "version": VERSION,
            "revision": state.revision,
            "servers": {name: dict(entry) for name, entry in state.servers.items()},
            "disabled": sorted(state.disabled),
            "enabled": sorted(state.enabled),
        }
        try:
            refuse_depth(document, str(self.path))
            content = encode(document) + b"\n"
        except ConfigError as error:
            raise StoreError(str(error)) from None
        except (TypeError, ValueError):
            raise StoreError(f"{self.path}: the servers hold something that is no JSON") from None
        if len(content) > MAX_FILE:
            raise StoreError(f"{self.path} would be larger than {MAX_FILE // 1_000_000} MB")
        return content


def state_file(directory: Path) -> Path:
    """Where the state is kept in a state directory."""
    return directory / FILE


def _fault(document: Any) -> str | None:
    """Why a document cannot be a state of this version, None when it can."""
    if not isinstance(document, dict):
        return "must be an object"
    if (version := document.get("version")) != VERSION or isinstance(version, bool):
        return f"has no version {VERSION}; another version of this program may have written it"
    if missing := next(iter(sorted(_KEYS - document.keys())), None):
        return f"{missing} is missing"
    if unknown := next(iter(sorted(document.keys() - _KEYS)), None):
        return f"{unknown[:64]!a} is not known"
    revision, servers = document["revision"], document["servers"]
    if not isinstance(revision, int) or isinstance(revision, bool) or revision < 0:
        return "revision must be a whole number, 0 or more"
    if not isinstance(servers, dict) or not all(isinstance(entry, dict) for entry in servers.values()):
        return "servers must be an object of servers"
    return next(
        (f"{key} must be a list of names" for key in ("disabled", "enabled") if not _names(document[key])), None
    )


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
