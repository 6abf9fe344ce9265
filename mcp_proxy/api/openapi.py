"""The OpenAPI 3.1 document: the service's own routes, and one operation per tool. Pure.

What the routes take and give is `openapi_routes`; serving the document is `description`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from mcp_proxy.api.openapi_routes import ROUTES, SCHEMAS, Parameter, Route
from mcp_proxy.api.openapi_schema import transplant
from mcp_proxy.base.errors import KINDS, OUTCOME_UNKNOWN
from mcp_proxy.base.version import VERSION
from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.core.catalog.names import Shown
from mcp_proxy.core.catalog.tool import Tool

VERSION_OF_OPENAPI = "3.1.1"
LONGEST_ID = 64
"""Of an operation: what model APIs accept as a function's name."""

CALL_ERRORS = (400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504)
_MISFIT = re.compile(r"[^A-Za-z0-9_]")
_PLACES = ("", ".", "..")
"""Names that would make the path of a tool that of something else."""

_RULE = re.compile(r"<(?:\w+:)?(\w+)>")
_ABOUT = (
    "One service between programs and MCP servers. Below are its own routes and, for the token that the document was "
    "fetched with, one operation per tool that may be called. The routes carry no operationId, the tools do."
)


@dataclass(frozen=True, slots=True)
class Described:
    """One tool as an operation: its ``server`` is the server's or the group's name."""

    operation_id: str
    server: str
    tool: Tool


def operation_ids(tools: Iterable[Shown[Tool]]) -> dict[tuple[str, str], str]:
    """The operation of each (namespace, bare name): ``{namespace}_{tool}`` of ``[A-Za-z0-9_]``, at most 64 characters.

    Where that is too long or taken, it ends with a hash of both names. Give all tools, in the catalogue's order, so that
    the ids do not depend on who looks.
    """
    ids: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for one in tools:
        key = (one.entry.namespace, one.entry.name)
        ids[key] = found = _operation_id(*key, taken)
        taken.add(found)
    return ids


def _operation_id(namespace: str, tool: str, taken: Collection[str]) -> str:
    plain = _MISFIT.sub("_", f"{namespace}_{tool}")
    if len(plain) <= LONGEST_ID and plain not in taken:
        return plain
    for salt in itertools.count():
        tail = sha256(f"{namespace}.{tool}{salt or ''}".encode(errors="surrogatepass")).hexdigest()[:8]
        if (fitted := f"{plain[: LONGEST_ID - 9]}_{tail}") not in taken:
            return fitted
    raise AssertionError  # the count has no end


def in_braces(rule: str) -> str:
    """A rule of the table of routes as OpenAPI writes paths: ``/tools/<server>`` is ``/tools/{server}``."""
    return _RULE.sub(r"{\1}", rule)


def document(
    served: Collection[tuple[str, str]], tools: Sequence[Described], *, base_url: str, tokens: bool
) -> dict[str, Any]:
    """The document, JSON values only.

    ``served`` are (method, path in braces) of the routes there are; ``tokens`` whether the service asks for any.
    """
    routes = [route for route in ROUTES if (route.method, route.path) in served]
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _of_route(route, tokens)
    schemas: dict[str, Any] = dict(SCHEMAS)
    for one in tools:
        if one.tool.name not in _PLACES:
            path = f"/tools/{one.server}/{quote(one.tool.name, safe='')}"
            paths[path] = {"post": _of_tool(one, schemas, tokens)}
    components: dict[str, Any] = {"schemas": schemas, "responses": _error_responses()}
    if tokens:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "A JWT, or a static token."}
        }
    return {
        "openapi": VERSION_OF_OPENAPI,
        "info": {"title": "MCP Proxy API", "version": VERSION, "description": _ABOUT},
        "servers": [{"url": base_url}],
        "tags": [{"name": name} for name in _tags(routes, tools)],
        "paths": paths,
        "components": components,
    }


