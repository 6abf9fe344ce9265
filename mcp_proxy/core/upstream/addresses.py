"""Addresses that connections of servers that came over the API may be made to: only those that the guard permits.

A connection is made to exactly what was checked (a name may have another address a moment later: DNS rebinding), with the
name in ``Host`` and in the TLS handshake.
"""

from __future__ import annotations

from yarl import URL

from mcp_proxy.core.admission.guard import AddressGuard


class AddressRefused(OSError):
    """The host has no address that connections may be made to."""


async def permitted(guard: AddressGuard, host: str) -> list[str]:
    """The addresses of ``host`` that may be called. Raises `OSError` for an unknown host, `AddressRefused` for none."""
    found = [address for address in await guard.resolve(host) if guard.permits(address)]
    if not found:
        raise AddressRefused(f"{host!a} has no address that may be called")
    return found


def refuse_address(url: URL, guard: AddressGuard) -> None:
    """The same for a host that is an address already, which the client never gives to its resolver.

    Whatever it may take for one counts (digits and dots), so that ``127.1`` and ``2130706433`` are not left to the
    operating system. Raises `AddressRefused`.
    """
    host = url.raw_host or ""
    if (":" in host or host.replace(".", "").isdigit()) and not guard.permits(host):
        raise AddressRefused(f"{host!a} may not be called")
