"""Values that fit a JSON Schema, made of what a text says: its numbers and its quoted words, in their order.

Good enough for the schemas of tools and of answers that people write; what it makes is checked before it is used. Pure.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_proxy.base.json import encode
from mcp_proxy.bridge.chat import OutputFormat, Tool
from mcp_proxy.bridge.errors import SOURCE_ERROR, ChatError
from mcp_proxy.bridge.output import Misfit, fit, instruction

_QUOTED = re.compile(
    r'"([^"]*)"(?!\s*:)|“([^”]*)”|«([^»]*)»|`([^`]*)`|(?<!\w)\'([^\']*)\'(?!\w|\s*:)|"[^"]*"|\'[^\']*\'(?=\s*:)'
)
"""Quoted words; those before a colon are names, and taken for nothing."""
_NUMBER = re.compile(r"(?<![\w.])-?[0-9]{1,15}(?:\.[0-9]{1,15})?(?!\w)")
_FORMATS = {
    "date-time": "2026-01-01T12:00:00Z",
    "date": "2026-01-01",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "demo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_DEEPEST, _SHOWN, _MOST = 12, 4, 500
"""Levels that are filled in with what is required, and with what need not be, and values in all: schemas may lead back to
themselves."""
_LONGEST, _MOST_ITEMS = 4096, 64
_EXACT = 2**53
"""Up to where numbers can be reckoned with as they come."""
_NOTHING = object()


def arguments_for(tool: Tool, text: str, all_text: str) -> dict[str, Any]:
    """Arguments for a tool: what the part of the text that is its own says, or where that says nothing, all of it.

    What is required is always there, unless the schema cannot be used.
    """
    schema = {"type": "object", **tool.input_schema}
    try:
        instruction(OutputFormat(schema))
    except ChatError:
        return {}
    words = Words.of(text)
    if not (words.numbers or words.texts):
        words = Words.of(all_text)
    made = _Making(schema, words, sparing=True).value(schema)
    if isinstance(made, dict) and _fits(made, schema):
        return made
    plain = _Making(schema, Words(), sparing=True).value(schema)
    return plain if isinstance(plain, dict) else {}


def json_for(output: OutputFormat, text: str) -> str:
    """JSON in the form that is asked for. Raises `ChatError`: BAD_REQUEST for a schema that cannot be used, SOURCE_ERROR
    for one that asks for more than is made here."""
    instruction(output)
    schema = output.schema or {"type": "object", "properties": {"demo": {"const": True}, "said": {"const": text[:200]}}}
    reason = ""
    for words, sparing in ((Words.of(text), False), (Words.of(text), True), (Words(), True)):
        fitting = fit(encode(_Making(schema, words, sparing=sparing).value(schema)).decode(), output)
        if not isinstance(fitting, Misfit):
            return fitting
        reason = fitting.reason
    raise ChatError(SOURCE_ERROR, f"the demo model cannot make JSON of that form: {reason}")


@dataclass(slots=True)
class Words:
    """What a text has to fill in; taken from the front, each once."""

    text: str = ""
    numbers: list[int | float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, text: str) -> Words:
        """From a text."""
        quoted = [
            next((group for group in match.groups() if group is not None), None) for match in _QUOTED.finditer(text)
        ]
        numbers = _NUMBER.findall(_QUOTED.sub(" ", text))
        return cls(
            text,
            [float(number) if "." in number else int(number) for number in numbers],
            [one for one in quoted if one is not None],
        )


class _Making:
    """Makes one value. ``sparing``: what is optional is there only where the text says it."""

    def __init__(self, root: Mapping[str, Any], words: Words, *, sparing: bool) -> None:
        self._root = root
        self._words = words
        self._sparing = sparing
        self._left = _MOST

    def value(self, schema: Any, depth: int = 0) -> Any:
        """A value for a schema; it need not fit."""
        made = self._said(schema, depth)
        return self._made_up(schema, depth) if made is _NOTHING else made

    def _said(self, schema: Any, depth: int) -> Any:
        """What the text says for a schema, or `_NOTHING`."""
        schema = self._plain(schema)
        kind = _kind(schema)
        if "const" in schema:
            return _NOTHING
        if "enum" in schema:
            return next((one for one in schema["enum"] if self._mentions(one)), _NOTHING)
        if kind in ("integer", "number"):
            return self._take(self._words.numbers, schema)
        if kind == "string":
            return self._take(self._words.texts, schema)
        if kind == "array":
            return self._items_said(schema, depth)
        if kind == "object" and depth and self._sparing and not schema.get("required"):
            return self._object(schema, depth) or _NOTHING
        return _NOTHING

    def _made_up(self, schema: Any, depth: int) -> Any:
        """A value that the text does not say."""
        schema = self._plain(schema)
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            return None
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        for key in ("enum", "examples"):
            if isinstance(schema.get(key), list) and schema[key]:
                return schema[key][0]
        match _kind(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                shown = int(not self._sparing and depth <= _SHOWN and schema.get("maxItems") != 0)
                count = int(min(max(schema.get("minItems", 0), shown), _MOST_ITEMS))
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]
            case "null":
                return None
            case "boolean":
                return True
            case kind:
                guesses = _texts(schema) if kind == "string" else _numbers(schema)
                return next((one for one in guesses if _fits(one, schema)), "demo" if kind == "string" else 1)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required", [])
        made: dict[str, Any] = {}
        for name, part in schema.get("properties", {}).items():
            if name in required or not (self._sparing or depth > _SHOWN):
                made[name] = self.value(part, depth + 1)
            elif depth <= _DEEPEST and (said := self._said(part, depth + 1)) is not _NOTHING:
                made[name] = said
        return made | {name: self.value({}, depth + 1) for name in required if name not in made}

    def _items_said(self, schema: Mapping[str, Any], depth: int) -> Any:
        """An array of all that is left in the text for it."""
        most = int(min(schema.get("maxItems", _MOST_ITEMS), _MOST_ITEMS))
        items = schema.get("items", {})
        if _kind(self._plain(items)) not in ("integer", "number", "string"):
            return _NOTHING
        said = list(
            itertools.takewhile(lambda one: one is not _NOTHING, (self._said(items, depth + 1) for _ in range(most)))
        )
        if isinstance(enum := self._plain(items).get("enum"), list):
            said = [one for one in enum if self._mentions(one)][:most]
        return said if said and len(said) >= schema.get("minItems", 0) else _NOTHING

    def _take(self, waiting: list[Any], schema: Mapping[str, Any]) -> Any:
        """The first of those that wait which fits; `_NOTHING` without one."""
        for number, one in enumerate(waiting):
            if _fits(one, schema):
                return waiting.pop(number)
        return _NOTHING

    def _mentions(self, value: Any) -> bool:
        return isinstance(value, (str, int, float)) and bool(
            re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", self._words.text, re.IGNORECASE)
        )

    def _plain(self, schema: Any) -> Mapping[str, Any]:
        """The schema behind references, and the first of alternatives that is more than null."""
        for _ in range(_DEEPEST):
            if not isinstance(schema, Mapping):
                return {}
            if isinstance(schema.get("$ref"), str):
                schema = _without(schema, "$ref", self._behind(schema["$ref"]))
                continue
            key = next((key for key in ("anyOf", "oneOf", "allOf") if schema.get(key)), None)
            if key is None:
                return schema
            parts = schema[key] if key == "allOf" else list(_real(schema[key]))[:1]
            whole: dict[str, Any] = {}
            for part in parts:
                whole |= part if isinstance(part, Mapping) else {}
            schema = _without(schema, key, whole)
        return {}

    def _behind(self, reference: str) -> Any:
        """What a reference within the schema leads to; {} where it leads elsewhere."""
        place: Any = self._root
        for part in reference.split("/")[1:] if reference.startswith("#") else ["#"]:
            key = part.replace("~1", "/").replace("~0", "~")
            place = place.get(key) if isinstance(place, Mapping) else None
        return place if isinstance(place, Mapping) else {}


def _without(schema: Mapping[str, Any], key: str, instead: Mapping[str, Any]) -> dict[str, Any]:
    return {**instead, **{name: part for name, part in schema.items() if name != key}}


def _real(alternatives: list[Any]) -> Iterator[Any]:
    """Alternatives without null, unless there is nothing else."""
    real = [one for one in alternatives if not (isinstance(one, Mapping) and one.get("type") == "null")]
    return iter(real or alternatives)


def _kind(schema: Mapping[str, Any]) -> str:
    """The type to be made: the one that is said, else what the other words are about, else a string."""
    said = schema.get("type")
    if isinstance(said, list):
        said = next((one for one in said if one != "null"), "null")
    if isinstance(said, str):
        return said
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _texts(schema: Mapping[str, Any]) -> Iterator[str]:
    """Texts to try, of the length that is wanted."""
    least, most = (
        int(min(schema.get(key, default), _LONGEST)) for key, default in (("minLength", 0), ("maxLength", _LONGEST))
    )
    for start in (_FORMATS.get(str(schema.get("format")), "demo"), "demo", "0", "A"):
        yield (
            start
            if least <= len(start) <= most
            else (start * (least // len(start) + 1))[: max(least, min(len(start), most))]
        )


def _numbers(schema: Mapping[str, Any]) -> Iterator[int | float]:
    """Numbers to try."""
    yield 1
    yield 0
    factor = schema.get("multipleOf")
    for key, step in (("minimum", 0), ("maximum", 0), ("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        bound = schema.get(key)
        if isinstance(bound, bool) or not isinstance(bound, (int, float)):
            continue
        yield bound + step
        if abs(bound) <= _EXACT:
            yield bound + step / 2
            if factor is not None and factor >= 1 / _EXACT:
                yield (bound // factor) * factor
                yield (bound // factor + 1) * factor
    if factor is not None:
        yield factor


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value fits a schema that has no references."""
    try:
        return not isinstance(fit(encode(value).decode(), OutputFormat(schema)), Misfit)
    except ChatError:
        return False
