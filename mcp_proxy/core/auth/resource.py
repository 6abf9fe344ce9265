"""Protected resource metadata (RFC 9728): what a client without a token is told about getting one. Pure.

A resource is one address of the MCP door. Sending the document is `api.resources`, pointing to it `edge.challenges`.
"""

from __future__ import annotations

import re
from typing import Any

from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.settings import Settings

WELL_KNOWN = "/.well-known/oauth-protected-resource"
NAME = "mcp-proxy-api"
SCOPES = (Scope.TOOLS_READ, Scope.TOOLS_CALL)
"""What the MCP door asks for."""

_NAMESPACE = re.compile(r"/mcp/[A-Za-z0-9_-]{1,64}")


def resource_of(path: str) -> str | None:
    """The path of the resource that a request's path belongs to, None outside the MCP door.

    The messages of an event stream belong to ``/sse``. What cannot be a namespace is not repeated.
    """
    place = path.rstrip("/")
    first = path[1:].partition("/")[0]
    if first == "mcp":
        return place if _NAMESPACE.fullmatch(place) else "/mcp"
    if first == "hook":
        return "/hook/mcp"
    return "/sse" if first in ("sse", "messages") else None


def metadata_url(base: str, path: str) -> str | None:
    """Where the metadata of a request's resource are (RFC 9728 §3.1), None outside the MCP door.

    ``base`` is scheme and host, and what a proxy in front puts before our paths: it stands before the well-known part
    too, since only what is below it is known to lead here.
    """
    resource = resource_of(path)
    return None if resource is None else f"{base}{WELL_KNOWN}{resource}"


def metadata(base: str, resource: str, settings: Settings) -> dict[str, Any]:
    """The document (RFC 9728 §2) of one resource, a path as `resource_of` gives it."""
    document: dict[str, Any] = {"resource": f"{base}{resource}"}
    servers = authorization_servers(settings)
    if servers:
        document["authorization_servers"] = servers
    return document | {
        "scopes_supported": [str(scope) for scope in SCOPES],
        "bearer_methods_supported": ["header"],
        "resource_name": NAME,
    }


def authorization_servers(settings: Settings) -> list[str]:
    """Issuers that clients can get tokens from: those configured, else the issuer that tokens must be from."""
    if settings.authorization_servers:
        return list(settings.authorization_servers)
    issuer = settings.jwt_issuer
    return [issuer] if issuer is not None and issuer.startswith("https://") else []
