"""Short ways to say what a server offers."""

from __future__ import annotations

from typing import Any

from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.catalog.item import Prompt, Resource, Template
from mcp_proxy.core.catalog.naming import decide
from mcp_proxy.core.catalog.offer import Offer
from mcp_proxy.core.catalog.snapshot import Catalog, build
from mcp_proxy.core.catalog.tool import Tool
from tests.unit.core.fakes import tool

Served = tuple[ServerSpec, Offer]


def prompt(name: str, **definition: Any) -> Prompt:
    return Prompt({"name": name, **definition})


def resource(uri: str, **definition: Any) -> Resource:
    return Resource({"uri": uri, "name": "a resource", **definition})


def template(uri_template: str, **definition: Any) -> Template:
    return Template({"uriTemplate": uri_template, "name": "a template", **definition})


def with_tools(spec: ServerSpec, *tools: Tool | str) -> Served:
    return spec, Offer(tools=tuple(tool(one) if isinstance(one, str) else one for one in tools))


def with_prompts(spec: ServerSpec, *prompts: Prompt | str) -> Served:
    return spec, Offer(prompts=tuple(prompt(one) if isinstance(one, str) else one for one in prompts))


def with_resources(spec: ServerSpec, *uris: str) -> Served:
    """URIs, those with a brace as templates."""
    return spec, Offer(
        resources=tuple(resource(uri) for uri in uris if "{" not in uri),
        templates=tuple(template(uri) for uri in uris if "{" in uri),
    )


def catalogue(*servers: Served, naming: str = "always", separator: str = ".") -> Catalog:
    return build(servers, decide(naming, separator, 2), 1)
