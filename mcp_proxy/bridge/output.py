"""Answers that are to be JSON, from sources that know nothing of it: said in the system prompt, and checked here.

One attempt at repair is worth it, and is the caller's to make: `repair` is what to ask then. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import jsonschema_rs

from mcp_proxy.base.json import JsonError, encode, read_strict
from mcp_proxy.bridge.chat import ChatRequest, Message, OutputFormat, Role, Text
from mcp_proxy.bridge.errors import BAD_REQUEST, ChatError

_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
_FENCE = re.compile(r"^[ \t]*```[A-Za-z0-9_-]*[ \t]*\r?\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_REASON = 500


@dataclass(frozen=True, slots=True)
class Misfit:
    """An answer that is not what was asked for. ``reason`` names the rule and the place, never the value."""

    reason: str


def instruction(output: OutputFormat) -> str:
    """What the model is told. Raises `ChatError` (BAD_REQUEST) for a schema that cannot be used: nothing would fit it."""
    if output.schema is None:
        return "Answer with one JSON object and nothing else: no explanation, no Markdown."
    _validator(output)
    called = f" It is called {output.name}." if output.name else ""
    return (
        "Answer with JSON that fits the following JSON Schema and nothing else: no explanation, no Markdown, not the"
        f" schema itself.{called}\n\n{encode(output.schema).decode()}"
    )


def instructed(ask: ChatRequest) -> ChatRequest:
    """The request with its output format said in words; the same where it has none. Raises `ChatError` (BAD_REQUEST)."""
    if ask.output is None:
        return ask
    said = instruction(ask.output)
    return replace(ask, system=f"{ask.system}\n\n{said}" if ask.system else said, output=None)


def fit(text: str, output: OutputFormat) -> str | Misfit:
    """The JSON of an answer, without the Markdown fence that models put around it, or why it does not fit."""
    found = _unfenced(text)
    try:
        value = read_strict(found.encode())
    except (JsonError, UnicodeEncodeError) as error:
        return Misfit(f"it is not JSON: {error}"[:_REASON])
    if output.schema is None:
        return found if isinstance(value, dict) else Misfit("it is JSON, but no object")
    fault = _fault(value, output)
    return found if fault is None else Misfit(fault)


def repair(ask: ChatRequest, text: str, misfit: Misfit) -> ChatRequest:
    """The request that asks for the same again, with the answer that did not fit and the reason."""
    complaint = f"That does not fit: {misfit.reason}. Answer again with the corrected JSON and nothing else."
    said = (Message(Role.ASSISTANT, (Text(text),)),) if text.strip() else ()
    return replace(ask, messages=(*ask.messages, *said, Message(Role.USER, (Text(complaint),))))


def _unfenced(text: str) -> str:
    """What stands in the only fence; the text itself where it is JSON without one, or where nobody could tell."""
    stripped = text.strip()
    if stripped.startswith(("{", "[", '"')):
        return stripped
    fenced = _FENCE.findall(stripped)
    return fenced[0].strip() if len(fenced) == 1 else stripped


def _validator(output: OutputFormat) -> jsonschema_rs.Validator:
    try:
        # Offline: a `$ref` into the network is never followed. Masked: reasons do not repeat what the model said.
        return jsonschema_rs.validator_for(
            dict(output.schema or {}), offline=True, pattern_options=_PATTERNS, mask="the value"
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        reason = str(getattr(error, "message", error)).partition("\n")[0]
        raise ChatError(BAD_REQUEST, f"the JSON Schema of the output cannot be used: {reason[:_REASON]}") from None


def _fault(value: Any, output: OutputFormat) -> str | None:
    """The first rule that is broken."""
    error = next(_validator(output).iter_errors(value), None)
    if error is None:
        return None
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.instance_path)
    return f"at {pointer or 'the top'}: {error.message}"[:_REASON]
