"""Where files with servers are: the directory of providers, and the symbolic links on the way to a file.

Paths only; what stands in the files is `reading`.
"""

from __future__ import annotations

import os
from pathlib import Path

PROVIDER_FILE = "mcp_settings.json"

Stamp = tuple[int, int, int, int, int] | None
"""Device, inode, size, times of change of content and of status; None for what is not there."""

_MOST_LINKS = 40


def provider_files(directory: Path) -> tuple[Path, ...]:
    """``{provider}/mcp_settings.json`` for every subdirectory, whether or not the file is there. Raises `OSError`.

    Hidden subdirectories are left out: Kubernetes keeps the versions of a mounted ConfigMap in such.
    """
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_directory(entry))
    return tuple(directory / name / PROVIDER_FILE for name in names)


def is_there(path: Path) -> bool:
    """Whether a directory holds this name; a symbolic link that leads nowhere counts."""
    return os.path.lexists(path)


def stamp(path: Path) -> Stamp:
    """What differs when the file at the end of all links has been replaced, written to or made readable."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def steps(path: Path) -> tuple[Path, ...]:
    """The names that decide which file ``path`` is: each symbolic link on the way, and what stands at its end.

    Their directories hold no links themselves. A change to any of the names can change the file.
    """
    absolute = path.absolute()
    here, rest = Path(absolute.anchor), list(absolute.parts[1:])
    found: list[Path] = []
    while rest:
        part = rest.pop(0)
        if part == "..":
            here = here.parent
            continue
        name = here / part
        target = _target(name)
        if target is None or len(found) == _MOST_LINKS:
            here = name
            continue
        found.append(name)
        if target.is_absolute():
            here = Path(target.anchor)
        rest = [one for one in target.parts if one != target.anchor] + rest
    return (*found, here)


def _target(name: Path) -> Path | None:
    try:
        return name.readlink()
    except (OSError, ValueError):
        return None


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
