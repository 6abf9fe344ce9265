from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from mcp_proxy.core.admission.guard import AddressGuard
from mcp_proxy.core.upstream.addresses import AddressRefused
from mcp_proxy.core.upstream.aiohttp_exchange import AiohttpExchange
from mcp_proxy.core.upstream.checked_resolver import CheckedResolver
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from tests.unit.core.admission.hosts import Hosts
from tests.unit.core.upstream import test_exchange
from tests.unit.core.upstream.test_exchange import Peer, fails, read

pytestmark = pytest.mark.anyio

LOOPBACK = ("127.0.0.0/8",)
peer = test_exchange.peer
Make = Callable[[AddressGuard], AiohttpExchange]


@pytest.fixture
async def guarded() -> AsyncIterator[Make]:
    made: list[AiohttpExchange] = []

    def make(guard: AddressGuard) -> AiohttpExchange:
        made.append(AiohttpExchange(1.0, guard))
        return made[-1]

    yield make
    for exchange in made:
        await exchange.close()


def at(peer: Peer, host: str, scheme: str = "http") -> str:
    return peer.url.replace("127.0.0.1", host).replace("http", scheme, 1)


async def refused(exchange: AiohttpExchange, url: str) -> None:
    error, attempt = await fails(exchange, url)
    assert (error.failure, error.phase, attempt.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT, Phase.NOT_SENT)
    assert error.message == "its address is not public and its network not allowed (--allow-network)"


async def test_a_connection_goes_to_the_checked_address_under_the_servers_name(peer: Peer, guarded: Make) -> None:
    hosts = Hosts(**{"tools.example": ("127.0.0.1",)})
    exchange = guarded(AddressGuard(LOOPBACK, hosts))
    assert await read(exchange, at(peer, "tools.example"), Attempt()) == b"{}"
    assert b"Host: tools.example:" in peer.requests[0]
    assert hosts.asked == ["tools.example"]


async def test_the_tls_handshake_names_the_server_and_not_its_address(guarded: Make) -> None:
    hello: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello.set_result(await reader.read(4096))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        exchange = guarded(AddressGuard(LOOPBACK, Hosts(**{"tools.example": ("127.0.0.1",)})))
        await fails(exchange, f"https://tools.example:{port}/mcp")
        async with asyncio.timeout(10):
            assert b"tools.example" in await hello


async def test_a_name_that_has_moved_to_an_address_that_is_not_allowed_is_not_called(peer: Peer, guarded: Make) -> None:
    hosts = Hosts(**{"tools.example": ("8.8.8.8",)})
    guard = AddressGuard((), hosts)
    await guard.check(at(peer, "tools.example"))
    hosts.addresses["tools.example"] = ("127.0.0.1",)
    await refused(guarded(guard), at(peer, "tools.example"))
    assert peer.connections == 0


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "127.0.0.1.", "127.000.000.001", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_an_address_in_the_url_is_checked_without_a_resolver(peer: Peer, guarded: Make, host: str) -> None:
    hosts = Hosts(**{host: ("127.0.0.1",)})
    await refused(guarded(AddressGuard((), hosts)), at(peer, host))
    assert (peer.connections, hosts.asked) == (0, [])


@pytest.mark.parametrize("host", ["0x7f.1", "0x7f000001", "localhost"])
async def test_an_odd_spelling_is_looked_up_and_checked(peer: Peer, guarded: Make, host: str) -> None:
    await refused(guarded(AddressGuard((), Hosts(**{host: ("127.0.0.1",)}))), at(peer, host))
    assert peer.connections == 0


async def test_an_allowed_address_in_the_url_is_called(peer: Peer, guarded: Make) -> None:
    assert await read(guarded(AddressGuard(LOOPBACK, Hosts())), peer.url, Attempt()) == b"{}"


async def test_the_system_is_asked_where_no_other_resolver_is_given(peer: Peer, guarded: Make) -> None:
    assert await read(guarded(AddressGuard(LOOPBACK)), at(peer, "localhost"), Attempt()) == b"{}"
    await refused(guarded(AddressGuard()), at(peer, "localhost"))


async def test_a_redirect_is_not_followed_by_a_guarded_connection(peer: Peer, guarded: Make) -> None:
    peer.handler = peer.says(b"HTTP/1.1 307 Go\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n")
    exchange = guarded(AddressGuard(LOOPBACK, Hosts()))
    response = await test_exchange.ask(exchange, peer.url)
    await response.close()
    assert (response.status, peer.connections) == (307, 1)


async def test_an_unknown_name_is_said_to_be_one(guarded: Make) -> None:
    error, _ = await fails(guarded(AddressGuard((), Hosts())), "http://nowhere.example/mcp")
    assert error.message == "the host name is not known"


async def test_a_name_that_cannot_be_one_is_not_known() -> None:
    async def picky(host: str) -> list[str]:
        raise UnicodeError("not a name")

    exchange = AiohttpExchange(1.0, AddressGuard((), picky))
    with pytest.raises(WireError, match="the host name is not known"):
        await read(exchange, "http://odd.example/", Attempt())
    await exchange.close()


async def resolved(family: socket.AddressFamily, *addresses: str) -> list[tuple[str, int]]:
    resolver = CheckedResolver(AddressGuard(["fe80::/10"], Hosts(host=addresses)))
    return [(result["host"], result["family"]) for result in await resolver.resolve("host", 80, family)]


async def test_only_permitted_addresses_are_answered_each_with_its_family() -> None:
    found = await resolved(
        socket.AF_UNSPEC, "10.0.0.1", "8.8.8.8", "::1", "2606:4700::1111", "fe80::1%eth0", "::ffff:127.0.0.1", "127.1"
    )
    assert found == [
        ("8.8.8.8", socket.AF_INET),
        ("2606:4700::1111", socket.AF_INET6),
        ("fe80::1%eth0", socket.AF_INET6),
    ]


async def test_only_addresses_of_the_family_asked_for_are_answered() -> None:
    assert await resolved(socket.AF_INET, "2606:4700::1111", "8.8.8.8") == [("8.8.8.8", socket.AF_INET)]
    with pytest.raises(OSError, match="family"):
        await resolved(socket.AF_INET, "2606:4700::1111")


async def test_addresses_none_of_which_is_permitted_are_refused_as_such() -> None:
    with pytest.raises(AddressRefused):
        await resolved(socket.AF_UNSPEC, "10.0.0.1", "::1")
