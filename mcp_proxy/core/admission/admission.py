"""All that is asked of a server before it is added or changed over the API, in one place.

The questions are in `entry`, `commands` and `guard`; asking them, and what follows, is `core.registry`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.admission.commands import CommandTemplates
from mcp_proxy.core.admission.entry import check_entry
from mcp_proxy.core.admission.guard import AddressGuard

SOURCE: Final = "the API"


@dataclass(frozen=True, slots=True)
class Admission:
    """What the operator allows over the API. ``guard`` also belongs to every connection of such a server."""

    guard: AddressGuard
    commands: CommandTemplates

    def check_entry(self, name: str, entry: object) -> ServerSpec:
        """Everything that can be said without looking anything up; see `entry.check_entry`. Raises `ProxyError`."""
        return check_entry(name, entry, self.commands, SOURCE)

    async def check(self, spec: ServerSpec) -> None:
        """Whether ``spec`` may be started or called. Raises `ProxyError` (403, 422). May look up a host name."""
        if spec.command is not None:
            self.commands.check(spec.command, spec.args, spec.env)
        if spec.url is not None:
            await self.guard.check(spec.url)
