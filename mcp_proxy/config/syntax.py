"""Text to document: JSON, JSON with comments and trailing commas, JSON5, TOML. A key that stands twice is refused, and
so is what is nested deeper than anything a person writes.

What the document means is `dialects`. Errors say the line and repeat names at most.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterable
from typing import Any

import json5

from mcp_proxy.base.quote import quote
from mcp_proxy.config.fields import quoted
from mcp_proxy.config.model import ConfigError

MAX_DEPTH = 64
"""Objects and lists inside one another."""

_MAX_JSON5 = 200_000
"""Characters. Longer texts must be JSON, comments and trailing commas aside: the parser would take many seconds."""

_TOO_DEEP = f"is nested too deeply; {MAX_DEPTH} levels are accepted"

# One piece of JSON or JSON5: texts, comments, marks, bare words.
_PIECE = re.compile(
    r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|//[^\n]*|/\*.*?\*/|[{}\[\]:,]|[^\s{}\[\]:,"\'/]+', re.DOTALL
)
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)
_NOT_LINE_END = re.compile(r"[^\n]")
_JSON5_PLACE = re.compile(r"<string>:(\d+) (.*)", re.DOTALL)
_TOML_PLACE = re.compile(r"(.*) \(at line (\d+), column \d+\)", re.DOTALL)
_TOML_KEY = re.compile(r"(Cannot [a-z ]+ )(\(.*\))(.*)", re.DOTALL)
_TOML_END = re.compile(r"(.*) \(at end of document\)", re.DOTALL)


class _Repeated(Exception):
    """An object names a key twice; parsers disagree about which one counts."""


def parse_json(text: str, source: str) -> Any:
    """JSON, JSONC or JSON5. Raises `ConfigError`."""
    try:
        try:
            document = json.loads(text, object_pairs_hook=_unique)
        except ValueError:
            document = _parse_relaxed(text, source)
    except _Repeated as error:
        raise _repeated(text, source, str(error)) from None
    except RecursionError:
        raise ConfigError(source, _TOO_DEEP) from None
    refuse_depth(document, source)
    return document


def parse_toml(text: str, source: str) -> Any:
    """TOML. Raises `ConfigError`."""
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        if place := _TOML_PLACE.fullmatch(str(error)):
            raise ConfigError(source, f"is not TOML: {_toml_fault(place[1])}", int(place[2])) from None
        reason = _toml_fault(end[1]) if (end := _TOML_END.fullmatch(str(error))) else "a number is too long"
        raise ConfigError(source, f"is not TOML: {reason}", text.count("\n") + 1) from None
    except RecursionError:
        raise ConfigError(source, _TOO_DEEP) from None
    refuse_depth(document, source)
    return document


def _toml_fault(said: str) -> str:
    """The parser shows the parts of a key as the tuple it keeps them in; people write them with dots."""
    if (found := _TOML_KEY.fullmatch(said)) is None:
        return said
    return f"{found[1]}{'.'.join(map(quoted, ast.literal_eval(found[2])))}{found[3]}"


def refuse_depth(document: object, source: str) -> None:
    """Raises `ConfigError` for a document deeper than `MAX_DEPTH`."""
    level, depth = [document], 0
    while level := [node for node in level if isinstance(node, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ConfigError(source, _TOO_DEEP)
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]


def _parse_relaxed(text: str, source: str) -> Any:
    # Comments and trailing commas are blanked out first, lines kept: JSON5's parser takes about 15 µs a character,
    # and a start must not wait for it because of one comment.
    plain = _COMMENT.sub(lambda match: match[1] or _NOT_LINE_END.sub(" ", match[0]), text)
    plain = _TRAILING_COMMA.sub(lambda match: match[1] or " ", plain)
    try:
        return json.loads(plain, object_pairs_hook=_unique)
    except ValueError as error:
        strict = error
    if len(text) > _MAX_JSON5:
        raise _not_json(text, source, strict, strict)
    try:
        return json5.loads(text, object_pairs_hook=_unique, allow_duplicate_keys=False)
    except ValueError as error:
        if str(error).startswith("Duplicate key"):
            raise _Repeated(str(error)) from None
        raise _not_json(text, source, error, strict) from None


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Repeated(key)
        found[key] = value
    return found


def _not_json(text: str, source: str, error: ValueError, strict: ValueError) -> ConfigError:
    """JSON5 is the widest of the forms, so the place where its parser stopped is where the mistake is."""
    if not text.strip():
        return ConfigError(source, "is empty; a file without servers is {}")
    if place := _JSON5_PLACE.fullmatch(str(error)):
        return ConfigError(source, f"is not JSON: {place[2]}", int(place[1]))
    if isinstance(strict, json.JSONDecodeError):
        return ConfigError(source, f"is not JSON: {strict.msg}", strict.lineno)
    return ConfigError(source, "is not JSON: a number is too long")


def _repeated(text: str, source: str, key: str) -> ConfigError:
    places = _find_repeated(text)
    if places is None:
        return ConfigError(source, f"the key {quote(key, 64)} stands twice in one object")
    key, first, second = places
    lines = f"line {first}" if first == second else f"lines {first} and {second}"
    return ConfigError(source, f"the key {quote(key, 64)} stands twice in one object, in {lines}", second)


def _find_repeated(text: str) -> tuple[str, int, int] | None:
    """The first key that an object names twice, and both lines. Parsers keep no places, so this looks for itself."""
    objects: list[dict[str, int] | None] = []
    before = ("", 0)
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece.startswith(("//", "/*")):
            continue
        if piece in "{[":
            objects.append({} if piece == "{" else None)
        elif piece in "}]" and objects:
            objects.pop()
        elif piece == ":" and objects and (keys := objects[-1]) is not None:
            key, place = _key(before[0]), before[1]
            if key in keys:
                return key, text.count("\n", 0, keys[key]) + 1, text.count("\n", 0, place) + 1
            keys[key] = place
        before = (piece, match.start())
    return None


def _key(piece: str) -> str:
    if not piece.startswith('"'):
        return piece.strip("'")
    try:
        return str(json.loads(piece, strict=False))
    except ValueError:  # an escape that only JSON5 knows
        return piece.strip('"')
