"""Which IP addresses are public, and which address is meant by one that wraps another. Pure.

The standard library's ``is_global`` is not enough: depending on its patch level it calls multicast, site-local and
wrapped addresses global. Who asks, and what is allowed besides, is `guard`.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")
"""The well-known prefix (RFC 6052). The local-use one, 64:ff9b:1::/48 (RFC 8215), is not public as it stands: where in
it an IPv4 address is kept, only the network that translates it knows."""

_UNICAST = IPv6Network("2000::/3")
"""All global unicast that was ever given out (RFC 4291 §2.4, IANA)."""

_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "100.64.0.0/10",  # carrier-grade NAT, RFC 6598
            "168.63.129.16/32",  # the host beneath every machine on Azure: public by its number only
            "192.0.0.0/24",  # protocol assignments, RFC 6890; a cloud's metadata among them
            "192.88.99.0/24",  # 6to4 relays, RFC 7526
            "2001::/23",  # protocol assignments, RFC 2928
            "2001:db8::/32",  # documentation, RFC 3849
            "3fff::/20",  # documentation, RFC 9637
        ),
    )
)


def unwrapped(address: Address) -> tuple[Address, ...]:
    """The addresses that packets for ``address`` may end at: itself, or the IPv4 addresses that it wraps.

    IPv4-mapped and -compatible (RFC 4291 §2.5.5), 6to4 (RFC 3056), NAT64 (RFC 6052), Teredo (RFC 4380: server and
    client).
    """
    if isinstance(address, IPv4Address):
        return (address,)
    if (inner := address.ipv4_mapped or address.sixtofour) is not None:
        return (inner,)
    if address.teredo is not None:
        return address.teredo
    number = int(address)
    if address in _NAT64 or 1 < number < 2**32:
        return (IPv4Address(number & 0xFFFFFFFF),)
    return (address,)


def is_public(address: Address) -> bool:
    """Whether an address that wraps no other is one of the public internet."""
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    return not any(address in network for network in _NOT_PUBLIC)
