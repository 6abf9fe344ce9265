"""Taking arguments out of a tool's input schema, so that callers neither see nor give them. Pure.

Only ``properties`` and ``required`` at the top can be rewritten. What else a schema says of an argument would be left
behind, shown to callers and asking for what they cannot give: that is a fault, and `control` withholds the tool.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")
_BY_ARGUMENT = ("dependentRequired", "dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_KEYWORDS = (*_LISTS, *_SINGLE, *_BY_ARGUMENT, *_REFERENCES)
"""What applies to the arguments themselves, beside ``properties`` and ``required`` (JSON Schema 2020-12 core §10.2)."""


def without(schema: Mapping[str, Any], closed: Collection[str]) -> Mapping[str, Any]:
    """The schema of an object that lacks some of its properties."""
    shown = dict(schema)
    if isinstance(properties := schema.get("properties"), dict):
        shown["properties"] = {name: one for name, one in properties.items() if name not in closed}
    if isinstance(required := schema.get("required"), list):
        shown["required"] = [name for name in required if name not in closed]
        if not shown["required"]:
            del shown["required"]
    return shown


def fault(schema: Mapping[str, Any], closed: Collection[str]) -> str | None:
    """Why these arguments cannot be taken out, or None: what is left would speak of one of them, or may."""
    for name in closed:
        for keyword in _KEYWORDS:
            if keyword in schema and _names({keyword: schema[keyword]}, name, schema, set()):
                where = f"{keyword!r} of the input schema names it, or may, where it cannot be taken out"
                return f"the argument {name!r} is to be filled in or hidden, and {where}"
    for reference in _references(without(schema, closed)) if closed else ():
        if reference == "#" or any(_is_within(reference, name) for name in closed):
            return f"arguments are to be filled in or hidden, and the input schema refers to them ({reference[:200]!r})"
    return None


def _names(schema: Any, name: str, root: Mapping[str, Any], followed: set[str]) -> bool:
    """Whether a schema for the arguments names one; also where it refers to what cannot be looked into."""
    if not isinstance(schema, dict):
        return False
    if name in _keys(schema.get("properties")) or name in _words(schema.get("required")):
        return True
    for keyword in _BY_ARGUMENT:
        for key, needed in _members(schema.get(keyword)):
            if key == name or name in _words(needed) or _names(needed, name, root, followed):
                return True
    applied = [one for keyword in _LISTS for one in _words(schema.get(keyword))]
    applied += [schema.get(keyword) for keyword in _SINGLE]
    if any(_names(one, name, root, followed) for one in applied):
        return True
    return any(_leads_to(schema[key], name, root, followed) for key in _REFERENCES if key in schema)


def _leads_to(reference: Any, name: str, root: Mapping[str, Any], followed: set[str]) -> bool:
    if not isinstance(reference, str):
        return True
    if reference in followed:
        return False
    followed.add(reference)
    found, target = _resolved(reference, root)
    return not found or _names(target, name, root, followed)


def _resolved(reference: str, root: Any) -> tuple[bool, Any]:
    """What a JSON pointer into this document points at (RFC 6901 §6), if it is one: anchors and addresses are not."""
    if reference != "#" and not reference.startswith("#/"):
        return False, None
    target = root
    for token in _tokens(reference):
        if isinstance(target, dict) and token in target:
            target = target[token]
        elif isinstance(target, list) and token.isdecimal() and int(token) < len(target):
            target = target[int(token)]
        else:
            return False, None
    return True, target


def _tokens(reference: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in unquote(reference).split("/")[1:]]


def _is_within(reference: str, name: str) -> bool:
    """Whether it points at a property of the object itself, or into it."""
    return reference.startswith("#/") and _tokens(reference)[:2] == ["properties", name]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            if key in _REFERENCES and isinstance(one, str):
                yield one
            yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


def _keys(value: Any) -> Collection[str]:
    return value if isinstance(value, dict) else ()


def _members(value: Any) -> Collection[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _words(value: Any) -> Collection[Any]:
    return value if isinstance(value, list) else ()
