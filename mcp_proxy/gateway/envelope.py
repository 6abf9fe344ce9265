"""What a client sent: one JSON-RPC message, and the envelope that a modern request carries around it. Pure.

Which half of the protocol serves a message is decided here too, and a request's headers are compared with its body.
What a request means is the door's business; ids of requests of our own are not known here.
Source: basic, basic/transports/streamable-http (2026-07-28); basic (2025-11-25) for messages.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from mcp_proxy.base.json import JsonError, decode, encode, read_strict
from mcp_proxy.base.protocol import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY_VERSIONS,
    LOG_LEVELS,
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_VERSION,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    MODERN_VERSIONS,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
)
from mcp_proxy.core.upstream.client import PROXY_INFO, Client
from mcp_proxy.core.upstream.terms import Era

_VERSION, _METHOD, _NAME = "mcp-protocol-version", "mcp-method", "mcp-name"
_SHOWN = {_VERSION: "MCP-Protocol-Version", _METHOD: "Mcp-Method", _NAME: "Mcp-Name"}
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Methods, and the parameter that Mcp-Name repeats."""
_BASE64 = re.compile(r"=\?base64\?(.*)\?=")
_DECIMAL = re.compile(r"(-?[0-9]+)(?:\.0+)?")
"""A whole number as the comparison of integers accepts it; not in scientific notation."""
_STATUSES = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CLIENT_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}

RequestId = int | str


MAX_INTRODUCTION = 16 * 1024
"""Bytes that a client's capabilities and description of itself may take together: they are kept, and sent on."""
_KEPT_SIZE = 1024
"""Bytes of the same from which on a modern client is not kept for its next request."""


class Request(msgspec.Struct, frozen=True):
    """A message that is owed an answer. ``params`` is {} when the client sent none."""

    id: RequestId
    method: str
    params: dict[str, Any]


class Notification(msgspec.Struct, frozen=True):
    """A message that is owed none."""

    method: str
    params: dict[str, Any]


class Response(msgspec.Struct, frozen=True):
    """A client's answer to a request of ours: exactly one of ``result`` and ``error`` is not None."""

    id: RequestId
    result: dict[str, Any] | None
    error: dict[str, Any] | None


Message = Request | Notification | Response


