"""What a server offers besides tools, as it defines it: prompts, resources, resource templates; and what all share.

Immutable; tools, which know more, are `tool`. Collecting them from listings is `offer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar

import jsonschema_rs

from mcp_proxy.base.json import encode
from mcp_proxy.core.catalog.uri_template import beginning_of, pattern_of

# Linear in the length of the URI, whatever the template: neither comes from people we know. The bound is on bytes.
_LINEAR = jsonschema_rs.RegexOptions(size_limit=1 << 18)


class Item:
    """One thing that is offered. ``definition`` is the server's own object and is not changed."""

    KEY: ClassVar[str] = "name"
    """The member of the definition that a caller names it by; a string in every definition that gets here."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.definition = definition
        self.name: str = definition[self.KEY]
        """What callers name it by: for a resource its URI, for a template the template."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @cached_property
    def digest(self) -> str:
        """Equal for items that are defined identically."""
        return sha256(encode(_sorted(self.definition))).hexdigest()


class Prompt(Item):
    """A prompt, named like a tool."""


class Resource(Item):
    """A resource. URIs are passed on verbatim and compared as text."""

    KEY = "uri"

    @property
    def uri(self) -> str:
        return self.name


class Template(Item):
    """A resource template: a URI template (RFC 6570) for resources that are not listed one by one."""

    KEY = "uriTemplate"

    @property
    def uri_template(self) -> str:
        return self.name

    def matches(self, uri: str) -> bool:
        """Whether ``uri`` can be an expansion of the template; False for a template that is not valid."""
        if not uri.startswith(self._beginning):  # most are told apart by this, and never compiled
            return False
        try:
            return self._validator is not None and self._validator.is_valid(uri)
        except UnicodeError:  # half a surrogate pair: no URI
            return False

    @cached_property
    def _beginning(self) -> str:
        return beginning_of(self.name)

    @cached_property
    def _validator(self) -> jsonschema_rs.Validator | None:
        return _compiled(pattern_of(self.name)) or _compiled(pattern_of(self.name, prefixes=False))


def _compiled(pattern: str | None) -> jsonschema_rs.Validator | None:
    """None also for a pattern that is larger than the bound."""
    if pattern is None:
        return None
    try:
        return jsonschema_rs.validator_for({"type": "string", "pattern": pattern}, pattern_options=_LINEAR)
    except (jsonschema_rs.ValidationError, ValueError):
        return None


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
