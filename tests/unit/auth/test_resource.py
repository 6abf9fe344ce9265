"""What the metadata of a protected resource say, and where they are."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.core.auth.resource import authorization_servers, metadata, metadata_url, resource_of
from mcp_proxy.settings import Settings


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/mcp", "/mcp"),
        ("/mcp/", "/mcp"),
        ("/mcp/calc", "/mcp/calc"),
        ("/mcp/calc/", "/mcp/calc"),
        ("/mcp/two/parts", "/mcp"),
        ('/mcp/a"b', "/mcp"),
        ("/mcp/" + "x" * 65, "/mcp"),
        ("/mcp/a\n", "/mcp"),
        ("/sse", "/sse"),
        ("/messages/", "/sse"),
        ("/tools", None),
        ("/mcpx", None),
        ("/", None),
        ("", None),
    ],
)
def test_every_path_of_the_mcp_door_belongs_to_one_resource(path: str, resource: str | None) -> None:
    assert resource_of(path) == resource


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/mcp", "https://a.example/.well-known/oauth-protected-resource/mcp"),
        ("/mcp/calc", "https://a.example/.well-known/oauth-protected-resource/mcp/calc"),
        ("/messages/", "https://a.example/.well-known/oauth-protected-resource/sse"),
        ("/tools", None),
    ],
)
def test_the_well_known_part_stands_before_the_resources_path(path: str, url: str | None) -> None:
    assert metadata_url("https://a.example", path) == url


def test_the_document_names_what_the_mcp_door_needs() -> None:
    settings = Settings(authorization_servers=("https://login.example", "https://b.example/tenant"))

    assert metadata("https://a.example", "/mcp/calc", settings) == {
        "resource": "https://a.example/mcp/calc",
        "authorization_servers": ["https://login.example", "https://b.example/tenant"],
        "scopes_supported": ["tools:read", "tools:call"],
        "bearer_methods_supported": ["header"],
        "resource_name": "mcp-proxy-api",
    }


@pytest.mark.parametrize(
    ("settings", "servers"),
    [
        ({"authorization_servers": ("https://a.example",), "jwt_issuer": "https://b.example"}, ["https://a.example"]),
        ({"jwt_issuer": "https://b.example/"}, ["https://b.example/"]),
        ({"jwt_issuer": "http://b.example"}, []),
        ({"jwt_issuer": "ourselves"}, []),
        ({}, []),
    ],
)
def test_the_issuer_stands_in_for_authorization_servers_when_it_is_a_url(
    settings: dict[str, Any], servers: list[str]
) -> None:
    assert authorization_servers(Settings(**settings)) == servers


def test_with_nobody_to_name_the_key_is_left_out() -> None:
    assert "authorization_servers" not in metadata("https://a.example", "/mcp", Settings())
