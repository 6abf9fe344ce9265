"""The ``llm`` section of a configuration file: providers of models with their keys, which names lead to which of them, and
which servers may ask for completions themselves.

It stands beside ``mcpServers`` and is read at the start. What answers is `bridge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from mcp_proxy.base.errors import StartError
from mcp_proxy.base.names import fit_name
from mcp_proxy.config.address import url_fault
from mcp_proxy.config.expand import ExpandError, expand
from mcp_proxy.config.fields import quoted
from mcp_proxy.config.model import ConfigError
from mcp_proxy.config.reading import read_document

_KEYS = ("enabled", "providers", "models", "servers")
_PROVIDER_KEYS = ("type", "base_url", "api_key")
_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
SAMPLING = "sampling"


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One provider as configured. ``type`` is the API that it speaks."""

    name: str
    type: Literal["openai", "anthropic"]
    base_url: str
    api_key: SecretStr


@dataclass(frozen=True, slots=True)
class LlmSpec:
    """The whole section. ``models``: for each name the sources to ask, in order (``provider/model``, ``sampling``).

    ``servers``: globs of servers or groups whose own requests for completions are answered where their callers cannot.
    """

    enabled: bool = False
    providers: tuple[ProviderSpec, ...] = ()
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    servers: tuple[str, ...] = ()

    @property
    def asks_clients(self) -> bool:
        """Whether connected clients are to answer, as far as the section says: it names them, or nobody else."""
        steps = (step for steps in self.models.values() for step in steps)
        return not self.providers or any(step.partition("/")[0] == SAMPLING for step in steps)


def load_llm(files: Iterable[Path], environ: Mapping[str, str]) -> LlmSpec:
    """The section of the one file that has it. Raises `StartError` with one line naming file and field."""
    found: LlmSpec | None = None
    place = ""
    for path in files:
        try:
            document = read_document(path)
            if not isinstance(document, dict) or "llm" not in document:
                continue
            if found is not None:
                raise ConfigError(str(path), f"llm is in {place} already")
            found, place = parse_llm(document["llm"], str(path), environ), str(path)
        except ConfigError as error:
            raise StartError(str(error)) from None
    return found or LlmSpec()


def parse_llm(section: Any, source: str, environ: Mapping[str, str]) -> LlmSpec:
    """One section. Raises `ConfigError`."""
    _check(section, "llm", _KEYS, source)
    enabled = section.get("enabled", True)
    if not isinstance(enabled, bool):
        raise ConfigError(source, "llm.enabled must be true or false")
    given = section.get("providers") or {}
    if not isinstance(given, dict):
        raise ConfigError(source, "llm.providers must be an object")
    providers = tuple(_provider(name, entry, source, environ) for name, entry in given.items())
    models = _models(section.get("models") or {}, {one.name for one in providers}, source)
    return LlmSpec(enabled, providers, models, _servers(section.get("servers"), source))


def _provider(name: str, entry: Any, source: str, environ: Mapping[str, str]) -> ProviderSpec:
    place = f"llm.providers.{quoted(name)}"
    if fit_name(name) != name or name == SAMPLING:
        raise ConfigError(source, f"{place}: a name is 1 to 64 of A-Z a-z 0-9 _ -, and not {SAMPLING}")
    _check(entry, place, _PROVIDER_KEYS, source)
    kind = entry.get("type")
    if kind not in _URLS:
        raise ConfigError(source, f"{place}.type must be openai or anthropic")
    url = _text(entry, "base_url", place, source, environ) or _URLS[kind]
    if fault := url_fault(url):
        raise ConfigError(source, f"{place}.base_url {fault}")
    key = _text(entry, "api_key", place, source, environ)
    if not key:
        raise ConfigError(source, f"{place}.api_key is missing")
    return ProviderSpec(name, kind, url.rstrip("/"), SecretStr(key))


def _models(given: Any, providers: set[str], source: str) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(given, dict):
        raise ConfigError(source, "llm.models must be an object")
    for name, steps in given.items():
        place = f"llm.models.{quoted(name)}"
        if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
            raise ConfigError(source, f"{place} must be a list of provider/model or {SAMPLING}")
        for step in steps:
            owner, _, model = step.partition("/")
            if owner != SAMPLING and (owner not in providers or not model):
                raise ConfigError(
                    source, f"{place}: {quoted(step)} is no provider/model of llm.providers, nor {SAMPLING}"
                )
    return {name: tuple(steps) for name, steps in given.items()}


def _servers(given: Any, source: str) -> tuple[str, ...]:
    globs = [] if given is None else given
    if not isinstance(globs, list) or not all(isinstance(glob, str) and glob for glob in globs):
        raise ConfigError(source, "llm.servers must be a list of names of servers or groups, * stands for any part")
    return tuple(globs)


def _check(value: Any, place: str, known: tuple[str, ...], source: str) -> None:
    if not isinstance(value, dict):
        raise ConfigError(source, f"{place} must be an object")
    for key in value:
        if key not in known:
            raise ConfigError(source, f"{place}.{quoted(key)} is not known; accepted: {', '.join(known)}")


def _text(entry: Mapping[str, Any], key: str, place: str, source: str, environ: Mapping[str, str]) -> str | None:
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(source, f"{place}.{key} must be text")
    try:
        return expand(value, environ)
    except ExpandError as error:
        raise ConfigError(source, f"{place}.{key}: {error}") from None
