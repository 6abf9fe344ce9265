"""JSON-RPC messages to and from upstreams, as bytes and values. Pure; results stay raw.

Transport framing is in `sse` and `framing`, the meaning of methods is in `link`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mcp_proxy.base.json import Fields, JsonError, Raw, decode, decode_fields, encode
from mcp_proxy.core.upstream.failures import RpcError

_ABSENT = Raw(b"")


class _Envelope(msgspec.Struct):
    """Any JSON-RPC message; what kind it is follows from the fields that are there."""

    jsonrpc: str = ""
    id: int | str | None = None
    method: str | None = None
    params: Raw = _ABSENT
    result: Fields | None = None
    error: Raw = _ABSENT


_decoder = msgspec.json.Decoder(_Envelope)


class Reply(msgspec.Struct, frozen=True):
    """An answer: exactly one of ``result`` (always an object in MCP) and ``error`` is set."""

    id: int | str | None
    result: Fields | None
    error: RpcError | None


class Incoming(msgspec.Struct, frozen=True):
    """A request (``id`` set) or notification from the upstream."""

    method: str
    params: Raw | None
    id: int | str | None = None


def request(request_id: int, method: str, params: Mapping[str, Any] | None) -> bytes:
    """A JSON-RPC request as one line of JSON, without the newline."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method}
    if params is not None:
        message["params"] = params
    return encode(message)


def notification(method: str, params: Mapping[str, Any] | None) -> bytes:
    """A JSON-RPC notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return encode(message)


def answer(request_id: int | str, result: Mapping[str, Any]) -> bytes:
    """Our result for a request of the upstream's."""
    return encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def refusal(request_id: int | str, code: int, message: str, data: Any = None) -> bytes:
    """Our error for a request of the upstream's."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def read(data: bytes) -> Reply | Incoming:
    """Read one message. Raises `JsonError` for anything that is not one JSON-RPC message in UTF-8."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            raise JsonError("not UTF-8") from None
    try:
        envelope = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JsonError(f"not a JSON-RPC message ({type(error).__name__})") from None
    if envelope.jsonrpc != "2.0":
        raise JsonError("not a JSON-RPC 2.0 message")
    if envelope.method is not None:
        return Incoming(envelope.method, None if envelope.params is _ABSENT else envelope.params, envelope.id)
    # Some servers send both fields, one of them null.
    if envelope.error is not _ABSENT and bytes(envelope.error) != b"null":
        return Reply(envelope.id, None, _error(envelope.error))
    if envelope.result is None:
        raise JsonError("a message without method, result or error")
    return Reply(envelope.id, envelope.result, None)


def _error(raw: Raw) -> RpcError:
    fields = decode_fields(raw)
    code = decode(fields["code"]) if "code" in fields else None
    message = decode(fields["message"]) if "message" in fields else ""
    if not isinstance(code, int) or not isinstance(message, str):
        raise JsonError("an error without code or message")
    return RpcError(code, message, decode(fields["data"]) if "data" in fields else None)
