"""Variables in configuration files: ``${VAR}``, ``${VAR:-default}``, ``${env:VAR}``, ``${input:ID}``, ``$$``.

Pure: the environment is handed in. Which fields are expanded, and what a failure means for a server, is `fields`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\{(?P<inner>[^}]*)\}|(?P<open>\{))")
_VARIABLE = re.compile(r"(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_INPUT = re.compile(r"input:(?P<id>[^:]+)")
_NOT_ALNUM = re.compile(r"[^A-Z0-9]")


class ExpandError(Exception):
    """A reference that cannot be filled. ``variable`` is its name, None when the form itself is not known.

    Of the text around it nothing is repeated: a stray ``${`` may be a part of somebody's password.
    """

    def __init__(self, message: str, variable: str | None = None) -> None:
        super().__init__(message)
        self.variable = variable


def expand(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with its variables filled in; a bare ``$VAR`` stays, a default is taken literally.

    As in a shell, a variable that is set but empty is set for ``${VAR}`` and not for ``${VAR:-default}``.
    Raises `ExpandError`.
    """
    return _REFERENCE.sub(lambda match: _value(match, environ), text)


def input_variable(identifier: str) -> str:
    """Where ``${input:identifier}`` is read from: ``${input:api-key}`` is ``MCP_INPUT_API_KEY``."""
    return "MCP_INPUT_" + _NOT_ALNUM.sub("_", identifier.upper())


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match["open"]:
        raise ExpandError("a ${ is not closed; write $$ for a dollar")
    inner = match["inner"]
    if inner is None:
        return "$"
    if prompt := _INPUT.fullmatch(inner):
        return _set(input_variable(prompt["id"]), environ)
    variable = _VARIABLE.fullmatch(inner)
    if variable is None:
        raise ExpandError("${…} is of no known form; accepted: ${VAR}, ${VAR:-default}, ${env:VAR}, ${input:ID}")
    if (default := variable["default"]) is not None:
        return environ.get(variable["name"], "") or default
    return _set(variable["name"], environ)


def _set(name: str, environ: Mapping[str, str]) -> str:
    if (value := environ.get(name)) is None:
        raise ExpandError(f"the variable {name} is not set", name)
    return value
