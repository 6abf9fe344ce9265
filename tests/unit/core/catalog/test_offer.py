from __future__ import annotations

import pytest

from mcp_proxy.core.catalog.offer import Offer, adopt_offer

FULL = adopt_offer(
    {
        "tools": [{"name": "a"}, {"name": "b"}],
        "prompts": [{"name": "a"}],
        "resources": [{"uri": "x://1", "name": "one"}],
        "resourceTemplates": [{"uriTemplate": "x://{n}", "name": "any"}],
    },
    Offer(),
)


def test_every_kind_is_found_by_what_it_is_called_by() -> None:
    assert [tool.name for tool in FULL.tools] == ["a", "b"]
    assert [prompt.name for prompt in FULL.prompts] == ["a"]
    assert [resource.uri for resource in FULL.resources] == ["x://1"]
    assert [template.uri_template for template in FULL.templates] == ["x://{n}"]


def test_unchanged_definitions_stay_the_same_objects() -> None:
    fresh = adopt_offer(
        {
            "tools": [{"name": "b"}, {"name": "a", "description": "new"}, {"name": "c"}],
            "resources": [{"uri": "x://2", "name": "two"}, {"uri": "x://1", "name": "one"}],
        },
        FULL,
    )
    assert [tool.name for tool in fresh.tools] == ["b", "a", "c"]
    assert fresh.tools[0] is FULL.tools[1]
    assert fresh.tools[1] is not FULL.tools[0]
    assert fresh.resources[1] is FULL.resources[0]


def test_what_was_not_listed_stays_as_it_is_known() -> None:
    fresh = adopt_offer({"prompts": [{"name": "z"}]}, FULL)
    assert (fresh.tools, fresh.resources, fresh.templates) == (FULL.tools, FULL.resources, FULL.templates)
    assert [prompt.name for prompt in fresh.prompts] == ["z"]


def test_an_empty_listing_takes_everything_of_its_kind_away() -> None:
    fresh = adopt_offer({"tools": [], "resourceTemplates": []}, FULL)
    assert (fresh.tools, fresh.templates) == ((), ())
    assert fresh.prompts is FULL.prompts


@pytest.mark.parametrize(
    ("key", "member", "field"),
    [
        ("tools", "name", "tools"),
        ("prompts", "name", "prompts"),
        ("resources", "uri", "resources"),
        ("resourceTemplates", "uriTemplate", "templates"),
    ],
)
def test_a_name_that_is_listed_twice_counts_once_the_first_time(key: str, member: str, field: str) -> None:
    listed = [{member: "a", "description": "first"}, {member: "a", "description": "second"}]
    [only] = getattr(adopt_offer({key: listed}, Offer()), field)
    assert only.definition["description"] == "first"
