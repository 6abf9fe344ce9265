"""What of a server's lists is passed on, and what is remembered of what it lists to whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mcp_proxy.base.json import MAX_DEPTH
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.catalog.offer import Offer, Withheld
from mcp_proxy.core.upstream import listing as listing_module
from mcp_proxy.core.upstream.client import PROXY, Client
from mcp_proxy.core.upstream.listing import Definitions, Profiles, sift
from mcp_proxy.core.upstream.terms import Era
from tests.unit.core.fakes import tool
from tests.unit.core.upstream.wires import begun, turns

pytestmark = pytest.mark.anyio

COMMON = Offer((tool("common"),))
MORE = Offer((tool("common"), tool("more")))
CLIENT = Client(capabilities={"sampling": {}})


# Sifting


def nested(depth: int) -> dict[str, Any]:
    """An object in an object, so many in all."""
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_what_can_be_passed_on_stays_as_it_is_and_in_order() -> None:
    listed: Definitions = {
        "tools": [{"name": "b", "inputSchema": {"type": "object"}}, {"name": "a"}],
        "prompts": [{"name": "p"}],
        "resources": [{"uri": "file:///a"}],
        "resourceTemplates": [{"uriTemplate": "file:///{x}"}],
    }
    usable, withheld = sift(listed, mirrors=True)
    assert (usable, withheld) == (listed, ())
    assert usable["tools"][0] is listed["tools"][0]


def test_a_list_that_is_empty_stays_one() -> None:
    assert sift({"tools": [], "prompts": []}, mirrors=False) == ({"tools": [], "prompts": []}, ())


@pytest.mark.parametrize(
    ("kind", "key"),
    [("tools", "name"), ("prompts", "name"), ("resources", "uri"), ("resourceTemplates", "uriTemplate")],
)
def test_what_is_nested_too_deep_is_withheld_by_its_name(kind: str, key: str) -> None:
    fine = {key: "fine", "_meta": nested(MAX_DEPTH - 1)}
    deep = {key: "deep", "_meta": nested(MAX_DEPTH)}
    usable, withheld = sift({kind: [deep, fine]}, mirrors=False)
    assert usable == {kind: [fine]}
    assert withheld == (Withheld(kind, "deep", f"its definition is nested deeper than {MAX_DEPTH}"),)


def test_a_long_name_is_cut_where_it_is_reported() -> None:
    _, (withheld,) = sift({"tools": [{"name": "n" * 5000, "_meta": nested(MAX_DEPTH)}]}, mirrors=False)
    assert withheld.name == "n" * 200


BAD_HEADER = {"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}


def test_a_tool_whose_headers_are_not_valid_is_withheld_where_there_are_headers() -> None:
    listed = {"tools": [{"name": "bad", "inputSchema": BAD_HEADER}]}
    usable, (withheld,) = sift(listed, mirrors=True)
    assert usable == {"tools": []}
    assert (withheld.kind, withheld.name) == ("tools", "bad")
    assert withheld.reason.startswith("x-mcp-header: ")
    assert sift(listed, mirrors=False) == (listed, ())


def test_headers_matter_in_tools_alone() -> None:
    listed = {"prompts": [{"name": "p", "inputSchema": BAD_HEADER}]}
    assert sift(listed, mirrors=True) == (listed, ())


# Profiles


def unexpected(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name}: {error!r}")


class Bench:
    """`Profiles` of a server that lists ``offer``; ``gate`` holds its answers back."""

    def __init__(self) -> None:
        self.tasks = TaskSet(unexpected)
        self.offer: Offer | None = MORE
        self.gate: asyncio.Event | None = None
        self.asked: list[Client] = []
        self.learned = 0
        self.profiles = Profiles(self.tasks, "up", self._ask, self._on_learned)

    async def _ask(self, client: Client) -> Offer | None:
        self.asked.append(client)
        if self.gate is not None:
            await self.gate.wait()
        return self.offer

    def _on_learned(self) -> None:
        self.learned += 1

    async def learn(self, client: Client = CLIENT) -> None:
        async with asyncio.timeout(5):
            await self.profiles.learn(client, lambda: COMMON)

    def shown(self, client: Client = CLIENT, common: Offer = COMMON) -> Offer:
        return self.profiles.offer_to(client, common)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()


async def test_until_it_is_known_a_client_is_shown_what_everybody_is(bench: Bench) -> None:
    assert not bench.profiles.knows(CLIENT)
    assert bench.shown() is COMMON
    await bench.learn()
    assert bench.profiles.knows(CLIENT)
    assert bench.shown() is MORE
    assert bench.learned == 1


async def test_what_is_known_is_not_asked_for(bench: Bench) -> None:
    for client in (CLIENT, CLIENT, Client(info={"name": "other"}, capabilities={"sampling": {}, "x": {}})):
        await bench.learn(client)
    assert bench.asked == [CLIENT]


@pytest.mark.parametrize("client", [PROXY, Client(capabilities={"experimental": {}})], ids=["the proxy", "a client"])
async def test_of_clients_that_offer_nothing_there_is_nothing_to_learn(bench: Bench, client: Client) -> None:
    assert bench.profiles.knows(client)
    await bench.learn(client)
    assert (bench.asked, len(bench.profiles)) == ([], 0)
    assert bench.shown(client) is COMMON


async def test_clients_of_other_eras_and_with_other_capabilities_are_others(bench: Bench) -> None:
    await bench.learn()
    assert not bench.profiles.knows(Client(Era.LEGACY, capabilities={"sampling": {}}))
    assert not bench.profiles.knows(Client(capabilities={"sampling": {"tools": {}}}))


async def test_what_is_like_everybodys_stays_so_when_that_changes(bench: Bench) -> None:
    bench.offer = COMMON
    await bench.learn()
    assert bench.profiles.knows(CLIENT)
    assert bench.shown(common=MORE) is MORE


async def test_a_listing_that_fails_leaves_what_is_known(bench: Bench) -> None:
    await bench.learn()
    bench.profiles.outdated()
    bench.offer = None
    await bench.learn()
    assert bench.profiles.knows(CLIENT)  # for a while there is no more to be had
    assert bench.shown() is MORE
    assert bench.learned == 1
    bench.profiles.outdated()
    assert not bench.profiles.knows(CLIENT)


async def test_what_may_have_changed_serves_until_it_is_asked_for_again(bench: Bench) -> None:
    await bench.learn()
    bench.profiles.outdated()
    assert not bench.profiles.knows(CLIENT)
    assert bench.shown() is MORE
    bench.offer = COMMON
    await bench.learn()
    assert bench.profiles.knows(CLIENT)
    assert bench.shown() is COMMON


async def test_what_changes_while_it_is_asked_for_is_not_known(bench: Bench) -> None:
    bench.gate = asyncio.Event()
    learning = begun(bench.learn())
    await turns()
    bench.profiles.outdated()
    bench.gate.set()
    await learning
    assert bench.shown() is MORE
    assert not bench.profiles.knows(CLIENT)


async def test_those_who_ask_at_once_ask_once(bench: Bench) -> None:
    bench.gate = asyncio.Event()
    learning = [begun(bench.learn()) for _ in range(3)]
    await turns()
    assert not any(task.done() for task in learning)
    bench.gate.set()
    await asyncio.gather(*learning)
    assert (len(bench.asked), bench.learned) == (1, 1)


async def test_whoever_asks_first_may_leave_and_the_others_still_learn(bench: Bench) -> None:
    bench.gate = asyncio.Event()
    first, second = begun(bench.learn()), begun(bench.learn())
    await turns()
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    bench.gate.set()
    await second
    assert bench.profiles.knows(CLIENT)


async def test_a_server_that_is_let_go_while_it_is_asked_cancels_nobody_who_waits(bench: Bench) -> None:
    bench.gate = asyncio.Event()
    learning = begun(bench.learn())
    await turns()
    await bench.tasks.close()
    await asyncio.wait([learning], timeout=5)
    assert learning.done()
    assert not learning.cancelled()
    assert learning.exception() is None
    assert not bench.profiles.knows(CLIENT)
    assert bench.learned == 0


async def test_what_is_kept_is_bounded_and_the_longest_unlearned_goes_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "_MOST_PROFILES", 3)
    ways = ({"sampling": {}}, {"sampling": {"tools": {}}}, {"elicitation": {}}, {"roots": {}})
    clients = [Client(capabilities=way) for way in ways]
    for client in clients[:3]:
        await bench.learn(client)
    bench.profiles.outdated()
    await bench.learn(clients[0])  # learned anew, it is the latest
    assert len(bench.profiles) == 3
    await bench.learn(clients[3])
    assert len(bench.profiles) == 3
    assert [bench.shown(client) is MORE for client in clients] == [True, False, True, True]


async def test_a_client_whose_link_was_used_is_listed_for_by_itself(bench: Bench) -> None:
    used, fresh = Client(capabilities={"sampling": {}}, key="used"), Client(capabilities={"sampling": {}}, key="fresh")
    await bench.learn(fresh)
    bench.profiles.set_apart("used")
    assert not bench.profiles.knows(used)
    bench.offer = Offer((tool("hers alone"),))
    await bench.learn(used)
    assert bench.shown(used) is bench.offer
    assert bench.shown(fresh) is MORE
    bench.profiles.forget("used")
    assert len(bench.profiles) == 1


async def test_a_change_that_is_announced_to_one_client_is_asked_for_again(bench: Bench) -> None:
    client = Client(capabilities={"sampling": {}}, key="k")
    await bench.learn(client)
    bench.profiles.announced("k", client.profile)
    assert not bench.profiles.knows(client)
    await bench.learn(client)
    bench.profiles.set_apart("k")
    await bench.learn(client)
    bench.profiles.announced("k", client.profile)
    assert not bench.profiles.knows(client)
    assert bench.profiles.knows(Client(capabilities={"sampling": {}}, key="other"))
