"""The keys of one server's entry, taken out one by one with their types checked and variables expanded.

What the keys mean is `entry`. What nobody has taken in the end is unknown. Refusals name fields, never values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from mcp_proxy.base.quote import quote
from mcp_proxy.config.expand import ExpandError, expand
from mcp_proxy.config.model import Grade

LONGEST = 600
"""Seconds; a larger number without a unit is taken for milliseconds, which other clients write."""

_UNIT_IN_NAME = frozenset({"timeoutSeconds", "tool_timeout_sec", "startup_timeout_sec"})
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Refused(Exception):
    """The server cannot be used as written; the text says which field and why."""


class Note(Protocol):
    """Where a finding goes; the server and the source are already known there."""

    def __call__(self, field: str, grade: Grade, message: str) -> None: ...


class Fields:
    """One entry. A null is the same as a key that is not there.

    ``environ`` None means that nothing is expanded and no variable may be asked for (entries that came over the API).
    ``written`` collects the fields that variables were expanded in, as they stand in the file.
    """

    def __init__(self, keys: Mapping[str, Any], environ: Mapping[str, str] | None, note: Note) -> None:
        self._left = {key: value for key, value in keys.items() if value is not None}
        self.environ = environ
        self.note = note
        self.written: dict[str, str] = {}

    @property
    def left(self) -> dict[str, Any]:
        """What was not taken."""
        return self._left

    def take(self, *names: str) -> tuple[str, Any] | None:
        """The field that is there under one of these names, and its value."""
        given = [(name, self._left.pop(name)) for name in names if name in self._left]
        if len(given) > 1 and not (isinstance(given[0][1], str | int | float) and _all_equal(given)):
            raise Refused(f"{' and '.join(name for name, _ in given)} say the same thing twice; keep one")
        return given[0] if given else None

    def drop_empty(self, *names: str) -> None:
        """Let an empty text under these names count as not there: settings dialogues write them."""
        for name in names:
            if self._left.get(name) == "":
                del self._left[name]

    def text(self, *names: str) -> str | None:
        """A text, expanded; in ``written`` it goes by the first of the names."""
        found = self.take(*names)
        if found is None:
            return None
        text = self.expanded(*found)
        if found[0] in self.written:
            self.written[names[0]] = self.written.pop(found[0])
        return text

    def switch(self, name: str) -> bool | None:
        """A true or a false and nothing else: a text "false" would count as true elsewhere."""
        found = self.take(name)
        if found is not None and not isinstance(found[1], bool):
            raise Refused(f"{name} must be true or false")
        return None if found is None else found[1]

    def words(self, *names: str) -> tuple[str, ...] | None:
        """A list of texts, as they are."""
        found = self.take(*names)
        return None if found is None else word_list(*found)

    def seconds(self, *names: str) -> float | None:
        """A time up to `LONGEST`; what looks like milliseconds is reported and not used."""
        found = self.take(*names)
        if found is None:
            return None
        field, value = found
        if not is_number(value) or not value > 0:
            raise Refused(f"{field} must be a number of seconds above 0")
        if value <= LONGEST:
            return float(value)
        if field in _UNIT_IN_NAME:
            self.note(field, Grade.APPROXIMATE, f"longer than {LONGEST} seconds, which is used instead")
            return float(LONGEST)
        self.note(field, Grade.MANUAL, f"looks like milliseconds and is not used; write seconds, {LONGEST} at most")
        return None

    def whole(self, name: str, least: int) -> int | None:
        """A whole number of ``least`` or more."""
        found = self.take(name)
        if found is None:
            return None
        value = found[1]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise Refused(f"{name} must be a whole number, {least} or more")
        return value

    def expanded(self, field: str, value: object, *, secret: bool = False) -> str:
        """``value``, which must be a text, with its variables; ``secret`` ones are not kept in ``written``."""
        if not isinstance(value, str):
            raise Refused(f"{field} must be text")
        text = value
        if self.environ is not None:
            try:
                text = expand(value, self.environ)
            except ExpandError as error:
                raise Refused(f"{field}: {error}") from None
        if not _passable(text):
            raise Refused(f"{field} holds a character that cannot be passed on")
        if text != value and not secret:
            self.written[field] = value
        return text

    def scalar(self, field: str, value: object, *, secret: bool = False) -> str:
        """A text, number or truth value as text."""
        if isinstance(value, bool) or is_number(value):
            try:
                return json.dumps(value)
            except ValueError:  # more digits than Python prints
                raise Refused(f"{field} is too long a number") from None
        if not isinstance(value, str):
            raise Refused(f"{field} must be text or a number")
        return self.expanded(field, value, secret=secret)

    def variable(self, field: str, name: object) -> str | None:
        """The value of an environment variable that a field names; None when it is unset or empty."""
        if self.environ is None:
            raise Refused(f"{field} is accepted in files only")
        if not isinstance(name, str) or not _VARIABLE_NAME.fullmatch(name):
            raise Refused(f"{field} must name a variable")
        value = self.environ.get(name) or None
        if value is not None and not _passable(value):
            raise Refused(f"{field}: the variable {name} holds a character that cannot be passed on")
        return value

    def required_variable(self, field: str, name: object) -> str:
        """The same, where going on without it would be worse."""
        value = self.variable(field, name)
        if value is None:
            raise Refused(f"{field}: the variable {name} is not set")
        return value


def word_list(field: str, value: object) -> tuple[str, ...]:
    """``value`` as a list of texts; raises `Refused`."""
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise Refused(f"{field} must be a list of texts")
    return tuple(value)


def is_number(value: object) -> bool:
    """A number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def quoted(text: str) -> str:
    """A name out of somebody's file, fit for one line; in quotes unless it is plain."""
    return text if re.fullmatch(r"[\w.-]{1,64}", text, re.ASCII) else quote(text, 64)


def _passable(text: str) -> bool:
    """Whether a process can be given this text: no NUL, no half of a character."""
    try:
        # The environment itself may hold bytes that are no UTF-8; they come as these escapes.
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _all_equal(given: list[tuple[str, Any]]) -> bool:
    return all(type(value) is type(given[0][1]) and value == given[0][1] for _, value in given)
