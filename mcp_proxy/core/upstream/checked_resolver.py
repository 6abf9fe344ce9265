"""Names made into addresses for connections of servers that came over the API: only addresses that the guard permits.

The connection is made to exactly what was checked (a name may have another address a moment later: DNS rebinding), with
the name in ``Host`` and in the TLS handshake.
"""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mcp_proxy.core.admission.guard import AddressGuard


class AddressRefused(OSError):
    """The host has no address that connections may be made to."""


class CheckedResolver(AbstractResolver):
    """aiohttp's resolver, with the answers that are not permitted left out."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See the base class. Raises `OSError` for an unknown host, `AddressRefused` when nothing is left."""
        permitted = [address for address in await self._guard.resolve(host) if self._guard.permits(address)]
        if not permitted:
            raise AddressRefused(f"{host!a} has no address that may be called")
        results = [_result(host, port, address) for address in permitted]
        if family is not socket.AF_UNSPEC:
            results = [result for result in results if result["family"] == family]
        if not results:
            raise OSError(f"{host!a} has no address of the family that is asked for")
        return results

    async def close(self) -> None:
        """Nothing is kept."""


def refuse_address(url: URL, guard: AddressGuard) -> None:
    """The same for a host that is an address already, which the client never gives to its resolver.

    Whatever it may take for one counts (digits and dots), so that ``127.1`` and ``2130706433`` are not left to the
    operating system. Raises `AddressRefused`.
    """
    host = url.raw_host or ""
    if (":" in host or host.replace(".", "").isdigit()) and not guard.permits(host):
        raise AddressRefused(f"{host!a} may not be called")


def _result(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if isinstance(ip_address(address), IPv6Address) else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)
