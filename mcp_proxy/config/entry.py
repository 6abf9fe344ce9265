"""One server's entry, whichever client wrote it, made into a `ServerSpec`.

Where its server is: `target`; what it is given: `env_headers`; its tools: `tool_rules`; taking keys out: `fields`. Documents: `dialects`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from mcp_proxy.base.names import RESERVED, fit_name
from mcp_proxy.config.env_headers import read_env, read_headers
from mcp_proxy.config.fields import Fields, Note, Refused, quoted
from mcp_proxy.config.model import Grade, RetryRules, ServerSpec
from mcp_proxy.config.target import TRANSPORT_KEYS, URL_KEYS, read_target
from mcp_proxy.config.tool_rules import ALLOW_KEYS, DENY_KEYS, read_tool_rules

_STDIO_KEYS = ("args", "env", "environment", "env_vars", "cwd", "working_dir")
_HEADER_KEYS = ("headers", "http_headers", "env_http_headers", "bearer_token_env_var")
_TIMEOUT_KEYS = ("timeout", "timeoutSeconds", "tool_timeout_sec")
_CONNECT_KEYS = ("connect_timeout", "startup_timeout_sec")
_RETRY_KEYS = ("max", "idempotent", "trust_annotations")
_OWN_KEYS = (
    *("command", *TRANSPORT_KEYS, *URL_KEYS, *_STDIO_KEYS, *_HEADER_KEYS, *ALLOW_KEYS, *DENY_KEYS),
    *(*_TIMEOUT_KEYS, *_CONNECT_KEYS, "disabled", "enabled", "isActive", "tools"),
    *("group", "max_concurrency", "retry", "description", "provider"),
)
_CLIENT_KEYS = frozenset({"autoApprove", "alwaysAllow", "trust"})
_QUIET_KEYS = frozenset({"name", "provider"})
"""The router's: the name is read with the document, and a provider that is no text is not worth a word."""


def read_entry(
    name: str, entry: Mapping[str, Any], source: str, environ: Mapping[str, str] | None, note: Note
) -> ServerSpec:
    """The server that ``entry`` describes, under a ``name`` already fitted; raises `Refused`.

    ``environ`` None: nothing is expanded and no variable may be named (entries that come over the API).
    """
    fields = Fields(_flattened(entry), environ, note)
    fields.drop_empty(*TRANSPORT_KEYS, "cwd", "working_dir", "bearer_token_env_var", "group", "description")
    disabled = _disabled(fields)
    transport, command, args, url = read_target(fields)
    unused = _unused(fields, *((_HEADER_KEYS, "command") if url is None else (_STDIO_KEYS, "URL")))
    return ServerSpec(
        name=name,
        transport=transport,
        source=source,
        command=command,
        args=args,
        env=read_env(fields),
        cwd=fields.text("cwd", "working_dir"),
        url=url,
        headers=read_headers(fields),
        group=_group(fields),
        provider=_provider(fields),
        disabled=disabled,
        timeout=fields.seconds(*_TIMEOUT_KEYS),
        connect_timeout=fields.seconds(*_CONNECT_KEYS),
        max_concurrency=fields.whole("max_concurrency", 1),
        tools=read_tool_rules(fields),
        retry=_retry(fields),
        description=_plain_text(fields, "description"),
        extra={**unused, **_leftover(fields)},
        written=fields.written,
    )


def switched_off(entry: Mapping[str, Any]) -> bool:
    """Whether an entry that cannot be used says plainly that nobody wants it."""
    return entry.get("disabled") is True or entry.get("enabled") is False or entry.get("isActive") is False


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known key that ``word`` was probably meant to be."""
    spelled = {key.lower(): key for key in known}
    close = difflib.get_close_matches(word[:64].lower(), spelled, n=1, cutoff=0.8)
    return spelled[close[0]] if close else None


def _flattened(entry: Mapping[str, Any]) -> dict[str, Any]:
    """``transport: {type, url, headers}`` with its keys moved up beside the others."""
    inner = entry.get("transport")
    if not isinstance(inner, dict):
        return dict(entry)
    outer = {key: value for key, value in entry.items() if key != "transport"}
    for key, value in inner.items():
        if value is not None and outer.get(key) is not None:
            raise Refused(f"{quoted(key)} and transport.{quoted(key)} say the same thing twice; keep one")
    return outer | {key: value for key, value in inner.items() if value is not None}


def _unused(fields: Fields, names: Iterable[str], kind: str) -> dict[str, Any]:
    """Take what belongs to the other kind of server; empty ones are a dialogue's habit and not worth a word."""
    unused = {name: fields.left.pop(name) for name in names if name in fields.left}
    unused = {name: value for name, value in unused.items() if value not in ({}, [], "")}
    for name in unused:
        fields.note(name, Grade.UNSUPPORTED, f"means nothing for a server that is reached by {kind}; not used")
    return unused


def _disabled(fields: Fields) -> bool:
    """Any of the three words for "off" is enough."""
    off, on, active = fields.switch("disabled"), fields.switch("enabled"), fields.switch("isActive")
    return off is True or on is False or active is False


def _plain_text(fields: Fields, key: str) -> str | None:
    found = fields.take(key)
    if found is not None and not isinstance(found[1], str):
        raise Refused(f"{key} must be text")
    return None if found is None else found[1]


def _group(fields: Fields) -> str | None:
    given = _plain_text(fields, "group")
    if given is None:
        return None
    if given.strip() in RESERVED:
        raise Refused(f"group cannot be called {given.strip()}: the name is reserved")
    if not (group := fit_name(given)):
        raise Refused("group is empty")
    if group != given:
        fields.note("group", Grade.APPROXIMATE, f"the name does not fit and is read as {group}")
    return group


def _provider(fields: Fields) -> str | None:
    """The router's alias. Other programs mean other things by this key, so that only a text counts."""
    given = fields.left.get("provider")
    if not isinstance(given, str) or not given.strip():
        return None
    del fields.left["provider"]
    return given.strip()


def _retry(fields: Fields) -> RetryRules:
    found = fields.take("retry")
    if found is None:
        return RetryRules()
    if not isinstance(found[1], dict):
        raise Refused("retry must be an object")
    rules = Fields(found[1], fields.environ, fields.note)
    try:
        most, globs = rules.whole("max", 0), rules.words("idempotent")
        trusted = rules.switch("trust_annotations")
    except Refused as error:
        raise Refused(f"retry.{error}") from None
    for key in rules.left:
        _unknown(fields.note, key, _RETRY_KEYS, "retry.")
    return RetryRules(RetryRules().max if most is None else most, globs or (), bool(trusted))


def _leftover(fields: Fields) -> dict[str, Any]:
    """What nobody took: kept, and said."""
    for key in fields.left:
        if key in _CLIENT_KEYS:
            fields.note(key, Grade.APPROXIMATE, "a matter of the client that asks its user; kept and not used")
        elif key not in _QUIET_KEYS:
            _unknown(fields.note, key, _OWN_KEYS)
    return dict(fields.left)


def _unknown(note: Note, key: str, known: Iterable[str], prefix: str = "") -> None:
    near = nearest(key, known)
    hint = f"; did you mean {prefix}{near}?" if near else ""
    note(f"{prefix}{quoted(key)}", Grade.UNSUPPORTED, f"not known here; kept and not used{hint}")
