"""What an upstream speaks: the era, and the terms agreed with it. Values only; agreeing is `link`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Era(StrEnum):
    """Which half of the protocol's history a peer speaks."""

    LEGACY = "legacy"
    MODERN = "modern"


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed with the upstream when the connection was opened."""

    era: Era
    version: str
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    server_info: Mapping[str, Any] = field(default_factory=dict)
    instructions: str | None = None

    def offers(self, kind: str) -> bool:
        """Whether it has a ``kind`` (``tools``, ``prompts``, ``resources``, …). One that declares nothing at all has tools."""
        return kind in self.capabilities or (kind == "tools" and not self.capabilities)

    def declares(self, kind: str, feature: str) -> bool:
        """Whether ``capabilities[kind][feature]`` is true."""
        declared = self.capabilities.get(kind)
        return isinstance(declared, Mapping) and declared.get(feature) is True

    @property
    def list_changed(self) -> tuple[str, ...]:
        """The kinds whose changes it announces."""
        return tuple(kind for kind in ("tools", "prompts", "resources") if self.declares(kind, "listChanged"))
