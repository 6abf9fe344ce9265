"""Names and their addresses for tests: no question leaves the process."""

from __future__ import annotations

from collections.abc import Sequence


class Hosts:
    """A resolver by table. ``asked`` has the hosts that were looked up, in order."""

    def __init__(self, **addresses: Sequence[str]) -> None:
        self.addresses: dict[str, Sequence[str]] = dict(addresses)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.addresses:
            raise OSError("no such host")
        return self.addresses[host]
