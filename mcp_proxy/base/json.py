"""JSON at two trust levels.

``read_strict`` is for what callers send: one parse that refuses what parsers disagree about. ``decode_fields`` is for
what upstreams answer: the top level is opened, the values stay the bytes they were and are spliced into replies.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

MAX_DEPTH = 64
_SMALL = 16 * 1024
"""Bytes up to which it does not matter that some texts are read twice."""

Raw = msgspec.Raw
Fields = dict[str, Raw]
"""One JSON object, opened one level: the values are still the bytes they were."""
encode = msgspec.json.Encoder().encode
"""Object to compact JSON bytes; ``Raw`` values are spliced as they are."""

_fields = msgspec.json.Decoder(Fields)
_any = msgspec.json.Decoder()
_STRINGS = re.compile(rb'"[^"]*"')
_ONE_SHAPE = bytes.maketrans(b"{}", b"[]")
_NO_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """The text is not acceptable JSON; the message says why, without repeating it."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that names a key twice: parsers disagree about which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonError(f"the key {key[:64]!r} stands twice in one object")
            seen.add(key)
    return found


def _no_constant(name: str) -> Any:
    raise JsonError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError("a number is out of range")
    return value


_strict = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)


def read_strict(data: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON from a caller.

    Refused with a `JsonError`: bytes that are not UTF-8, lone surrogates, a key that stands twice, NaN and infinities,
    nesting beyond ``max_depth``, anything that is not JSON. Large integers keep their value.
    """
    if len(data) <= _SMALL and data.count(b"[") + data.count(b"{") <= max_depth:
        try:
            value = _any.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # It can still be a number beyond the codec's range; and if it is not, the reason is to be told.
        else:
            # A name that stands twice is written once, and its colon missing then. An escape may stand for a colon.
            if b"\\" not in data and data.count(b":") == encode(value).count(b":"):
                return value
    return _read_slowly(data, max_depth)


def _read_slowly(data: bytes, max_depth: int) -> Any:
    """By the standard library, which tells of every name as often as it stands there."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise JsonError("empty")
    if text.startswith("\ufeff"):
        raise JsonError("a byte order mark (BOM) stands in front")
    if _SURROGATE.search(text):
        _check_surrogates(data)
    try:
        value = _strict.decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise JsonError(f"nested deeper than {max_depth}") from None
    except JsonError:
        raise
    except ValueError:  # an integer of thousands of digits
        raise JsonError("a number is too long") from None
    if data.count(b"[") + data.count(b"{") > max_depth and deeper_than(value, max_depth):
        raise JsonError(f"nested deeper than {max_depth}")
    return value


def _check_surrogates(data: bytes) -> None:
    try:
        _any.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        raise JsonError("a \\u escape is half of a surrogate pair, or the text is not JSON") from None
    except RecursionError:
        raise JsonError(f"nested deeper than {MAX_DEPTH}") from None


def deeper_than(value: Any, limit: int) -> bool:
    """Whether objects and arrays are nested in ``value`` more than ``limit`` deep. Needs no deep stack itself."""
    level = [value]
    for _ in range(limit):
        level = [child for item in level for child in _containers(item)]
        if not level:
            return False
    return True


def _containers(item: dict[str, Any] | list[Any]) -> list[Any]:
    values = item.values() if isinstance(item, dict) else item
    return [value for value in values if isinstance(value, (dict, list))]


def is_deep(data: bytes | Raw, limit: int) -> bool:
    """Whether valid JSON text is nested more than ``limit`` deep, told without decoding it.

    How deep decoders can go differs with the version of Python; this does not.
    """
    if memoryview(data).nbytes <= 2 * limit:  # each level has two ends
        return False
    data = bytes(data)
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    # Escaped backslashes first, so that a backslash that is left before a quote escapes it.
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = _STRINGS.sub(b"", plain.translate(_ONE_SHAPE, _NO_STRUCTURE))
    for _ in range(limit):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    return bool(brackets)


def decode_fields(data: bytes | Raw) -> Fields:
    """Open one JSON object from an upstream; each value stays raw.

    Raises `JsonError` when it is not one JSON object in UTF-8.
    """
    try:
        if isinstance(data, bytes) and not data.isascii():
            data.decode()
        return _fields.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JsonError(f"not a JSON object ({type(error).__name__})") from None


def decode(data: bytes | Raw) -> Any:
    """Decode JSON from an upstream or a file of our own. Raises `JsonError`."""
    try:
        return _any.decode(data)
    except msgspec.ValidationError:
        # A number beyond the codec's range: slower, and without loss.
        return _decode_slowly(bytes(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JsonError(f"not JSON ({type(error).__name__})") from None


def _decode_slowly(data: bytes) -> Any:
    try:
        return json.loads(data, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise JsonError(f"not JSON ({type(error).__name__})") from None
