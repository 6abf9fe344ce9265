"""What a client sent: one JSON-RPC message, and the envelope that a modern request carries around it. Pure.

Which half of the protocol serves a message is decided here too, and a request's headers are compared with its body.
What a request means is the door's business; ids of requests of our own are not known here.
Source: basic, basic/transports/streamable-http (2026-07-28); basic (2025-11-25) for messages.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mcp_proxy.base.json import JsonError, encode, read_strict
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

    @classmethod
    def from_asgi(cls, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """From an ASGI scope's headers, whose names are in lower case."""
        found = cls()
        for name, value in headers:
            if name[:4] == b"mcp-":
                key = name.decode("latin-1")
                if key in found:
                    found.repeated |= {key}
                else:
                    found[key] = value.decode("latin-1")
        return found


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
    if isinstance(body, list):
        raise Refusal(INVALID_REQUEST, "batches are not part of this protocol revision")
    if not isinstance(body, dict):
        raise Refusal(INVALID_REQUEST, "a message is a JSON object")
    id = _readable_id(body)
    fault = _message_fault(body, id)
    if fault is not None:
        raise Refusal(INVALID_REQUEST, fault, id=id)
    params = body.get("params", {})
    if id is None:
        return Notification(body["method"], params)
    if "method" in body:
        return Request(id, body["method"], params)
    return Response(id, body.get("result"), body.get("error"))


def _readable_id(body: dict[str, Any]) -> RequestId | None:
    id = body.get("id")
    return id if isinstance(id, (str, int)) and not isinstance(id, bool) else None


def _message_fault(body: dict[str, Any], id: RequestId | None) -> str | None:
    """Why an object is none of the three messages, or None."""
    if body.get("jsonrpc") != "2.0":
        return "jsonrpc must be '2.0'"
    if "id" in body and id is None:
        return "id must be a string or an integer"
    if "method" not in body:
        return _response_fault(body)
    if not isinstance(body["method"], str):
        return "method must be a string"
    return None if isinstance(body.get("params", {}), dict) else "params must be an object"


def _response_fault(body: dict[str, Any]) -> str | None:
    outcomes = [body[key] for key in ("result", "error") if key in body]
    if not outcomes or "id" not in body:
        return "method is missing"
    if len(outcomes) > 1:
        return "a response has either a result or an error"
    return None if isinstance(outcomes[0], dict) else "a result or error must be an object"


# The modern envelope


class Envelope(msgspec.Struct, frozen=True):
    """What a modern request says about its client. ``info`` is {} when not given; ``log_level`` one of `LOG_LEVELS`."""

    version: str
    capabilities: Mapping[str, Any]
    info: Mapping[str, Any]
    log_level: str | None


def is_modern(headers: Mapping[str, str], message: Message | None) -> bool:
    """Which half of the protocol serves this POST: the modern one, or the one with ``initialize``.

    The header decides, and a version nobody knows is modern: it is refused there. A request that carries an envelope
    but no header is modern too, to be told what is missing. ``message`` is None where there is none to look at.
    """
    version = headers.get(_VERSION)
    if version is not None:
        return version not in LEGACY_VERSIONS or _is_repeated(headers, _VERSION)
    if not isinstance(message, Request):
        return False
    meta = message.params.get("_meta")
    return isinstance(meta, dict) and META_VERSION in meta


def read_envelope(request: Request, headers: Mapping[str, str] | None) -> Envelope:
    """The envelope of a modern request, once it agrees with the headers. ``headers`` None: a transport without them.

    Raises `Refusal` for the first rung that fails: a repeated header (-32020), a missing envelope (-32602), a header
    that differs from the body (-32020), a revision that is not served (-32022), values of the wrong shape (-32602).
    """
    if headers is not None:
        _check_repeated(headers, request.id)
    meta = _required_meta(request)
    version = meta[META_VERSION]
    if headers is not None:
        _check_routing(request, version, headers)
    if not isinstance(version, str):
        raise _invalid(request, f"{META_VERSION} must be a string")
    _check_served(version, request.id)
    capabilities, info = meta[META_CLIENT_CAPABILITIES], meta.get(META_CLIENT_INFO, {})
    for key, value in ((META_CLIENT_CAPABILITIES, capabilities), (META_CLIENT_INFO, info)):
        if not isinstance(value, dict):
            raise _invalid(request, f"{key} must be an object")
    if len(encode([capabilities, info])) > MAX_INTRODUCTION:
        raise _invalid(request, f"what the client says of itself is larger than {MAX_INTRODUCTION} bytes")
    if META_LOG_LEVEL in meta and meta[META_LOG_LEVEL] not in LOG_LEVELS:
        raise _invalid(request, f"{META_LOG_LEVEL} must be one of {', '.join(LOG_LEVELS)}")
    return Envelope(version, capabilities, info, meta.get(META_LOG_LEVEL))


def check_notification(headers: Mapping[str, str]) -> None:
    """Whether a notification's revision is served; nothing else about its headers is defined. Raises `Refusal`."""
    if _is_repeated(headers, _VERSION):
        raise Refusal(HEADER_MISMATCH, f"the {_SHOWN[_VERSION]} header stands more than once")
    _check_served(headers.get(_VERSION, ""), None)


def _required_meta(request: Request) -> dict[str, Any]:
    meta = request.params.get("_meta")
    if not isinstance(meta, dict):
        raise _invalid(request, f"params._meta must be an object with {META_VERSION} and {META_CLIENT_CAPABILITIES}")
    missing = [key for key in (META_VERSION, META_CLIENT_CAPABILITIES) if key not in meta]
    if missing:
        raise _invalid(request, f"params._meta lacks {' and '.join(missing)}")
    return meta


def _check_repeated(headers: Mapping[str, str], id: RequestId) -> None:
    for name, shown in _SHOWN.items():
        if _is_repeated(headers, name):
            raise Refusal(HEADER_MISMATCH, f"the {shown} header stands more than once", id=id)


def _is_repeated(headers: Mapping[str, str], name: str) -> bool:
    return isinstance(headers, Headers) and name in headers.repeated


def _check_routing(request: Request, version: object, headers: Mapping[str, str]) -> None:
    """The headers that intermediaries route by must say what the body says."""
    _check_equal(headers, _VERSION, version, request.id, "the version in params._meta")
    _check_equal(headers, _METHOD, request.method, request.id, "the message's method")
    key = _NAMED.get(request.method)
    if key is None or request.params.get(key) is None:
        return  # what is not named is for the method itself to refuse
    name = headers.get(_NAME)
    if name is None:
        raise Refusal(HEADER_MISMATCH, f"the {_SHOWN[_NAME]} header is missing", id=request.id)
    if _decoded(name) != request.params[key]:
        raise Refusal(HEADER_MISMATCH, f"the {_SHOWN[_NAME]} header differs from params.{key}", id=request.id)


def _check_equal(headers: Mapping[str, str], name: str, value: object, id: RequestId, what: str) -> None:
    header = headers.get(name)
    if header is None:
        raise Refusal(HEADER_MISMATCH, f"the {_SHOWN[name]} header is missing", id=id)
    if header != value:
        raise Refusal(HEADER_MISMATCH, f"the {_SHOWN[name]} header differs from {what}", id=id)


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
