"""One tool as its server defines it, with what a call needs: the kept validator and the mirrored headers.

Immutable; a tool whose definition has not changed is the same object in the next listing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jsonschema_rs

from mcp_proxy.base.json import encode
from mcp_proxy.core.catalog.item import Item
from mcp_proxy.core.catalog.mirrored import headers_of

_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)


class Tool(Item):
    """A tool. ``definition`` is what callers are shown: the server's own object, unless the operator overrides it."""

    @property
    def own(self) -> Tool:
        """The tool as its server knows it, where it is shown otherwise."""
        return self

    def completed(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments as the server gets them."""
        return arguments

    @cached_property
    def _validator(self) -> jsonschema_rs.Validator | None:
        schema = self.definition.get("inputSchema")
        if not isinstance(schema, dict):
            return None
        try:
            # Offline: a `$ref` into the network is never followed. A schema that cannot be compiled is left to the server.
            return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
            return None

    @property
    def checkable(self) -> bool:
        """Whether arguments can be checked here: the tool has an input schema that can be used."""
        return self._validator is not None

    def argument_fault(self, arguments: Mapping[str, Any]) -> tuple[str, str] | None:
        """Why the arguments do not fit the input schema: (JSON pointer, reason), or None when they do.

        Reasons name the rule, never the value: arguments can hold secrets.
        """
        validator = self._validator
        if validator is None or validator.is_valid(arguments):
            return None
        # Clients, and models, say null where they mean "not given"; a server may take it so, and is asked.
        given = {name: value for name, value in arguments.items() if value is not None}
        if len(given) != len(arguments) and validator.is_valid(given):
            return None
        error = next(validator.iter_errors(arguments))
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.instance_path)
        return pointer, _reason(error)

    @cached_property
    def mirrored(self) -> Mapping[tuple[str, ...], str]:
        """Arguments that are repeated as HTTP headers: paths of property names, and the headers."""
        return headers_of(self.definition.get("inputSchema"))

    def header_arguments(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """The ``Mcp-Param-*`` headers of a modern call (streamable-http, Custom Headers), values not yet encoded."""
        headers: dict[str, str] = {}
        for path, header in self.mirrored.items():
            value: Any = arguments
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, bool):
                headers[header] = "true" if value else "false"
            elif isinstance(value, (str, int)):
                headers[header] = str(value)
            elif isinstance(value, float) and value.is_integer():
                headers[header] = str(int(value))
        return headers

    def is_declared_idempotent(self) -> bool:
        """Whether the server itself says that a second execution does no harm (``annotations``)."""
        hints = self.definition.get("annotations")
        return isinstance(hints, dict) and (hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True)


def _reason(error: jsonschema_rs.ValidationError) -> str:
    """The rule that fails, in the schema's own terms; the library's message would repeat the value."""
    rule = error.kind.name
    facts = error.kind.as_dict()
    if rule == "required":
        return f"the property {facts['property']!r} is required"
    if rule == "additionalProperties":
        return f"unknown property {', '.join(map(repr, facts['unexpected'][:5]))}"
    if rule == "type":
        return f"must be of type {' or '.join(facts['types'])}"
    if rule in (
        "enum",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minLength",
        "maxLength",
        "pattern",
    ):
        return f"does not satisfy {rule} {encode(next(iter(facts.values()))).decode()[:200]}"
    return f"does not satisfy {rule}"