class Refusal(Exception):
    """What the client is told instead of an answer.

    ``code``, ``message`` and ``data`` are the JSON-RPC error's (``data`` None: left out). ``status`` is the HTTP status,
    in the modern era and for bodies that cannot be read. ``id`` is that of the request, None where it is not known.
    """

    def __init__(
        self, code: int, message: str, *, data: Any = None, status: int = 400, id: RequestId | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.status = status
        self.id = id


class Headers(dict[str, str]):
    """The ``mcp-`` headers of one HTTP request by lower-case name, and no others.

    The first copy of each counts as its value; ``repeated`` names those that stand more than once, since readers
    between the client and here may have taken another copy.
    """

    __slots__ = ("repeated",)

    def __init__(self, values: Mapping[str, str] | None = None, repeated: frozenset[str] = frozenset()) -> None:
        super().__init__(values or {})
        self.repeated = repeated


def http_status(code: int) -> int:
    """The HTTP status that goes with a JSON-RPC error code in the modern era; 200 for codes without one."""
    return _STATUSES.get(code, 200)


# Messages


def read_message(data: bytes) -> Message:
    """Read one message. Raises `Refusal` (-32700, -32600), with the message's id where that can be read."""
    try:
        body = read_strict(data)
    except JsonError as error:
        raise Refusal(PARSE_ERROR, f"the message is not JSON: {error}") from None
    if type(body) is list:
        raise Refusal(INVALID_REQUEST, "batches are not part of this protocol revision")
    if type(body) is not dict:
        raise Refusal(INVALID_REQUEST, "a message is a JSON object")
    id = body.get("id")
    if type(id) not in (str, int):
        id = None
    params = body.get("params", {})
    fault = _message_fault(body, id, params)
    if fault is not None:
        raise Refusal(INVALID_REQUEST, fault, id=id)
    if id is None:
        return Notification(body["method"], params)
    if "method" in body:
        return Request(id, body["method"], params)
    return Response(id, body.get("result"), body.get("error"))


def _message_fault(body: dict[str, Any], id: RequestId | None, params: object) -> str | None:
    """Why an object is none of the three messages, or None. ``id`` is None unless it can be one."""
    if body.get("jsonrpc") != "2.0":
        return "jsonrpc must be '2.0'"
    if id is None and "id" in body:
        return "id must be a string or an integer"
    if "method" not in body:
        return _response_fault(body)
    if type(body["method"]) is not str:
        return "method must be a string"
    return None if type(params) is dict else "params must be an object"


def _response_fault(body: dict[str, Any]) -> str | None:
    outcomes = [body[key] for key in ("result", "error") if key in body]
    if not outcomes or "id" not in body:
        return "method is missing"
    if len(outcomes) > 1:
        return "a response has either a result or an error"
    return None if isinstance(outcomes[0], dict) else "a result or error must be an object"


# The modern envelope


def is_modern(headers: Headers, message: Message | None) -> bool:
    """Which half of the protocol serves this POST: the modern one, or the one with ``initialize``.

    The header decides, and a version nobody knows is modern: it is refused there. A request that carries an envelope
    but no header is modern too, to be told what is missing. ``message`` is None where there is none to look at.
    """
    version = headers.get(_VERSION)
    if version is not None:
        return version not in LEGACY_VERSIONS or _VERSION in headers.repeated
    if not isinstance(message, Request):
        return False
    meta = message.params.get("_meta")
    return isinstance(meta, dict) and META_VERSION in meta


def read_envelope(request: Request, headers: Headers | None) -> Client:
    """The client of a modern request, once envelope and headers agree. ``headers`` None: a transport without them.

    Raises `Refusal` for the first rung that fails: a repeated header (-32020), a missing envelope (-32602), a header
    that differs from the body (-32020), a revision that is not served (-32022), values of the wrong shape (-32602).
    """
    if headers is not None and headers.repeated:
        _check_repeated(headers.repeated, request.id)
    meta = request.params.get("_meta")
    if type(meta) is not dict or META_VERSION not in meta or META_CLIENT_CAPABILITIES not in meta:
        raise _lacking(request, meta)
    version = meta[META_VERSION]
    if headers is not None:
        _check_routing(request, version, headers)
    if type(version) is not str:
        raise _invalid(request, f"{META_VERSION} must be a string")
    _check_served(version, request.id)
    return _client(request, meta)


def _client(request: Request, meta: Mapping[str, Any]) -> Client:
    """What the client says of itself; who says the same is the same object, as far as that is kept. Raises `Refusal`."""
    capabilities, info = meta[META_CLIENT_CAPABILITIES], meta.get(META_CLIENT_INFO, {})
    for key, value in ((META_CLIENT_CAPABILITIES, capabilities), (META_CLIENT_INFO, info)):
        if type(value) is not dict:
            raise _invalid(request, f"{key} must be an object")
    said = encode([capabilities, info])
    size = len(said)
    if size > MAX_INTRODUCTION:
        raise _invalid(request, f"what the client says of itself is larger than {MAX_INTRODUCTION} bytes")
    level = meta.get(META_LOG_LEVEL)
    if META_LOG_LEVEL in meta and level not in LOG_LEVELS:
        raise _invalid(request, f"{META_LOG_LEVEL} must be one of {', '.join(LOG_LEVELS)}")
    return _kept(said, level) if size <= _KEPT_SIZE else Client(Era.MODERN, info or PROXY_INFO, capabilities, level)


@lru_cache(maxsize=256)
def _kept(said: bytes, log_level: str | None) -> Client:
    """The client that said this (`capabilities`, `info`): with every request it says the same."""
    capabilities, info = decode(said)
    return Client(Era.MODERN, info or PROXY_INFO, capabilities, log_level)


def check_notification(headers: Headers) -> None:
    """Whether a notification's revision is served; nothing else about its headers is defined. Raises `Refusal`."""
    if _VERSION in headers.repeated:
        raise Refusal(HEADER_MISMATCH, f"the {_SHOWN[_VERSION]} header stands more than once")
    _check_served(headers.get(_VERSION, ""), None)


def _lacking(request: Request, meta: object) -> Refusal:
    """The refusal of a request without a whole envelope."""
    needed = (META_VERSION, META_CLIENT_CAPABILITIES)
    if not isinstance(meta, dict):
        return _invalid(request, f"params._meta must be an object with {' and '.join(needed)}")
    return _invalid(request, f"params._meta lacks {' and '.join(key for key in needed if key not in meta)}")


def _check_repeated(repeated: frozenset[str], id: RequestId) -> None:
    for name, shown in _SHOWN.items():
        if name in repeated:
            raise Refusal(HEADER_MISMATCH, f"the {shown} header stands more than once", id=id)


def _check_routing(request: Request, version: object, headers: Headers) -> None:
    """The headers that intermediaries route by must say what the body says."""
    if _VERSION not in headers or headers[_VERSION] != version:
        raise _mismatch(request, headers, _VERSION, "the version in params._meta")
    if _METHOD not in headers or headers[_METHOD] != request.method:
        raise _mismatch(request, headers, _METHOD, "the message's method")
    key = _NAMED.get(request.method)
    if key is None or (named := request.params.get(key)) is None:
        return  # what is not named is for the method itself to refuse
    name = headers.get(_NAME)
    if name is not None and name[:2] == "=?":
        name = _decoded(name)
    if name is None or name != named:
        raise _mismatch(request, headers, _NAME, f"params.{key}")


def _mismatch(request: Request, headers: Headers, name: str, what: str) -> Refusal:
    fault = f"differs from {what}" if name in headers else "is missing"
    return Refusal(HEADER_MISMATCH, f"the {_SHOWN[name]} header {fault}", id=request.id)


def _check_served(version: str, id: RequestId | None) -> None:
    if version not in MODERN_VERSIONS:
        data = {"supported": list(MODERN_VERSIONS), "requested": version}
        raise Refusal(UNSUPPORTED_VERSION, "this protocol revision is not supported", data=data, id=id)


def _invalid(request: Request, message: str) -> Refusal:
    return Refusal(INVALID_PARAMS, message, id=request.id)


# Mirrored arguments


def check_mirrored(
    request_id: RequestId,
    tool_headers: Mapping[tuple[str, ...], str],
    schema: Mapping[str, Any],
    arguments: Mapping[str, Any],
    headers: Headers,
) -> None:
    """Compare a call's ``Mcp-Param-*`` headers with its arguments: both there and equal, or neither.

    ``tool_headers`` is what `mirrored.headers_of` found in ``schema``. An argument that is null counts as absent, as
    does one that has no form in a header (an object, an array). Raises `Refusal` (-32020); it repeats no value.
    """
    for path, header in tool_headers.items():
        fault = _mirror_fault(path, header.lower(), schema, arguments, headers)
        if fault is not None:
            raise Refusal(HEADER_MISMATCH, f"the {header} header {fault} (argument {'.'.join(path)})", id=request_id)


def _mirror_fault(
    path: tuple[str, ...], header: str, schema: Mapping[str, Any], arguments: Mapping[str, Any], headers: Headers
) -> str | None:
    """What is wrong with one header, or None."""
    given = headers.get(header)
    value = _at(arguments, path)
    form = _header_form(value)
    if given is None:
        return None if form is None else "is missing"
    if header in headers.repeated:
        return "stands more than once"
    if form is None:
        return "is there without its argument"
    text = _decoded(given)
    if text is None:
        return "is not valid base64"
    if text == form or (_declares_integer(schema, path) and _is_integer(text, value)):
        return None
    return "differs from its argument"


def _at(arguments: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = arguments
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _header_form(value: object) -> str | None:
    """A value as clients write it into a header, before base64; None for what has no such form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else None


def _declares_integer(schema: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    part: Any = schema
    for key in path:
        part = part["properties"][key]
    return bool(part["type"] == "integer")


def _is_integer(text: str, value: object) -> bool:
    """Whether ``text`` is the whole number ``value``; compared as integers, so exact beyond 2**53 too."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        return False
    number = _DECIMAL.fullmatch(text)
    if number is None:
        return False
    try:
        return int(number[1]) == int(value)
    except ValueError:  # thousands of digits
        return False


def _decoded(value: str) -> str | None:
    """A mirrored header's value: as it stands, or out of ``=?base64?...?=``; None when that is not canonical."""
    wrapped = _BASE64.fullmatch(value)
    if wrapped is None:
        return value
    try:
        data = base64.b64decode(wrapped[1], validate=True)
        text = data.decode()
    except ValueError:
        return None
    return text if base64.b64encode(data).decode() == wrapped[1] else None
