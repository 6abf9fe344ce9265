"""aiohttp's resolver with only the addresses that may be called, see `addresses`."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address

from aiohttp.abc import AbstractResolver, ResolveResult

from mcp_proxy.core.admission.guard import AddressGuard
from mcp_proxy.core.upstream.addresses import permitted


class CheckedResolver(AbstractResolver):
    """aiohttp's resolver, with the answers that are not permitted left out."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See the base class. Raises `OSError` for an unknown host, `AddressRefused` when nothing is left."""
        results = [_result(host, port, address) for address in await permitted(self._guard, host)]
        if family is not socket.AF_UNSPEC:
            results = [result for result in results if result["family"] == family]
        if not results:
            raise OSError(f"{host!a} has no address of the family that is asked for")
        return results

    async def close(self) -> None:
        """Nothing is kept."""


def _result(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if isinstance(ip_address(address), IPv6Address) else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)
