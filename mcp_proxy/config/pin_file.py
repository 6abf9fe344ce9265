"""Where pinned definitions of tools are kept between runs: STATE_DIR/pins.json. What pins mean is `core.pins`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp_proxy.base.atomic_file import replace_file
from mcp_proxy.base.errors import StartError
from mcp_proxy.base.json import encode
from mcp_proxy.config.state import StoreError

_VERSION = 2
_READABLE = (1, _VERSION)
Definition = Mapping[str, Any]
Pinned = dict[str, dict[str, Definition | list[Definition]]]
"""By the names of server and tool: the definitions that are approved, oldest first.

One that stands alone, not in a list, is from a file of version 1, which did not keep ``_meta``. Such a pin is written as
it was read until its tool is seen again.
"""


class PinFile:
    """Reads the file at the start and replaces it as a whole."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "pins.json"

    def load(self) -> Pinned:
        """What was kept; a missing file is empty. Raises `StartError`: pins that cannot be read never count as none."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StartError(f"{self.path} cannot be read: {error.strerror}") from None
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not _is_pins(document):
            text = "does not hold pinned tools; mend it, or remove it to pin the tools as they are now"
            raise StartError(f"{self.path} {text}")
        servers: Pinned = document["servers"]
        return servers

    def save(self, pinned: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the file, readable by the owner only. Raises `StoreError`; the old file is then in place."""
        content = encode({"version": _VERSION, "servers": pinned}) + b"\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.path, content)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror or type(error).__name__}") from None


def _is_pins(document: Any) -> bool:
    if not isinstance(document, dict) or document.get("version") not in _READABLE:
        return False
    servers = document.get("servers")
    return isinstance(servers, dict) and all(
        isinstance(tools, dict) and all(_is_pin(one, document["version"]) for one in tools.values())
        for tools in servers.values()
    )


def _is_pin(value: Any, version: int) -> bool:
    if isinstance(value, dict):
        return True
    return version > 1 and isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
