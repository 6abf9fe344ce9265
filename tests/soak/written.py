"""Servers written in every place there is, and what that should come to: files on disk, and the changes asked of the API.

`Written` does what an operator does and keeps count; `expected` is what the proxy then has to show. It asks nothing.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.harness import UPSTREAM

Entry = dict[str, Any]
PLACES = ("file", "linked", "directory")
"""A ``--config`` file, one that is a symbolic link into a versioned directory, and ``--config-dir``."""
MANNERS = ("renamed over", "in place", "in two steps")
"""How a file is written: replaced at once, rewritten, or cut short first and completed a moment later."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the proxy has to show of a server."""

    origin: str
    disabled: bool
    description: str | None


@dataclass
class Written:
    """Everything that is written down, in ``root``. ``steady`` entries are by place and never changed."""

    root: Path
    steady: Mapping[str, Mapping[str, Entry]]
    files: dict[str, dict[str, Entry]] = field(default_factory=lambda: {place: {} for place in PLACES})
    added: dict[str, Entry] = field(default_factory=dict)
    overlaid: dict[str, bool] = field(default_factory=dict)
    """Servers of files that the API switched: whether they are off."""
    versions: int = 0

    # Where things are

    @property
    def file(self) -> Path:
        return self.root / "servers.json"

    @property
    def linked(self) -> Path:
        """As Kubernetes mounts a ConfigMap: a link to ``..data/…``, where ``..data`` is a link that is swapped."""
        return self.root / "mounted" / "servers.json"

    @property
    def directory(self) -> Path:
        return self.root / "providers"

    def arguments(self) -> list[str]:
        """For the command line of the proxy."""
        return ["--config", str(self.file), "--config", str(self.linked), "--config-dir", str(self.directory)]

    def place_of(self, name: str) -> str | None:
        """The place where a server is written; None for one of the API."""
        return next((place for place, entries in self.files.items() if name in entries), None)

    # What has to be shown

    def expected(self) -> dict[str, Shown]:
        """Every server by name."""
        found = {}
        for place in PLACES:
            for name, entry in {**self.steady.get(place, {}), **self.files[place]}.items():
                off = self.overlaid.get(name, bool(entry.get("disabled")))
                found[name] = Shown("file" if place == "linked" else place, off, entry.get("description"))
        for name, entry in self.added.items():
            found[name] = Shown("state", bool(entry.get("disabled")), entry.get("description"))
        return found

    def running(self) -> set[str]:
        """The marks of commands that have to run, once each."""
        shown = self.expected()
        entries = {**self.added}
        for written in self.files.values():
            entries |= written
        return {mark for name, entry in entries.items() if (mark := mark_of(entry)) and not shown[name].disabled}

    # Writing

    def begin(self) -> None:
        """Write everything for the first time."""
        self.linked.parent.mkdir()
        self.directory.mkdir()
        self.save("file", MANNERS[0])
        self.save("linked")
        self.linked.symlink_to(Path("..data") / "servers.json")
        for name in self.steady.get("directory", {}):
            self.save_provider(name)

    def content(self, place: str) -> str:
        """A whole file, steady servers first."""
        return json.dumps({"mcpServers": {**self.steady.get(place, {}), **self.files[place]}}, indent=2)

    def save(self, place: str, manner: str = "in place") -> None:
        """Write a ``--config`` file as it is to be now. Without ``in two steps``, which is the caller's to time."""
        if place == "linked":
            self.swap(self.content(place))
        else:
            write(self.file, self.content(place), manner)

    def swap(self, content: str) -> None:
        """A new version of the mounted directory, the link to it replaced, the old version removed."""
        mounted, self.versions = self.linked.parent, self.versions + 1
        version, link = mounted / f"..version{self.versions}", mounted / "..data"
        before = link.resolve() if link.is_symlink() else None
        version.mkdir()
        (version / "servers.json").write_text(content)
        fresh = mounted / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.replace(link)
        if before is not None:
            (before / "servers.json").unlink()
            before.rmdir()

    def provider_file(self, name: str) -> Path:
        return self.directory / f"of-{name}" / "mcp_settings.json"

    def save_provider(self, name: str, manner: str = "in place") -> None:
        """Write, or remove, the file of a provider, in the router's form."""
        entry = {**self.steady.get("directory", {}), **self.files["directory"]}.get(name)
        path = self.provider_file(name)
        if entry is None:
            path.unlink()
            path.parent.rmdir()
            return
        path.parent.mkdir(exist_ok=True)
        kept = {key: value for key, value in entry.items() if key != "disabled"}
        document = {
            "provider": path.parent.name,
            "isActive": not entry.get("disabled", False),
            "name": name,
            "type": "stdio" if "command" in entry else "http",
            **kept,
        }
        write(path, json.dumps(document), manner)


def write(path: Path, content: str, manner: str) -> None:
    """As an editor does that replaces files, or as one that writes into them."""
    if manner == "renamed over":
        fresh = path.with_name(f"{path.name}~")
        fresh.write_text(content)
        os.replace(fresh, path)
    else:
        path.write_text(content)


# Entries

COMMAND = (sys.executable, str(UPSTREAM), "stdio", "--lifetime", "86400", "--ledger")


def command(mark: str, **more: Any) -> Entry:
    """A small server as a command. ``mark``: a path that is in its command line and in nobody else's."""
    return {"command": COMMAND[0], "args": [*COMMAND[1:], mark], **more}


def mark_of(entry: Entry) -> str | None:
    """The mark of a command; None for a URL."""
    return entry["args"][-1] if "args" in entry else None


def command_template() -> str:
    """What lets the API add such commands."""
    return f"{shlex.join(COMMAND)} {{mark}}"
