from __future__ import annotations

import pytest

from mcp_proxy.core.upstream.terms import Era, Terms


def terms(**capabilities: object) -> Terms:
    return Terms(Era.LEGACY, "2025-11-25", capabilities)


def test_a_server_offers_what_it_declares() -> None:
    found = terms(prompts={}, resources=None)
    assert found.offers("prompts")
    assert found.offers("resources")
    assert not found.offers("tools")


def test_a_server_that_declares_nothing_has_tools_and_nothing_else() -> None:
    assert terms().offers("tools")
    assert not terms().offers("prompts")


@pytest.mark.parametrize(
    ("declared", "announces"),
    [({"listChanged": True}, True), ({"listChanged": 1}, False), ({"listChanged": "true"}, False), ({}, False), (True, False)],
)  # fmt: skip
def test_only_a_plain_true_declares_a_feature(declared: object, announces: bool) -> None:
    assert terms(tools=declared).declares("tools", "listChanged") is announces
    assert terms(tools=declared).list_changed == (("tools",) if announces else ())


def test_the_kinds_whose_changes_are_announced_are_named() -> None:
    changing = {"listChanged": True}
    assert terms(resources=changing, prompts={}, tools=changing, other=changing).list_changed == ("tools", "resources")
