"""Which URLs may be given over the API: those of public addresses, and of networks that the operator lists.

Asked twice: when a URL comes in (`AddressGuard.check`) and, since a name may be given another address at any time, for
every connection (`core.upstream.checked_resolver`). Servers of files and variables are not asked.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address, ip_network

from yarl import URL

from mcp_proxy.base.errors import URL_NOT_ALLOWED, ProxyError, StartError
from mcp_proxy.base.quote import quote
from mcp_proxy.config.address import url_fault
from mcp_proxy.core.admission.addresses import Address, Network, is_public, unwrapped

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""A host name to its addresses as text. Raises `OSError` or `UnicodeError` when there are none."""

_PATIENCE = 5.0
"""Seconds for a host name to resolve while somebody waits for the answer."""


async def look_up(host: str) -> list[str]:
    """The system's own answer, which also reads ``2130706433``, ``0x7f.1`` and ``127.1`` as addresses."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class AddressGuard:
    """Decides over hosts by the addresses they have; a network of ``allowed`` lifts the ban for what is in it.

    ``allowed``: CIDRs. An address that wraps an IPv4 address is compared as that one. Raises `StartError` for a
    malformed CIDR.
    """

    def __init__(self, allowed: Iterable[str] = (), resolve: Resolve = look_up) -> None:
        self._allowed = tuple(map(_network, allowed))
        self._resolve = resolve

    async def check(self, url: str) -> None:
        """Refuse what is no http(s) URL, carries credentials, or whose host has a single address that is not allowed.

        Raises `ProxyError` (``url_not_allowed``). The text repeats no address: names that only the inside knows are
        not to be looked up through it.
        """
        if fault := url_fault(url):
            raise _refused(f"the url {fault}")
        try:
            # The parser that connections are made with, so that both mean the same host.
            host = URL(url).raw_host
        except ValueError:
            host = None
        if not host:
            raise _refused("the url has no host that can be called")
        if not all(map(self.permits, await self._addresses(host))):
            raise _refused(
                "the url leads to an address that is not public;"
                " who runs the proxy can allow its network with --allow-network"
            )

    async def resolve(self, host: str) -> list[str]:
        """The addresses of ``host``, at least one. Raises `OSError`."""
        try:
            found = list(await self._resolve(host))
        except UnicodeError:  # a label that is too long, or empty
            raise OSError(f"{host!a} cannot be a host name") from None
        if not found:
            raise OSError(f"{host!a} has no address")
        return found

    def permits(self, address: str) -> bool:
        """Whether connections may be made to ``address``, an IP address in its usual form; anything else: no."""
        try:
            given = ip_address(address)
        except ValueError:
            return False
        return all(is_public(inner) or self._is_allowed(inner) for inner in unwrapped(given))

    async def _addresses(self, host: str) -> list[str]:
        if _is_address(host):
            return [host]
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self.resolve(host)
        except OSError:
            raise _refused("the host of the url does not resolve to an address") from None

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._allowed)


def _network(text: str) -> Network:
    try:
        return ip_network(text.strip())
    except ValueError as error:
        raise StartError(
            f"--allow-network (MCP_PROXY_ALLOW_NETWORK) is {quote(text)}, which cannot be used ({error});"
            " accepted: networks such as 10.0.0.0/8 or fd00::/8"
        ) from None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _refused(reason: str) -> ProxyError:
    return ProxyError(URL_NOT_ALLOWED, reason, details={"field": "url"})
