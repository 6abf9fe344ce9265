"""One file with servers that is read again and again: what it says now, what it last said that could be used.

When it is read is decided by `sources`.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mcp_proxy.config.dialects import parse_servers
from mcp_proxy.config.model import ConfigError, Servers
from mcp_proxy.config.reading import parse_content, read_content

_NOTHING = Servers()


class ServerFile:
    """``in_force`` is what was last taken over, set by those who decide that; nothing at first.

    ``provider``: the subdirectory of ``--config-dir`` that the file is in. It names a single entry without a name of
    its own, and is the provider of entries that name none. ``source`` is the path as people are shown it.
    """

    def __init__(self, path: Path, environ: Mapping[str, str], provider: str | None = None) -> None:
        self.path = path
        self.source = _shown(str(path))
        self.in_force = _NOTHING
        self._environ = environ
        self._provider = provider and _shown(provider)
        self._content: bytes | None = None
        self._said: Servers | ConfigError = _NOTHING

    def __repr__(self) -> str:
        return f"<ServerFile {self.path}: {len(self.in_force.specs)} in force>"

    def read(self) -> Servers:
        """What the file says now; the same object as before when nothing has changed. Raises `ConfigError`."""
        if not (self._content is not None and self._is_spent()):
            content = self._read_content()
            if content != self._content:
                self._said, self._content = self._meaning(content), content
        if isinstance(self._said, ConfigError):
            raise ConfigError(self.source, self._said.reason, self._said.line)
        return self._said

    def _is_spent(self) -> bool:
        """A pipe, such as a shell's ``<(…)``, gives its content once."""
        try:
            return stat.S_ISFIFO(self.path.stat().st_mode)
        except (OSError, ValueError):
            return False

    def _read_content(self) -> bytes:
        # Nobody means a pipe in a directory, and reading one would wait for ever.
        if self._provider is not None and self._is_spent():
            raise ConfigError(self.source, "is not a file")
        return read_content(self.path)

    def _meaning(self, content: bytes) -> Servers | ConfigError:
        name = self._provider or self.path.stem
        try:
            servers = parse_servers(parse_content(content, self.path), self.source, self._environ, name)
        except ConfigError as error:
            return error
        if self._provider is None:
            return servers
        return replace(
            servers,
            specs=tuple(replace(spec, provider=spec.provider or self._provider) for spec in servers.specs),
        )


def _shown(path: str) -> str:
    """A name that can be sent as text; on disk it may hold bytes that are no UTF-8."""
    return path.encode("utf-8", "replace").decode()
