"""A parsed configuration document, in any client's shape, made into `Servers`. Pure: nothing is read from anywhere.

Which shapes there are and which names come out of them is here; one entry is `entry`, files are `loader`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_proxy.base.names import fit_name
from mcp_proxy.config.entry import nearest, read_entry, switched_off
from mcp_proxy.config.fields import Refused, quoted
from mcp_proxy.config.model import ConfigError, Finding, Grade, RefusedServer, Servers, ServerSpec
from mcp_proxy.config.target import URL_KEYS

_MAPS = ("mcpServers", "servers", "mcp_servers", "context_servers")
_SIDE_KEYS = {
    "inputs": "prompts are not asked; ${input:ID} is read from the variable MCP_INPUT_ID",
    "globalShortcut": "a matter of the client; not read",
    "mcp": "a matter of the client; not read",
    "llm": "not about servers; not read here",
    "$schema": "",
}
"""Known keys beside the servers, and what is said about them; about ``$schema`` there is nothing to say."""

_Named = Iterator[tuple[str | None, object]]


def parse_servers(document: Any, source: str, environ: Mapping[str, str] | None, file_stem: str | None) -> Servers:
    """All servers of one document (objects, lists and scalars as JSON or TOML give them).

    ``source`` labels it for people; ``file_stem`` names a single entry that has no name of its own; ``environ`` None
    means that nothing is expanded. What is wrong with one entry refuses that server only. Raises `ConfigError` when
    the document has no known shape or two names in it are, or become, the same.
    """
    reading = _Reading(source, environ)
    for written, name, entry in _fitted(reading.entries(document, file_stem), source):
        reading.read(written, name, entry)
    return refuse_group_clashes(Servers(tuple(reading.specs), tuple(reading.refused), tuple(reading.findings)))


def refuse_group_clashes(servers: Servers) -> Servers:
    """Servers and groups share one space of names: a server whose group is called like a server is refused."""
    names = {spec.name for spec in servers.specs} | {refused.name for refused in servers.refused}
    refused = [
        RefusedServer(spec.name, f"group is {spec.group!r}, which is the name of a server", spec.source, spec.disabled)
        for spec in servers.specs
        if spec.group in names
    ]
    kept = tuple(spec for spec in servers.specs if spec.group not in names)
    return Servers(kept, (*servers.refused, *refused), servers.findings)


@dataclass(slots=True)
class _Reading:
    """What has been found in one document so far."""

    source: str
    environ: Mapping[str, str] | None
    specs: list[ServerSpec] = field(default_factory=list)
    refused: list[RefusedServer] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def entries(self, document: Any, file_stem: str | None) -> _Named:
        """The entries, each with the name it was written under; None where there was none."""
        if isinstance(document, list):
            return _members("the list", document, self.source)
        if not isinstance(document, dict):
            raise _no_known_form(document, self.source)
        containers = [key for key in _MAPS if _holds_servers(document, key)]
        if not containers and _holds_servers(document, "mcp"):
            containers = ["mcp"]
        if containers:
            self._beside([key for key in document if key not in containers])
            return (pair for key in containers for pair in self._contained(key, document[key]))
        if is_entry(document):
            return iter([(_own_name(document) or file_stem, document)])
        return self._bare(document)

    def read(self, written: str | None, name: str, entry: object) -> None:
        """One entry under the ``name`` made from what was ``written``."""

        def note(field: str, grade: Grade, message: str) -> None:
            self.findings.append(Finding(name, field, grade, message, self.source))

        if written is None:
            return self._refuse(name, "has no name")
        if written != name:
            note("name", Grade.APPROXIMATE, f"{written[:64]!a} does not fit and is called {name!r}")
        if not isinstance(entry, dict):
            return self._refuse(name, "must be an object")
        if (inner := _own_name(entry)) is not None and inner != written:
            note("name", Grade.APPROXIMATE, "the key it stands under is the name that counts")
        try:
            self.specs.append(read_entry(name, entry, self.source, self.environ, note))
        except Refused as error:
            self._refuse(name, str(error), disabled=switched_off(entry))
        return None

    def _refuse(self, name: str, reason: str, *, disabled: bool = False) -> None:
        self.refused.append(RefusedServer(name, reason, self.source, disabled))

    def _contained(self, key: str, value: Any) -> _Named:
        if key == "mcp" and isinstance(value, dict) and _holds_servers(value, "servers"):
            self._beside([f"mcp.{other}" for other in value if other != "servers"])
            return _members("mcp.servers", value["servers"], self.source)
        return _members(key, value, self.source)

    def _bare(self, document: Mapping[str, Any]) -> _Named:
        """The root itself as a map of servers; a file about nothing, or about known other things, has none."""
        entries = {
            key: value
            for key, value in document.items()
            if isinstance(value, dict) and (key not in _SIDE_KEYS or is_entry(value))
        }
        others = [key for key in document if key not in entries]
        if not any(is_entry(value) for value in entries.values()) and not set(document) <= set(_SIDE_KEYS):
            raise _no_known_form(document, self.source)
        self._beside(others)
        return iter(entries.items())

    def _beside(self, keys: list[str]) -> None:
        """Say what beside the servers was not read."""
        for key in keys:
            if near := None if key in _SIDE_KEYS else nearest(key, _MAPS):
                said, grade = f"not read; did you mean {near}?", Grade.MANUAL
            else:
                said, grade = _SIDE_KEYS.get(key, "not about servers; not read"), Grade.APPROXIMATE
            if said:
                self.findings.append(Finding("", quoted(key), grade, said, self.source))


def is_entry(keys: Mapping[str, Any]) -> bool:
    """Whether an object says where a server is, rather than holding several by name.

    A ``type`` is not enough: many files that have nothing to do with servers hold one.
    """
    inner = keys.get("transport")
    return any(isinstance(keys.get(key), str | list) for key in ("command", *URL_KEYS)) or (
        isinstance(inner, dict) and any(isinstance(inner.get(key), str) for key in URL_KEYS)
    )


def _holds_servers(document: Mapping[str, Any], key: str) -> bool:
    """Whether servers stand under a key by name. In a bare map a server may itself be called so."""
    if key not in document:
        return False
    value = document[key]
    return key == "mcpServers" or not (isinstance(value, dict) and is_entry(value))


def _members(key: str, value: Any, source: str) -> _Named:
    """A map of entries, or a list of entries with ``name``."""
    if isinstance(value, list):
        if value and not any(isinstance(item, dict) for item in value):
            raise ConfigError(source, f"{key} holds no servers")
        return ((_own_name(item), item) for item in value)
    if not isinstance(value, dict):
        raise ConfigError(source, f"{key} must be an object or a list of servers")
    if is_entry(value):
        raise ConfigError(source, f"{key} holds a server without a name; write it as {{name: {{…}}}}")
    return iter(value.items())


def _own_name(entry: object) -> str | None:
    name = entry.get("name") if isinstance(entry, dict) else None
    return name if isinstance(name, str) and name.strip() else None


def _no_known_form(document: object, source: str) -> ConfigError:
    keys = document if isinstance(document, dict) else ()
    near = next((hint for key in keys if (hint := nearest(key, _MAPS))), None)
    hint = f"; did you mean {near}?" if near else "; write them under mcpServers"
    return ConfigError(source, f"no servers in a known form{hint}")


def _fitted(entries: _Named, source: str) -> Iterator[tuple[str | None, str, object]]:
    """What was written, the name made of it, the entry. Raises `ConfigError` when two come to the same name."""
    seen: dict[str, str] = {}
    for position, (written, entry) in enumerate(entries, 1):
        fitted = "" if written is None else fit_name(written)
        name = fitted or f"unnamed-{position}"
        said = ascii(written[:64]) if written and fitted else f"entry {position}, which has no name,"
        if (other := seen.get(name)) is not None:
            same = f"the server {said} is written twice"
            raise ConfigError(source, same if other == said else f"{other} and {said} would both be called {name!r}")
        seen[name] = said
        yield (written if fitted else None), name, entry
