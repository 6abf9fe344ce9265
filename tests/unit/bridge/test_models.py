from __future__ import annotations

from mcp_proxy.bridge.wire.models import listed, one


def test_one_object_has_the_fields_of_both_apis() -> None:
    assert one("fast", 1_700_000_000) == {
        "id": "fast",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "mcp-proxy-api",
        "type": "model",
        "display_name": "fast",
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
    }


def test_all_models_stand_on_one_page_in_their_order() -> None:
    page = listed(["b", "a"], 5)
    assert page.pop("data") == [one("b", 5), one("a", 5)]
    assert page == {"object": "list", "has_more": False, "first_id": "b", "last_id": "a"}


def test_a_list_can_be_empty() -> None:
    assert listed([], 5) == {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}
