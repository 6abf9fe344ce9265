from __future__ import annotations

import asyncio

import pytest

from mcp_proxy.base.errors import URL_NOT_ALLOWED, ProxyError, StartError
from mcp_proxy.core.admission import guard as guard_module
from mcp_proxy.core.admission.guard import AddressGuard, look_up
from tests.unit.core.admission.hosts import Hosts

pytestmark = pytest.mark.anyio

PUBLIC = ("8.8.8.8", "2606:4700::1111")


async def refusal(guard: AddressGuard, url: str) -> str:
    with pytest.raises(ProxyError) as raised:
        await guard.check(url)
    assert raised.value.kind is URL_NOT_ALLOWED
    assert raised.value.status == 422
    assert raised.value.details == {"field": "url"}
    return raised.value.message


async def test_a_host_whose_addresses_are_all_public_is_accepted() -> None:
    hosts = Hosts(**{"tools.example": PUBLIC})
    await AddressGuard((), hosts).check("https://tools.example:8443/mcp?x=1")
    assert hosts.asked == ["tools.example"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "0.0.0.0", "::1", "fe80::1%eth0", "fd00::1",
     "::ffff:127.0.0.1", "::127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1",
     "2001:0:808:808::80ff:fffe", "no address"],
)  # fmt: skip
async def test_one_address_that_is_not_public_is_enough_to_refuse(address: str) -> None:
    guard = AddressGuard((), Hosts(**{"tools.example": (*PUBLIC, address)}))
    said = await refusal(guard, "http://tools.example/")
    assert "not public" in said
    assert "--allow-network" in said
    assert address not in said


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3", "[::1]", "[::]", "[::ffff:10.0.0.1]", "[::ffff:a00:1]", "[fe80::1%25eth0]", "[fe80::1]",
     "[2002:a00:1::]", "[64:ff9b::10.0.0.1]", "127.0.0.1:80", "[::1]:80", "①②⑦.0.0.1", "１２７.0.0.1", "127。0。0。1"],
)  # fmt: skip
async def test_an_address_in_the_url_is_decided_without_looking_anything_up(host: str) -> None:
    hosts = Hosts()
    assert "not public" in await refusal(AddressGuard((), hosts), f"http://{host}/mcp")
    assert hosts.asked == []


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1111]", "[::ffff:8.8.8.8]", "[64:ff9b::8.8.8.8]"])
async def test_a_public_address_in_the_url_is_accepted(host: str) -> None:
    await AddressGuard((), Hosts()).check(f"https://{host}/mcp")


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "0x7f000001", "127.1", "0177.0.0.1", "localhost", "localhost."]
)
async def test_an_odd_spelling_is_decided_by_what_it_resolves_to(host: str) -> None:
    assert "not public" in await refusal(AddressGuard((), Hosts(**{host: ("127.0.0.1",)})), f"http://{host}/")
    await AddressGuard(["127.0.0.0/8"], Hosts(**{host: ("127.0.0.1",)})).check(f"http://{host}/")


async def test_the_systems_own_resolver_reads_odd_spellings_as_addresses() -> None:
    async with asyncio.timeout(10):
        assert [await look_up(host) for host in ("2130706433", "0x7f.1", "127.1")] == [["127.0.0.1"]] * 3


async def test_a_host_that_does_not_resolve_has_a_text_of_its_own() -> None:
    said = await refusal(AddressGuard((), Hosts(empty=())), "http://nowhere.example/")
    assert "does not resolve" in said
    assert await refusal(AddressGuard((), Hosts(empty=())), "http://empty/") == said


async def test_a_name_that_no_resolver_takes_does_not_resolve() -> None:
    async def picky(host: str) -> list[str]:
        raise UnicodeError("label too long")

    assert "does not resolve" in await refusal(AddressGuard((), picky), f"http://{'a' * 64}.example/")


async def test_a_resolver_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(host: str) -> list[str]:
        await asyncio.get_running_loop().create_future()
        return []

    monkeypatch.setattr(guard_module, "_PATIENCE", 0.01)
    async with asyncio.timeout(10):
        assert "does not resolve" in await refusal(AddressGuard((), silent), "http://tools.example/")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://8.8.8.8/", "http:// or https://"), ("file:///etc/passwd", "http:// or https://"),
        ("8.8.8.8", "http:// or https://"), ("http://", "no host"), ("http:///mcp", "no host"),
        ("http://me:secret@8.8.8.8/", "user name or password"), ("http://127.0.0.1@8.8.8.8/", "user name or password"),
        ("http://8.8.8.8\\@127.0.0.1/", "user name or password"), ("http://8.8.8.8\\.evil/", "no host"),
        ("http://8.8.8.8:0/", "no port"), ("http://8.8.8.8:99999/", "cannot be read"),
        ("http://8.8.8.8\r\n/", "control character"), ("http://127.0.0.1%2f8.8.8.8/", "no host"),
        ("http://a\u00adb.example/", "no host"),
    ],
)  # fmt: skip
async def test_what_is_no_url_of_a_server_is_refused_without_repeating_it(url: str, said: str) -> None:
    hosts = Hosts()
    text = await refusal(AddressGuard(["0.0.0.0/0", "::/0"], hosts), url)
    assert said in text
    assert "secret" not in text
    assert hosts.asked == []


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("10.1.2.3", True), ("10.2.0.1", False), ("::ffff:10.1.2.3", True), ("64:ff9b::a01:203", True),
        ("2002:a01:203::1", True), ("::ffff:10.2.0.1", False), ("fd00:1::7", True), ("fd00:2::7", False),
        ("127.0.0.1", False), ("8.8.8.8", True), ("2001:0:a01:203::f5fe:fdfc", True),
    ],
)  # fmt: skip
async def test_an_allowed_network_lets_in_what_is_in_it_and_no_more(address: str, fits: bool) -> None:
    guard = AddressGuard(["10.1.0.0/16", "fd00:1::/32"], Hosts(inside=(address,)))
    assert guard.permits(address) is fits
    if fits:
        await guard.check("http://inside/mcp")
    else:
        await refusal(guard, "http://inside/mcp")


async def test_all_of_ipv6_allowed_lets_no_wrapped_address_of_ipv4_in() -> None:
    guard = AddressGuard(["::/0"], Hosts())
    assert guard.permits("::1")
    assert not any(map(guard.permits, ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1"]))


@pytest.mark.parametrize("cidr", ["10.0.0.1/8", "10.0.0.0/33", "inside", "", "10.0.0.0-10.0.0.9", "fd00::/129"])
def test_a_malformed_network_stops_the_start_in_one_line(cidr: str) -> None:
    with pytest.raises(StartError) as raised:
        AddressGuard(["10.0.0.0/8", cidr])
    text = str(raised.value)
    assert text.startswith(f"--allow-network (MCP_PROXY_ALLOW_NETWORK) is {cidr!r}, which")
    assert "accepted: networks such as 10.0.0.0/8" in text
    assert "\n" not in text


def test_an_address_alone_is_a_network_of_one() -> None:
    guard = AddressGuard(["10.0.0.5", " fd00::5 "])
    assert [guard.permits(one) for one in ("10.0.0.5", "10.0.0.6", "fd00::5", "fd00::6")] == [True, False, True, False]


@pytest.mark.parametrize("text", ["2130706433", "127.1", "0x7f.1", "8.8", "8.8.8.8 ", "", "localhost", "010.8.8.8"])
def test_only_an_address_in_its_usual_form_is_permitted(text: str) -> None:
    assert not AddressGuard(["0.0.0.0/0", "::/0"]).permits(text)
