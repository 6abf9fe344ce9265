from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mcp_proxy.base.version import VERSION
from mcp_proxy.core.upstream.client import PROXY, Client
from mcp_proxy.core.upstream.terms import Era

SAMPLES: Mapping[str, Any] = {"sampling": {}}


def test_the_proxy_itself_speaks_in_its_own_name_and_can_be_asked_nothing() -> None:
    assert PROXY.info == {"name": "mcp-proxy-api", "version": VERSION}
    assert not PROXY.asks
    assert not PROXY.needs_own_link
    assert PROXY.profile == ""


@pytest.mark.parametrize(
    ("capabilities", "asks"),
    [
        ({}, False),
        ({"experimental": {"x": {}}}, False),
        ({"tasks": {}}, False),
        ({"sampling": {}}, True),
        ({"elicitation": {}}, True),
        ({"roots": {"listChanged": True}}, True),
    ],
)
def test_only_a_client_that_offers_to_answer_can_be_asked(capabilities: Mapping[str, Any], asks: bool) -> None:
    client = Client(capabilities=capabilities, key="k")
    assert client.asks is asks
    assert bool(client.profile) is asks
    assert client.needs_own_link is asks


def test_clients_that_offer_the_same_have_one_profile() -> None:
    one = Client(capabilities={"roots": {}, "sampling": {}}, info={"name": "a"}, key="1", log_level="debug")
    other = Client(capabilities={"sampling": {}, "roots": {}, "experimental": {"x": 1}}, info={"name": "b"}, key="2")
    assert one.profile == other.profile


@pytest.mark.parametrize(
    "other",
    [
        Client(capabilities={"sampling": {"tools": {}}}),
        Client(capabilities={"elicitation": {}}),
        Client(capabilities={"sampling": {}, "roots": {}}),
        Client(Era.LEGACY, capabilities=SAMPLES),
    ],
    ids=lambda client: client.profile,
)
def test_clients_that_offer_something_else_have_another(other: Client) -> None:
    assert other.profile != Client(capabilities=SAMPLES).profile


@pytest.mark.parametrize(
    ("client", "own"),
    [
        (Client(key="k"), False),
        (Client(key="k", log_level="info"), True),
        (Client(log_level="info"), False),
        (Client(capabilities=SAMPLES), False),
        (Client(capabilities=SAMPLES, key="k"), True),
    ],
    ids=["offers nothing", "wants a log", "wants a log, has no key", "has no key", "can be asked"],
)
def test_a_link_of_its_own_is_for_clients_that_a_server_could_mix_up(client: Client, own: bool) -> None:
    assert client.needs_own_link is own


def test_a_handshake_tells_what_the_client_can_except_what_is_not_carried() -> None:
    capabilities = {"sampling": {"tools": {}}, "tasks": {"list": {}}, "experimental": {"x": {}}}
    assert Client(capabilities=capabilities).handshake_capabilities() == {
        "sampling": {"tools": {}},
        "experimental": {"x": {}},
    }
    assert PROXY.handshake_capabilities() == {}
