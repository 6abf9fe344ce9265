"""From the disk and the variables to servers: one file's content, one document, the entries of MCP_URL and MCP_URLS.

Here is everything that reads configuration. What a document means is `dialects`, its syntax `syntax`; which sources
there are and what holds when two of them disagree is `sources`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mcp_proxy.base.names import name_from_url
from mcp_proxy.base.quote import quote
from mcp_proxy.config.address import transport_of, url_fault
from mcp_proxy.config.describe import shown_url
from mcp_proxy.config.dialects import parse_servers, refuse_group_clashes
from mcp_proxy.config.model import ConfigError, Servers, ServerSpec
from mcp_proxy.config.syntax import parse_json, parse_toml
from mcp_proxy.settings import Settings

MAX_FILE = 10_000_000
"""Bytes. A larger file is no configuration, and parsing it would hold everything up."""

URLS = "MCP_URLS"


def read_servers(path: Path, environ: Mapping[str, str]) -> Servers:
    """The servers of one file. Raises `ConfigError`."""
    return parse_servers(read_document(path), str(path), environ, path.stem)


def read_document(path: Path) -> Any:
    """A file's content, parsed. Raises `ConfigError`."""
    return parse_content(read_content(path), path)


def read_content(path: Path) -> bytes:
    """What a file holds, up to `MAX_FILE` bytes. Raises `ConfigError`."""
    source = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(source, f"cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError:
        raise ConfigError(source, "cannot be read: the path holds a NUL") from None
    if len(content) > MAX_FILE:
        raise ConfigError(source, f"is larger than {MAX_FILE // 1_000_000} MB")
    return content


def parse_content(content: bytes, path: Path) -> Any:
    """TOML when the file is called so, else JSON with or without comments. Raises `ConfigError`."""
    source = str(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(source, "is not UTF-8", content.count(b"\n", 0, error.start) + 1) from None
    return parse_toml(text, source) if path.suffix.lower() == ".toml" else parse_json(text, source)


def combine(sources: Iterable[Servers]) -> Servers:
    """All of them together, in order. Raises `ConfigError` for a name that is used twice."""
    parts = tuple(sources)
    places: dict[str, str] = {}
    for name, source in (place for part in parts for place in places_of(part)):
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


def places_of(servers: Servers) -> Iterator[tuple[str, str]]:
    """Every name that is used, refused servers' too, and where it is written."""
    yield from ((spec.name, spec.source) for spec in servers.specs)
    yield from ((server.name, server.source) for server in servers.refused)


def from_variables(settings: Settings) -> Servers:
    """The servers of MCP_URLS, else that of MCP_URL. Raises `ConfigError`."""
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
        given = "the URL" if "@" in url else quote(shown_url(url))
        raise ConfigError(variable, f"{place}{given} {fault}; accepted: http://host:port/path or https://…")
    return ServerSpec(name_from_url(url), transport_of(url), variable, url=url, replica_set=replica_set)
