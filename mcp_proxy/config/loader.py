"""Sources of servers: the variables MCP_URL and MCP_URLS, and files. They add up; a name can be used once.

Here is everything that touches the disk. What a document means is `dialects`, its syntax `syntax`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mcp_proxy.base.errors import StartError
from mcp_proxy.base.names import name_from_url
from mcp_proxy.config.address import transport_of, url_fault
from mcp_proxy.config.describe import shown_url
from mcp_proxy.config.dialects import parse_servers, refuse_group_clashes
from mcp_proxy.config.model import ConfigError, Servers, ServerSpec
from mcp_proxy.config.syntax import parse_json, parse_toml
from mcp_proxy.settings import Settings

__all__ = ["combine", "load_servers", "parse_servers", "read_document", "read_servers"]

URLS = "MCP_URLS"


def load_servers(settings: Settings, environ: Mapping[str, str]) -> Servers:
    """All servers of the variables and of every ``--config`` file. ``environ`` fills the variables in files.

    Raises `StartError` with one line: which source, which line of it, why.
    """
    try:
        return combine([_from_variables(settings), *(read_servers(path, environ) for path in settings.config)])
    except ConfigError as error:
        raise StartError(str(error)) from None


def read_servers(path: Path, environ: Mapping[str, str]) -> Servers:
    """The servers of one file. Raises `ConfigError`."""
    return parse_servers(read_document(path), str(path), environ, path.stem)


def read_document(path: Path) -> Any:
    """A file's content, parsed: TOML when it is called so, else JSON with or without comments. Raises `ConfigError`."""
    source = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(source, f"cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError:
        raise ConfigError(source, "cannot be read: the path holds a NUL") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(source, "is not UTF-8", content.count(b"\n", 0, error.start) + 1) from None
    return parse_toml(text, source) if path.suffix.lower() == ".toml" else parse_json(text, source)


def combine(sources: Iterable[Servers]) -> Servers:
    """All of them together, in order. Raises `ConfigError` for a name that is used twice."""
    parts = tuple(sources)
    places: dict[str, str] = {}
    for name, source in (place for part in parts for place in _places(part)):
        if name in places:
            raise ConfigError(places[name], f"the server {name!r} is written here and in {source}")
        places[name] = source
    return refuse_group_clashes(
        Servers(
            tuple(spec for part in parts for spec in part.specs),
            tuple(server for part in parts for server in part.refused),
            tuple(finding for part in parts for finding in part.findings),
        )
    )


def _places(servers: Servers) -> Iterator[tuple[str, str]]:
    yield from ((spec.name, spec.source) for spec in servers.specs)
    yield from ((server.name, server.source) for server in servers.refused)


def _from_variables(settings: Settings) -> Servers:
    if not settings.mcp_urls:
        return Servers((_from_url("MCP_URL", settings.mcp_url.strip(), None),) if settings.mcp_url else ())
    return Servers(tuple(_replicas(settings.mcp_urls)))


def _replicas(urls: Iterable[str]) -> Iterator[ServerSpec]:
    places: dict[str, int] = {}
    for position, url in enumerate(urls, 1):
        spec = _from_url(URLS, url, URLS, f"entry {position}, ")
        if spec.name in places:
            reason = f"entries {places[spec.name]} and {position} would both be called {spec.name!r}"
            raise ConfigError(URLS, f"{reason}; give them different paths, or names in a --config file")
        places[spec.name] = position
        yield spec


def _from_url(variable: str, url: str, replica_set: str | None, place: str = "") -> ServerSpec:
    if fault := url_fault(url):
        # A URL with a user name in it may hold a password anywhere.
        given = "the URL" if "@" in url else f"{shown_url(url)[:80]!a}"
        raise ConfigError(variable, f"{place}{given} {fault}; accepted: http://host:port/path or https://…")
    return ServerSpec(name_from_url(url), transport_of(url), variable, url=url, replica_set=replica_set)