def _tags(routes: Iterable[Route], tools: Iterable[Described]) -> Iterable[str]:
    """In order of appearance, each once (a server may be called like a part of the API)."""
    return dict.fromkeys(itertools.chain((route.tag for route in routes), (one.server for one in tools)))


def _of_route(route: Route, tokens: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {"tags": [route.tag], "summary": route.summary}
    if route.description:
        operation["description"] = route.description
    parameters = [_path_parameter(name) for name in re.findall(r"{(\w+)}", route.path)]
    parameters += [_parameter(one) for one in route.parameters]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = _body(route.body, required=route.body_required)
    answer = _answer(route.summary_of_answer, route.answer, route.media)
    if route.headers:
        answer["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in route.headers.items()
        }
    responses: dict[str, Any] = {str(status): answer for status in (route.status, *route.also)}
    responses |= {str(status): {"description": text} for status, text in route.without_body.items()}
    operation["responses"] = responses | _errors(route.errors)
    operation["security"] = _security(route.scope, tokens)
    return operation


def _of_tool(one: Described, schemas: dict[str, Any], tokens: bool) -> dict[str, Any]:
    """The operation; its schemas are added to ``schemas``."""
    definition = one.tool.definition
    given = _component(schemas, f"{one.operation_id}_input", definition.get("inputSchema"))
    operation: dict[str, Any] = {
        "operationId": one.operation_id,
        "tags": [one.server],
        "summary": _title(one.tool),
        "requestBody": _body(given, required=bool(schemas[f"{one.operation_id}_input"].get("required"))),
    }
    if isinstance(text := definition.get("description"), str) and text:
        operation["description"] = text
    answer: dict[str, Any] = {"$ref": "#/components/schemas/CallResult"}
    if isinstance(definition.get("outputSchema"), dict):
        result = _component(schemas, f"{one.operation_id}_output", definition["outputSchema"])
        answer = {"allOf": [answer, {"type": "object", "properties": {"structuredContent": result}}]}
    answered = _answer("What the tool gave. It failed where isError is true.", answer)
    operation["responses"] = {"200": answered} | _errors(CALL_ERRORS)
    operation["security"] = _security(Scope.TOOLS_CALL, tokens)
    return operation


def _title(tool: Tool) -> str:
    hints = tool.definition.get("annotations")
    titles = (tool.definition.get("title"), hints.get("title") if isinstance(hints, Mapping) else None)
    return next((title for title in titles if isinstance(title, str) and title), tool.name)


def _component(schemas: dict[str, Any], name: str, schema: Any) -> dict[str, str]:
    """Keep ``schema`` under ``name``, and refer to it: importers follow references into the components only."""
    place = f"#/components/schemas/{name}"
    schemas[name] = transplant(schema, place)
    return {"$ref": place}


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _parameter(one: Parameter) -> dict[str, Any]:
    return {"name": one.name, "in": one.place, "description": one.description, "schema": {"type": "string"}}


def _body(schema: Any, *, required: bool) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _answer(description: str, schema: Any, media: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}}


def _errors(statuses: Iterable[int]) -> dict[str, Any]:
    named = {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in statuses}
    return named | {"default": {"$ref": "#/components/responses/Error"}}


def _error_responses() -> dict[str, Any]:
    """One per status, with the types that it has."""
    types: dict[int, list[str]] = {}
    for kind in KINDS:
        types.setdefault(kind.status, []).append(kind.type)
    types[504].append(OUTCOME_UNKNOWN.type)
    error = {"$ref": "#/components/schemas/Error"}
    named = {f"Error{status}": _answer(f"`{'`, `'.join(words)}`", error) for status, words in sorted(types.items())}
    return named | {"Error": _answer("Any other refusal.", error)}


def _security(scope: Scope | None, tokens: bool) -> list[dict[str, list[str]]]:
    """The scope stands where OpenAPI 3.1 has the names of roles; an empty list asks for nothing."""
    return [{"bearer": [str(scope)]}] if tokens and scope is not None else []
