"""JSON Schemas of tools, made to stand inside an OpenAPI 3.1 document. Pure.

A tool's schema is a document of its own: its local references, anchors and dialect mean something else once it is part
of another. Which schemas there are, and where they go, is `openapi`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urljoin

from jsonschema_rs import meta

_ONE = frozenset(
    {
        "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
        "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip
_MANY = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_NAMED = frozenset({"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"})
_DATA = frozenset({"const", "default", "discriminator", "enum", "example", "examples"})
_ANCHORS = ("$anchor", "$dynamicAnchor")
_OF_THE_ROOT = frozenset({"$schema", "$id", *_ANCHORS})
_PLAIN = re.compile(r"[\w$.-]+", re.ASCII)
_FOREIGN = ("xml", "externalDocs")
"""Words that OpenAPI gives a shape, and JSON Schema none."""


def transplant(schema: Any, place: str) -> dict[str, Any]:
    """``schema`` as it has to read at ``place`` (``#/components/schemas/name``), in the dialect of OpenAPI 3.1.

    Local references lead into ``place``; those that lead nowhere are left out, remote ones stay. Tuples and exclusive
    bounds of older drafts are rewritten. What is no valid schema becomes ``{}``. The schema given is not changed.
    """
    if not isinstance(schema, dict):
        return {}
    moved = _Transplant(schema, place).moved
    return moved if isinstance(moved, dict) and meta.is_valid(moved) else {}


class _Transplant:
    """One schema on its way; ``moved`` is the result."""

    def __init__(self, schema: dict[str, Any], place: str) -> None:
        own = schema.get("$id")
        self._id = own.partition("#")[0] if isinstance(own, str) else ""
        self._place = place
        self._anchors: dict[str, str] = {}
        self._refs: list[tuple[dict[str, Any], str]] = []
        self.moved = self._schema(schema, "")
        for holder, key in self._refs:
            self._point(holder, key)

    def _schema(self, value: Any, pointer: str) -> Any:
        if not isinstance(value, dict):
            return value
        own = value.get("$id")
        if pointer and isinstance(own, str) and not own.startswith("#"):
            return {**value, "$id": _joined(self._id, own)}  # a document of its own, references and all
        for key in ("$id", *_ANCHORS):
            name = value.get(key)
            if isinstance(name, str) and (key != "$id" or name.startswith("#")):
                self._anchors.setdefault(name.removeprefix("#"), pointer)
        moved = {
            key: self._keyword(key, inner, f"{pointer}/{_token(key)}")
            for key, inner in value.items()
            if key not in _OF_THE_ROOT and key not in _FOREIGN
        }
        _modernise(moved)
        self._note_references(moved)
        return moved

    def _keyword(self, key: str, value: Any, pointer: str) -> Any:
        if key in _DATA:
            return value
        if key in _MANY and isinstance(value, list):
            return [self._schema(inner, f"{pointer}/{index}") for index, inner in enumerate(value)]
        if key in _NAMED and isinstance(value, dict):
            return _each(value, lambda name, inner: self._schema(inner, f"{pointer}/{_token(name)}"))
        # Below an unknown word there may be what a reference leads to.
        return self._schema(value, pointer) if key in _ONE or isinstance(value, dict) else value

    def _note_references(self, moved: dict[str, Any]) -> None:
        dynamic = moved.pop("$dynamicRef", None)
        if isinstance(dynamic, str):
            # In one document there is nothing that could override it.
            if "$ref" in moved:
                extra = {"$ref": dynamic}
                others = moved.get("allOf")
                moved["allOf"] = [*others, extra] if isinstance(others, list) else [extra]
                self._refs.append((extra, "$ref"))
            else:
                moved["$ref"] = dynamic
        if isinstance(moved.get("$ref"), str):
            self._refs.append((moved, "$ref"))
        if "discriminator" in moved:
            self._discriminator(moved, moved.pop("discriminator"))

    def _discriminator(self, moved: dict[str, Any], value: Any) -> None:
        if not isinstance(value, dict) or not isinstance(value.get("propertyName"), str):
            return
        moved["discriminator"] = kept = {"propertyName": value["propertyName"]}
        mapping = value.get("mapping")
        if isinstance(mapping, dict):
            kept["mapping"] = {name: where for name, where in mapping.items() if isinstance(where, str)}
            # Values may be bare names of schemas too.
            self._refs += [(kept["mapping"], name) for name, where in kept["mapping"].items() if "#" in where]

    def _point(self, holder: dict[str, Any], key: str) -> None:
        """Make a reference lead where it led, or remove it."""
        url = _joined(self._id, holder[key])
        document, _, fragment = url.partition("#")
        if document != self._id:
            holder[key] = url
            return
        pointer = fragment if not fragment or fragment.startswith("/") else self._anchors.get(unquote(fragment))
        if pointer is None or not _leads_somewhere(self.moved, pointer):
            del holder[key]
        else:
            holder[key] = self._place + pointer


def _joined(base: str, reference: str) -> str:
    """RFC 3986 §5, for bases of any scheme; what cannot be read is left as it is."""
    if reference.startswith("#"):
        return base + reference
    try:
        return urljoin(base, reference)
    except ValueError:
        return reference


def _each(value: dict[str, Any], make: Callable[[str, Any], Any]) -> dict[str, Any]:
    return {name: make(name, inner) for name, inner in value.items()}


def _token(name: str) -> str:
    """One step of a JSON pointer in a URI fragment (RFC 6901 §6)."""
    if _PLAIN.fullmatch(name):
        return name
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~$!&'()*+,;=:@")


def _leads_somewhere(schema: Any, pointer: str) -> bool:
    place = schema
    for step in pointer.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict) and name in place:
            place = place[name]
        elif isinstance(place, list) and name.isdecimal() and int(name[:9]) < len(place):
            place = place[int(name)]
        else:
            return False
    return isinstance(place, (dict, bool))


def _modernise(schema: dict[str, Any]) -> None:
    """Words that meant something else before 2019-09, or 2020-12."""
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema.pop("additionalItems")
        if not schema["prefixItems"]:
            del schema["prefixItems"]
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(bound), bool) and schema.pop(bound) and limit in schema:
            schema[bound] = schema.pop(limit)
    if isinstance(schema.get("required"), bool):
        del schema["required"]
