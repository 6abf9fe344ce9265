from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.core.admission.addresses import is_public, unwrapped

PUBLIC = ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "223.255.255.254",
          "2606:4700::1111", "2a00:1450::1", "2001:200::1", "2620:fe::fe"]  # fmt: skip
NOT_PUBLIC = {
    "this host": "0.0.0.0", "this network": "0.1.2.3", "loopback": "127.0.0.1", "all of loopback": "127.255.255.254",
    "private 10": "10.0.0.1", "private 172": "172.16.0.1", "private 192": "192.168.1.1", "link-local": "169.254.169.254",
    "carrier-grade NAT": "100.64.0.1", "its end": "100.127.255.255", "protocol assignments": "192.0.0.192",
    "documentation": "192.0.2.1", "benchmarks": "198.18.0.1", "6to4 relay": "192.88.99.1", "multicast": "224.0.0.1",
    "end of multicast": "239.255.255.255", "reserved": "240.0.0.1", "broadcast": "255.255.255.255",
    "host of Azure": "168.63.129.16",
    "unspecified 6": "::", "loopback 6": "::1", "unique local": "fd00:ec2::254", "link-local 6": "fe80::1",
    "link-local with its zone": "fe80::1%eth0", "site-local": "fec0::1", "multicast 6": "ff02::1",
    "multicast of all": "ff0e::1", "documentation 6": "2001:db8::1", "newer documentation 6": "3fff::1",
    "discard": "100::1", "protocol assignments 6": "2001:2::1", "local NAT64": "64:ff9b:1::808:808",
    "translated": "::ffff:0:808:808", "segment routing": "5f00::1", "never given out": "4000::1",
}  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_public_internet(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC.values(), ids=NOT_PUBLIC.keys())
def test_addresses_of_no_public_network(text: str) -> None:
    assert not is_public(ip_address(text))


def wrapped(inner: IPv4Address) -> dict[str, IPv6Address]:
    """An IPv4 address in every form that wraps one."""
    number = int(inner)
    return {
        "mapped": IPv6Address(0xFFFF << 32 | number),
        "compatible": IPv6Address(number),
        "NAT64": IPv6Address(int(IPv6Address("64:ff9b::")) | number),
        "6to4": IPv6Address(0x2002 << 112 | number << 80),
        "Teredo client": IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | (number ^ 0xFFFFFFFF)),
        "Teredo server": IPv6Address(0x20010000 << 96 | number << 64 | (0x08080808 ^ 0xFFFFFFFF)),
    }


@pytest.mark.parametrize("form", wrapped(IPv4Address("1.2.3.4")))
@given(number=st.integers(2, 2**32 - 1))
def test_an_address_that_wraps_another_is_taken_for_that(form: str, number: int) -> None:
    inner = IPv4Address(number)
    assert inner in unwrapped(wrapped(inner)[form])


@pytest.mark.parametrize("text", [*PUBLIC, "127.0.0.1", "::", "::1", "fe80::1", "64:ff9b:1::1", "1::"])
def test_any_other_address_is_itself(text: str) -> None:
    assert unwrapped(ip_address(text)) == (ip_address(text),)


@given(st.ip_addresses())
def test_every_address_is_decided(address: IPv4Address | IPv6Address) -> None:
    assert all(isinstance(is_public(inner), bool) for inner in unwrapped(address))
    assert len(unwrapped(address)) in (1, 2)
