"""What each route of the REST door takes and gives, for people and programs that have to know before they call it.

A table. That it is true is shown by tests, which compare it with the table of routes in `app` and with real answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.core.auth.resource import WELL_KNOWN

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
ANY_OBJECT: Schema = {"type": "object"}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _object(*required: str, closed: bool = False, **properties: Schema) -> Schema:
    """``closed``: further properties are refused (422)."""
    made: Schema = {"type": "object", "properties": properties}
    if required:
        made["required"] = list(required)
    if closed:
        made["additionalProperties"] = False
    return made


def _described(schema: Schema, text: str) -> Schema:
    return {**schema, "description": text}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One that is optional; those of the path are read from it. ``place`` is ``query`` or ``header``."""

    name: str
    description: str
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Route:
    """One row. ``scope`` None: for everybody. ``also`` are further statuses with the same answer."""

    method: str
    path: str
    tag: str
    summary: str
    scope: Scope | None
    answer: Schema
    summary_of_answer: str = "As asked."
    status: int = 200
    also: tuple[int, ...] = ()
    without_body: Mapping[int, str] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    parameters: tuple[Parameter, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the answer."""
    description: str = ""
    media: str = "application/json"


_TOOL = _object(
    "name",
    name=STRING,
    title=STRING,
    description=STRING,
    inputSchema=ANY_OBJECT,
    outputSchema=ANY_OBJECT,
    annotations=ANY_OBJECT,
)
_GLOBS = _list(_described(STRING, "A glob."))
_WORDS = _list(STRING)
_STATE = {"type": "string", "enum": ["connecting", "connected", "degraded", "down", "disabled", "failed"]}
_KIND = {"type": "string", "enum": ["tools", "prompts", "resources", "resourceTemplates"]}
_RULE = {"type": "string", "enum": ["allow", "deny", "override"]}
_UNMATCHED = _list(_object("rule", "name", rule=_RULE, name=STRING))
_OVERRIDE = _object(
    name=_described(STRING, "What it is called here."),
    title=STRING,
    description=STRING,
    fixed=_described(_map({}), "Arguments that are filled in; callers do not see them."),
    hidden=_described(_WORDS, "Arguments that nobody can give."),
)
_RULES = _object(
    allow=_GLOBS,
    deny=_GLOBS,
    override=_described(_map(_OVERRIDE), "By the server's name for the tool."),
    pin=_described(BOOLEAN, "Hold back tools whose definition changes, until that is approved."),
)
_RETRY = _object(max=INTEGER, idempotent=_GLOBS, trust_annotations=BOOLEAN)
_ENTRY: dict[str, Schema] = {
    "type": {"type": "string", "description": "How it is reached; found out where it is left out."},
    "command": STRING,
    "args": _WORDS,
    "env": _map(STRING),
    "url": STRING,
    "headers": _map(STRING),
    "group": _described(STRING, "Servers of one group are replicas of one another."),
    "disabled": BOOLEAN,
    "timeout": _described(NUMBER, "Seconds of a call."),
    "connect_timeout": _described(NUMBER, "Seconds."),
    "max_concurrency": INTEGER,
    "tools": _RULES,
    "retry": _RETRY,
    "description": STRING,
}
SCHEMAS: Mapping[str, Schema] = {
    "Error": _object(
        "error",
        error=_object(
            "message",
            "code",
            "type",
            "request_id",
            message=STRING,
            code=_described(INTEGER, "The HTTP status."),
            type=_described(STRING, "The word to decide on."),
            request_id=STRING,
            details=_described(ANY_OBJECT, "Data for a program."),
        ),
    ),
    "CallResult": _object(
        "content",
        "isError",
        "server",
        "request_id",
        content=_described(_list(ANY_OBJECT), "Content blocks of MCP, as the server sent them."),
        structuredContent={"description": "The result as JSON, where the tool gives one."},
        isError=_described(BOOLEAN, "Whether the tool ran and failed."),
        server=_described(STRING, "Who answered."),
        request_id=STRING,
    ),
    "Tool": _TOOL,
    "Server": {
        **_object(
            "name",
            "transport",
            "era",
            "protocol_version",
            "state",
            "group",
            "disabled",
            "tools",
            "last_error",
            "latency_ms",
            "source",
            "withheld",
            name=STRING,
            url=STRING,
            command=STRING,
            transport=_or_null(STRING),
            era={"type": ["string", "null"], "enum": ["legacy", "modern", None]},
            protocol_version=_or_null(STRING),
            state=_STATE,
            group=_or_null(STRING),
            disabled=BOOLEAN,
            tools=_described(INTEGER, "How many it has."),
            last_error=_or_null(STRING),
            latency_ms=_or_null(NUMBER),
            source=_described(STRING, "Where it is configured."),
            withheld=_list(_object("kind", "name", "reason", kind=_KIND, name=STRING, reason=STRING)),
        ),
    },
    "Instance": {
        "description": "A server as it is, and as it is configured, secrets masked.",
        "allOf": [
            {"type": "object", "required": ["name", "state"], "properties": {"name": STRING, "state": _STATE}},
            {"type": "object", "properties": {"origin": STRING, "args": _WORDS, "env": _map(STRING), "cwd": STRING}},
            {
                "type": "object",
                "properties": {"unmatched": _described(_UNMATCHED, "Rules that mean none of its tools.")},
            },
        ],
    },
    "ServerEntry": {
        "description": "A server: a URL or a command. Unknown keys are refused; the keys of MCP clients are known.",
        "type": "object",
        "properties": _ENTRY,
    },
    "Removed": _object("removed", removed=STRING),
}

_READ = (400, 401, 403)
_READ_ONE = (*_READ, 404)
_CHANGE = (400, 401, 403, 404, 409, 413, 415, 422, 500)
_CALL = (400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504)
_CALL_ANSWER = "What the tool gave. It failed where isError is true."
_IF_MATCH = Parameter("If-Match", "The ETag that was read: 409 when the server has been changed since.", "header")
_ETAG = {"ETag": "Equal as long as the server is configured the same; for If-Match."}
_ARGUMENTS = _described(ANY_OBJECT, "The tool's arguments.")
_ENTRIES = _object("mcpServers", closed=True, mcpServers={**_map(_ref("ServerEntry")), "minProperties": 1})
_NAMED_ENTRY: Schema = {"allOf": [_ref("ServerEntry"), _object("name", name=STRING)]}
_INSTANCE = _ref("Instance")
_STATUS = _object("status", status=STRING)
_REVISION = _described(INTEGER, "Grows with each change of what is offered.")

_TOOL_ROUTES = (
    Route(
        "POST", "/tools", "tools", "Call a tool by its name", Scope.TOOLS_CALL, _ref("CallResult"), _CALL_ANSWER,
        body=_object(
            "method",
            closed=True,
            method=_described(STRING, "Bare (add), or with its server or group in front (calc.add)."),
            args=_or_null(_ARGUMENTS),
            server=_described(_or_null(STRING), "A server's or group's name, or a server's URL."),
        ),
        errors=_CALL,
    ),
    Route(
        "POST", "/tools/{server}/{tool}", "tools", "Call a tool of a server or group", Scope.TOOLS_CALL,
        _ref("CallResult"), _CALL_ANSWER, body=_ARGUMENTS, body_required=False, errors=_CALL,
    ),
    Route(
        "POST", "/api/call", "tools", "Call a tool of an instance", Scope.TOOLS_CALL, _ref("CallResult"), _CALL_ANSWER,
        body=_object(
            "instance", "tool", closed=True, instance=STRING, tool=STRING, params=_or_null(_ARGUMENTS)
        ),
        errors=_CALL,
    ),
    Route(
        "GET", "/tools", "tools", "List the tools under the names that MCP clients see", Scope.TOOLS_READ,
        _object(
            "tools", "revision",
            tools=_list({"allOf": [_ref("Tool"), _object("server", server=STRING)]}), revision=_REVISION,
        ),
        errors=_READ_ONE, parameters=(Parameter("server", "Only those of this server or group."),),
    ),
    Route(
        "GET", "/tools/list", "tools", "List the tools under bare names, with the servers that have them",
        Scope.TOOLS_READ,
        _object(
            "tools", "revision",
            tools=_list({"allOf": [_ref("Tool"), _object("servers", servers=_WORDS)]}), revision=_REVISION,
        ),
        errors=_READ_ONE, parameters=(Parameter("server", "Only those of this server or group."),),
    ),
    Route(
        "GET", "/api/tools", "tools", "List the tools of each server", Scope.TOOLS_READ, _map(_list(_ref("Tool"))),
        errors=_READ,
    ),
    Route(
        "GET", "/api/tools/{server}", "tools", "List the tools of a server", Scope.TOOLS_READ, _list(_ref("Tool")),
        errors=_READ_ONE,
    ),
)  # fmt: skip

_SERVER_ROUTES = (
    Route(
        "GET", "/servers", "servers", "List the servers", Scope.SERVERS_READ,
        _object("servers", servers=_list(_ref("Server"))), errors=_READ,
    ),
    Route(
        "POST", "/servers", "servers", "Add servers, all or none", Scope.SERVERS_WRITE,
        _object("added", added=_WORDS), "They are kept, and being connected.", status=201, body=_ENTRIES, errors=_CHANGE,
    ),
    Route(
        "DELETE", "/servers/{name}", "servers", "Remove a server that was added over the API", Scope.SERVERS_WRITE,
        _ref("Removed"), errors=(400, 401, 403, 404, 409, 500), parameters=(_IF_MATCH,),
    ),
    Route(
        "GET", "/api/instances", "servers", "List the servers", Scope.SERVERS_READ, _list(_ref("Server")), errors=_READ,
    ),
    Route(
        "GET", "/api/instances/{name}", "servers", "One server", Scope.SERVERS_READ, _INSTANCE, errors=_READ_ONE,
        headers=_ETAG,
    ),
    Route(
        "POST", "/api/instances", "servers", "Add a server", Scope.SERVERS_WRITE, _INSTANCE,
        "It is kept, and being connected.", status=201, body=_NAMED_ENTRY, errors=_CHANGE, headers=_ETAG,
    ),
    Route(
        "PATCH", "/api/instances/{name}", "servers", "Change a server", Scope.SERVERS_WRITE, _INSTANCE,
        body=_described(ANY_OBJECT, "What differs of the entry."), errors=_CHANGE, parameters=(_IF_MATCH,), headers=_ETAG,
        description="A merge patch (RFC 7396): null takes a key away, a masked value keeps what is there. "
        "A server of a file can be switched on and off only.",
    ),
    Route(
        "DELETE", "/api/instances/{name}", "servers", "Remove a server that was added over the API",
        Scope.SERVERS_WRITE, _ref("Removed"), errors=(400, 401, 403, 404, 409, 500), parameters=(_IF_MATCH,),
    ),
    *(
        Route(
            "POST", f"/api/instances/{{name}}/{verb}", "servers", f"Switch a server {word}", Scope.SERVERS_WRITE,
            _INSTANCE, errors=(400, 401, 403, 404, 409, 500), parameters=(_IF_MATCH,), headers=_ETAG,
        )
        for verb, word in (("enable", "on"), ("disable", "off"))
    ),
    Route(
        "GET", "/api/instances/{name}/pins", "servers", "Pinned tools of a server, and those that have changed since",
        Scope.SERVERS_READ,
        _object(
            "pinned", "tools", "held", pinned=BOOLEAN, tools=_map(_list(ANY_OBJECT)),
            held=_map(_object("pinned", "offered", pinned=_list(ANY_OBJECT), offered=_list(ANY_OBJECT))),
        ),
        errors=_READ_ONE, headers={"ETag": "Equal as long as the same is found; for If-Match when approving it."},
        description="Definitions as they are approved, and as they are offered instead, by the server's names of tools.",
    ),
    Route(
        "POST", "/api/instances/{name}/pins/approve", "servers", "Accept changed tools as they are now",
        Scope.SERVERS_WRITE, _object("approved", approved=_WORDS), body=_object(closed=True, tools=_WORDS),
        body_required=False, errors=_CHANGE, description="Without a body, all that are held back.",
        parameters=(
            Parameter("If-Match", "The ETag of the pins that were looked at: 409 when they have changed since.", "header"),
        ),
    ),
    Route(
        "GET", "/api/config", "servers", "Servers as written, settings and problems, secrets masked",
        Scope.SERVERS_READ,
        _object(
            "servers", "settings", "problems",
            servers=_list(ANY_OBJECT), settings=ANY_OBJECT, revision=INTEGER,
            problems=_list(_object("source", "reason", source=STRING, reason=STRING, server=STRING, line=_or_null(INTEGER))),
        ),
        errors=_READ,
    ),
)  # fmt: skip

_SERVICE_ROUTES = (
    Route(
        "GET", "/", "service", "Name, version and doors", None,
        _object("name", "version", "doors", name=STRING, version=STRING, doors=_WORDS),
    ),
    Route(
        "GET", "/health", "service", "How the service and its servers are", None,
        _object(
            "status", "servers", "config_error",
            status={"type": "string", "enum": ["ok", "degraded", "down", "draining"]},
            servers=_map(_STATE),
            config_error=BOOLEAN,
            errors=_described(_map(STRING), "By server; for tokens with servers:read."),
            config_problems=_described(_list(ANY_OBJECT), "For tokens with servers:read."),
        ),
        "503 when no server is connected although some are configured, and while draining.", also=(503,),
    ),
    Route("GET", "/health/live", "service", "The process answers", None, _STATUS),
    Route(
        "GET", "/health/ready", "service", "New work is welcome", None, _STATUS, "503 while draining.", also=(503,),
    ),
    Route(
        "POST", "/api/tokens/revoke", "service", "Revoke a token", Scope.ADMIN, _object("revoked", revoked=STRING),
        body=_object("jti", closed=True, jti={"type": "string", "minLength": 1, "maxLength": 256}),
        errors=(400, 401, 403, 413, 415, 422, 500),
    ),
    *(
        Route(
            "GET", path, "service", "Where clients of the MCP door get tokens (RFC 9728)", None,
            _object("resource", resource=STRING, authorization_servers=_WORDS, scopes_supported=_WORDS), errors=(404,),
        )
        for path in (WELL_KNOWN, f"{WELL_KNOWN}/{{path}}")
    ),
    Route(
        "GET", "/openapi.json", "service", "This document", None, ANY_OBJECT,
        "With a token that has tools:read and tools:call, its tools too.",
        without_body={304: "It is still the one that If-None-Match names."}, errors=(401,),
        parameters=(Parameter("If-None-Match", "An ETag that was read.", "header"),),
        headers={"ETag": "Equal for documents that are equal."},
    ),
    Route("GET", "/docs", "service", "This document as a page to read and try", None, STRING, media="text/html"),
    Route(
        "GET", "/docs/{file}", "service", "What the page consists of", None, STRING, errors=(404,), media="text/*",
    ),
)  # fmt: skip

ROUTES: tuple[Route, ...] = (*_TOOL_ROUTES, *_SERVER_ROUTES, *_SERVICE_ROUTES)
