"""Command line options made from the table of settings, so that flags, variables and documentation say the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from mcp_proxy.settings import setting_table

F = TypeVar("F", bound=Callable[..., Any])

_REPEATABLE = frozenset({"config", "allow_host", "allow_network", "cors_origin"})


def default_text(value: object) -> str:
    """A setting's value as people write it."""
    match value:
        case None | ():
            return "none"
        case bool():
            return "on" if value else "off"
        case tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)


def setting_options(*, only: frozenset[str] | None = None) -> Callable[[F], F]:
    """All settings that have a flag, as options of a command; values arrive as text by field name."""

    def decorate(command: F) -> F:
        for row in reversed(setting_table()):
            if row.flag is None or (only is not None and row.field not in only):
                continue
            text = f"{row.help} [{row.env}; default: {default_text(row.default)}]"
            kwargs: dict[str, Any] = {"help": text, "default": None}
            if isinstance(row.default, bool):
                kwargs |= {"is_flag": True, "flag_value": "on", "type": str}
            elif row.field in _REPEATABLE:
                kwargs |= {"multiple": True, "default": ()}
            command = click.option(row.flag, row.field, **kwargs)(command)
        return command

    return decorate


def environment_help() -> str:
    """The settings that have no flag, for ``--help``."""
    rows = [row for row in setting_table() if row.flag is None]
    return "\n".join(f"  {row.env}: {row.help} (default: {default_text(row.default)})" for row in rows)
