from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.config.spelling import respelled

URL = "http://h/mcp"


@pytest.mark.parametrize(
    ("entry", "patch", "made"),
    [
        ({"serverUrl": URL}, {"url": "u"}, {"url": URL}),
        ({"serverUrl": URL, "url": ""}, {"url": "u"}, {"url": URL}),
        ({"command": URL, "type": "sse"}, {"url": "u"}, {"url": URL, "type": "sse"}),
        ({"httpUrl": URL}, {"url": "u"}, {"url": URL, "transport": "streamable-http"}),
        ({"httpUrl": URL, "type": "http"}, {"url": "u"}, {"url": URL, "type": "http"}),
        ({"type": "sse", "url": URL}, {"transport": "auto"}, {"transport": "sse", "url": URL}),
        ({"transport": {"type": "sse", "url": URL}}, {"transport": "sse"}, {"transport": "sse", "url": URL}),
        ({"transport": {"type": "sse", "url": URL}}, {"transport": {"url": "u"}}, None),
        ({"environment": {"A": "1"}}, {"env": {}}, {"env": {"A": "1"}}),
        ({"http_headers": [{"name": "A", "value": "1"}]}, {"headers": {}}, {"headers": {"A": "1"}}),
        ({"headers": [{"name": 1}]}, {"headers": {}}, None),
        ({"working_dir": "/w"}, {"cwd": "/"}, {"cwd": "/w"}),
        ({"timeoutSeconds": 5}, {"timeout": None}, {"timeout": 5}),
        ({"startup_timeout_sec": 5}, {"connect_timeout": 1}, {"connect_timeout": 5}),
        ({"command": ["a", "b"], "args": ["c"]}, {"args": []}, {"command": "a", "args": ["b", "c"]}),
        ({"command": []}, {"command": "a"}, None),
        ({"isActive": False}, {"disabled": True, "url": "u"}, {"disabled": True}),
        ({"enabled": True, "disabled": True}, {"disabled": False}, {"disabled": True}),
        ({"enabled": True}, {"disabled": False}, {}),
        ({"enabled_tools": ["a"]}, {"tools": {"deny": []}}, {"tools": {"allow": ["a"]}}),
        ({"includeTools": ["a"]}, {"tools": ["b"]}, {"tools": ["a"]}),
        ({"includeTools": ["a"]}, {"tools": None}, {"tools": ["a"]}),
        ({"disabledTools": ["a"]}, {"tools": ["b"]}, None),
        ({"tools": ["a"], "excludeTools": ["b"]}, {"tools": {}}, {"tools": {"allow": ["a"], "deny": ["b"]}}),
        (
            {"tools": {"deny": ["a"], "pin": True}, "disabledTools": ["b"], "disabled_tools": ["c"]},
            {"tools": {}},
            {"tools": {"deny": ["a", "b", "c"], "pin": True}},
        ),
        ({"disabledTools": "a"}, {"tools": {}}, {"disabledTools": "a", "tools": {}}),
        ({"serverUrl": URL, "includeTools": ["a"], "isActive": False}, {"description": "d"}, None),
    ],
)
def test_other_words_for_what_is_changed_become_the_word_that_is_shown(
    entry: dict[str, Any], patch: dict[str, Any], made: dict[str, Any] | None
) -> None:
    before = repr(entry)
    assert respelled(entry, patch) == (entry if made is None else made)
    assert repr(entry) == before
