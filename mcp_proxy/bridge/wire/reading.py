"""Values out of a request's JSON, each checked and named by its path, such as ``messages[2].content[0].text``.

Every reader raises `ChatError` (BAD_REQUEST) with that path as ``param``. What the fields mean is each API's own file.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mcp_proxy.bridge.errors import BAD_REQUEST, UNSUPPORTED, ChatError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST_NAMES = 20
_MOST = 2**31 - 1


def wrong(at: str, message: str) -> ChatError:
    """The value at that path is not what it is to be."""
    return ChatError(BAD_REQUEST, message, param=at or None)


def unsupported(at: str, message: str) -> ChatError:
    """What is asked for at that path cannot be had here, and an answer without it would be another answer."""
    return ChatError(UNSUPPORTED, message, param=at or None)


def text(value: Any, at: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise wrong(at, "must be a string")
    return value


def name(value: Any, at: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise wrong(at, "must be a string that is not empty")
    return value


def obj(value: Any, at: str) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise wrong(at, "must be an object")
    return value


def array(value: Any, at: str) -> list[Any]:
    """An array."""
    if not isinstance(value, list):
        raise wrong(at, "must be an array")
    return value


def flag(value: Any, at: str) -> bool:
    """True or false; null is false."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong(at, "must be true or false")
    return value


def count(value: Any, at: str) -> int:
    """A whole number from one on."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(at, "must be an integer")
    if not 1 <= value <= _MOST:
        raise wrong(at, f"must be from 1 to {_MOST}")
    return value


def number(value: Any, at: str, *, most: float) -> float:
    """A number from 0 to ``most``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong(at, "must be a number")
    if not 0 <= value <= most:
        raise wrong(at, f"must be from 0 to {most:g}")
    return float(value)


def base64(value: Any, at: str) -> str:
    """Base64 that can be decoded, as text."""
    data = text(value, at)
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except ValueError:  # binascii.Error is one; so is text that is not ASCII
        raise wrong(at, "must be base64") from None
    return data


def kind(value: Mapping[str, Any], at: str) -> str:
    """The ``type`` of an object that says it."""
    return text(value.get("type"), f"{at}.type")


def known_as(value: str) -> str:
    """A word of the caller's as it can stand in a message."""
    return repr(value[:64])


def ignored(names: Iterable[str]) -> tuple[str, ...]:
    """The names of parameters as they can be told to the caller in a header: sane ones, and not very many."""
    return tuple(name for name in names if _NAME.fullmatch(name))[:_MOST_NAMES]
