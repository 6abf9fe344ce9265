"""Which commands may be given over the API: those that fit a template of the operator, word by word.

A template is a whole command line; no part of it is ever given to a shell. Variables for the process: `environment`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from mcp_proxy.base.errors import COMMAND_NOT_ALLOWED, UNPROCESSABLE, ProxyError, StartError
from mcp_proxy.base.quote import quote
from mcp_proxy.core.admission.environment import steers

_PLACEHOLDER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_-]*\}")
_ARGUMENT = re.compile(r"[^-\0\r\n][^\0\r\n]*")
"""What a placeholder stands for: no option (those are the operator's to choose), nothing empty, one line."""


class CommandTemplates:
    """Command lines such as ``uvx mcp-server-time --local-timezone {tz}``, in a shell's quoting.

    ``{name}`` alone as an argument stands for exactly one argument, every other word for itself. Raises `StartError`.
    """

    def __init__(self, templates: Iterable[str] = ()) -> None:
        self._templates = tuple(words for text in templates if (words := _words(text)))

    def check(self, command: str, args: Sequence[str], env: Mapping[str, str]) -> None:
        """Raises `ProxyError`: 403 for a command that fits no template, 422 for a variable that would change it."""
        given = (command, *args)
        if not any(_fits(template, given) for template in self._templates):
            raise ProxyError(
                COMMAND_NOT_ALLOWED, "this command is none of those that may be given over the API (MCP_PROXY_API_COMMANDS)"
            )  # fmt: skip
        for name in env:
            if steers(name):
                said = name[:64]
                raise ProxyError(
                    UNPROCESSABLE,
                    f"the variable {quote(said)} may not be given over the API: it can change what the command runs",
                    details={"field": f"env.{said}"},
                )


def _words(template: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(template))
    except ValueError:
        raise _malformed(template, "a quotation is not closed") from None
    for position, word in enumerate(words):
        if _PLACEHOLDER.search(word) and not _PLACEHOLDER.fullmatch(word):
            raise _malformed(template, "a placeholder must be an argument of its own")
        if position == 0 and _PLACEHOLDER.fullmatch(word):
            raise _malformed(template, "the program itself cannot be a placeholder")
    return words


def _malformed(template: str, reason: str) -> StartError:
    return StartError(
        f"MCP_PROXY_API_COMMANDS has {quote(template.strip())}, which cannot be used: {reason};"
        " accepted: command lines separated by ;, such as uvx mcp-server-time --local-timezone {tz}"
    )


def _fits(template: Sequence[str], given: Sequence[str]) -> bool:
    return len(template) == len(given) and all(map(_word_fits, template, given))


def _word_fits(wanted: str, word: str) -> bool:
    if _PLACEHOLDER.fullmatch(wanted):
        return _ARGUMENT.fullmatch(word) is not None
    return wanted == word
