"""The response object of ``/v1/responses`` and its items, as they stand in a whole answer and in a stream's events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_proxy.bridge.chat import ChatRequest, HouseCall, HouseUse, OutputFormat, StopReason, ToolMode, Usage
from mcp_proxy.bridge.errors import ChatError

_INCOMPLETE = {StopReason.MAX_TOKENS: "max_output_tokens", StopReason.REFUSAL: "content_filter"}
_RATE_LIMITED = 429


def outcome(stop: StopReason) -> tuple[str, Mapping[str, str] | None]:
    """The status of an answer that ends so, and why it is incomplete."""
    reason = _INCOMPLETE.get(stop)
    return ("completed", None) if reason is None else ("incomplete", {"reason": reason})


def text_part(text: str) -> dict[str, Any]:
    """The one part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def message(id: str, text: str | None, status: str) -> dict[str, Any]:
    """An item of words; None: none have come yet."""
    content = [] if text is None else [text_part(text)]
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def call(id: str, call_id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
    """An item that is a tool use; ``arguments`` is JSON text."""
    fields = {"call_id": call_id, "name": name, "arguments": arguments}
    return {"id": id, "type": "function_call", "status": status, **fields}


def mcp_call(id: str, called: HouseUse | HouseCall) -> dict[str, Any]:
    """An item that is the use of a tool of this service, while it goes on or when it is over."""
    status, output, error = "in_progress", None, None
    if isinstance(called, HouseCall) and called.is_error:
        status = "failed"
        error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": called.text}]}
    elif isinstance(called, HouseCall):
        status, output = "completed", called.text
    return {
        "id": id,
        "type": "mcp_call",
        "status": status,
        "approval_request_id": None,
        "server_label": called.server,
        "name": called.tool,
        "arguments": called.arguments,
        "output": output,
        "error": error,
    }


@dataclass(frozen=True, slots=True)
class Head:
    """What is the same in all shapes of one response: what was asked for is repeated in it, as far as it was understood."""

    ask: ChatRequest
    id: str
    created: int

    def item(self, kind: str, index: int) -> str:
        """The id of the item at that place."""
        return f"{kind}_{self.id.removeprefix('resp_')}_{index}"

    def begun(self, model: str) -> dict[str, Any]:
        """The response of which nothing is known yet."""
        return self._response(model, "in_progress")

    def ended(self, model: str, output: list[dict[str, Any]], stop: StopReason, usage: Usage) -> dict[str, Any]:
        """The response that is complete, or as complete as it will be."""
        status, details = outcome(stop)
        return {
            **self._response(model, status),
            "output": output,
            "incomplete_details": details,
            "usage": _usage(usage),
        }

    def failed(self, model: str, output: list[dict[str, Any]], error: ChatError) -> dict[str, Any]:
        """The response that will not be complete."""
        return {**self._response(model, "failed"), "output": output, "error": failure(error)}

    def _response(self, model: str, status: str) -> dict[str, Any]:
        ask = self.ask
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": ask.system,
            "max_output_tokens": ask.max_tokens,
            "max_tool_calls": None,
            "metadata": {},
            "model": model,
            "output": [],
            "parallel_tool_calls": ask.tool_choice.parallel,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "temperature": ask.temperature,
            "text": {"format": _format(ask.output)},
            "tool_choice": _tool_choice(ask),
            "tools": _tools(ask),
            "top_logprobs": 0,
            "top_p": None,
            "truncation": "disabled",
            "usage": None,
            "user": None,
        }


def failure(error: ChatError) -> dict[str, str]:
    """The error of a response that failed; of its codes clients know few, that of a limit among them."""
    limited = error.problem.status == _RATE_LIMITED
    return {"code": "rate_limit_exceeded" if limited else error.problem.code, "message": error.message}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _format(output: OutputFormat | None) -> dict[str, Any]:
    if output is None:
        return {"type": "text"}
    if output.schema is None:
        return {"type": "json_object"}
    named = {"name": output.name or "answer", "schema": output.schema, "strict": output.strict}
    return {"type": "json_schema", **named}


def _tool_choice(ask: ChatRequest) -> str | dict[str, Any]:
    choice = ask.tool_choice
    if choice.mode is ToolMode.REQUIRED and choice.name is not None:
        return {"type": "function", "name": choice.name}
    return str(choice.mode)


def _tools(ask: ChatRequest) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.input_schema,
            "strict": False,
        }
        for tool in ask.tools
    ]
