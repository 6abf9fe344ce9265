"""One server's entry as it comes over the API, made into a `ServerSpec` or refused.

Stricter than files: nothing is approximated that a caller can write right, no variable is expanded, commands are the
operator's. Pure; where a URL leads is asked of `guard` afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_proxy.base.errors import UNPROCESSABLE, ProxyError
from mcp_proxy.base.names import is_name
from mcp_proxy.base.quote import quote
from mcp_proxy.config.entry import read_entry
from mcp_proxy.config.fields import Refused
from mcp_proxy.config.model import Grade, ServerSpec
from mcp_proxy.core.admission.commands import CommandTemplates

_FRAMING = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te"),
        *("trailer", "upgrade", "expect"),
    }
)
"""Headers that say where a request goes and where it ends (RFC 9110 §7): the connection's, not a caller's."""


def check_entry(name: str, entry: object, commands: CommandTemplates, source: str) -> ServerSpec:
    """The server that ``entry`` (parsed JSON) describes, labelled with ``source``.

    Raises `ProxyError`: 403 for a command that is not allowed; 422 for everything else, with ``details.server`` and,
    where it is one field, ``details.field``. The ``url`` of the result is still to be given to `AddressGuard.check`.
    """
    if not is_name(name):
        raise _refused(name, "name", "must be 1 to 64 letters, digits, _ or -, and not mcp, hook, v1 or api")
    if not isinstance(entry, dict):
        raise _refused(name, None, "must be an object")
    if entry.get("name") not in (None, name):
        raise _refused(name, "name", "is another one than that which the server stands under")
    notes: list[tuple[str, Grade, str]] = []

    def note(field: str, grade: Grade, message: str) -> None:
        notes.append((field, grade, message))

    try:
        spec = read_entry(name, entry, source, None, note)
    except Refused as error:
        raise _refused(name, None, str(error)) from None
    if spec.command is not None:
        commands.check(spec.command, spec.args, spec.env)
    for field, grade, message in notes:
        if field == "group" or grade is not Grade.APPROXIMATE:
            raise _refused(name, field, _said(message))
    _check_surroundings(name, spec.cwd, spec.headers)
    return spec


def _check_surroundings(name: str, cwd: str | None, headers: Mapping[str, str]) -> None:
    if cwd is not None:
        raise _refused(name, "cwd", "may not be given over the API")
    for header in headers:
        if header.lower() in _FRAMING:
            raise _refused(name, f"headers.{header}", "may not be set: it belongs to the connection")


def _said(message: str) -> str:
    """A finding's text without what is done in files: there the field is kept, and not used."""
    return "; ".join(part for part in message.split("; ") if not part.endswith("not used"))


def _refused(name: str, field: str | None, reason: str) -> ProxyError:
    details: dict[str, Any] = {"server": name[:64]} | ({} if field is None else {"field": field})
    return ProxyError(UNPROCESSABLE, f"{quote(name, 64)}: {f'{field} ' if field else ''}{reason}", details=details)
