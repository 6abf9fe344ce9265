"""The brain behind MCP clients: the SDK's own client calls ``hook`` and answers sampling, in either era.

A legacy client is asked everything within one call. A modern one is asked one thing a call, comes back with the answer,
and calls again when it is told to: it has as many lanes as it has calls.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from mcp_proxy.base.tasks import TaskSet
from tests.harness import make_token
from tests.llm.brain import Brain, BreaksOff, Busy, Fails, Rejects
from tests.llm.conversation import (
    Answer,
    Block,
    Picture,
    Question,
    Recording,
    Result,
    Tool,
    Turn,
    Use,
    Words,
    merged,
)

REJECTED, FAULT = -1, -32603
ENDS = {"end": "endTurn", "length": "maxTokens", "stop": "stopSequence", "tools": "toolUse", "refusal": "refusal"}
MODES = {"legacy": "legacy", "modern": "auto"}
VERSIONS = {"legacy": "2025-11-25", "modern": "2026-07-28"}


def read_question(params: types.CreateMessageRequestParams) -> Question:
    """What a sampling request asks."""
    hints = (params.model_preferences and params.model_preferences.hints) or []
    chosen = params.tool_choice.mode if params.tool_choice is not None else None
    return Question(
        turns=merged(Turn(message.role, tuple(map(_block, _list(message.content)))) for message in params.messages),
        model=(hints[0].name or "") if hints else "",
        system=params.system_prompt,
        tools=tuple(Tool(tool.name, tool.input_schema, tool.description) for tool in params.tools or ()),
        choice=chosen or "auto",
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        stop=tuple(params.stop_sequences or ()),
    )


def write_answer(answer: Answer, *, tools: bool) -> types.CreateMessageResult | types.CreateMessageResultWithTools:
    """The result that says so; ``tools``: some were offered."""
    content: list[Any] = [
        types.TextContent(type="text", text=block.text)
        if isinstance(block, Words)
        else types.ToolUseContent(type="tool_use", id=block.id, name=block.name, input=dict(block.arguments))
        for block in answer.blocks
    ]
    said: dict[str, Any] = {"role": "assistant", "model": answer.model, "stop_reason": ENDS[answer.end]}
    if answer.usage is not None:
        said["_meta"] = {"usage": {"inputTokens": answer.usage[0], "outputTokens": answer.usage[1]}}
    if tools:
        return types.CreateMessageResultWithTools(content=content, **said)
    return types.CreateMessageResult(content=content[0], **said)


def _list(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


def _block(block: Any) -> Block:
    match block:
        case types.TextContent():
            return Words(block.text)
        case types.ImageContent():
            return Picture(block.mime_type, block.data)
        case types.AudioContent():
            return Recording(block.mime_type, block.data)
        case types.ToolUseContent():
            return Use(block.id, block.name, block.input)
        case types.ToolResultContent():
            content = tuple(part for part in map(_block, block.content) if isinstance(part, (Words, Picture)))
            return Result(block.tool_use_id, content, bool(block.is_error))
    raise AssertionError(f"nothing that sampling knows: {block!r}")


class SamplingClient:
    """One MCP client with the brain behind it, for as long as it is `offered`."""

    def __init__(self, brain: Brain, base: str, era: str, *, calls: int = 1, tools: bool = True, **claims: Any) -> None:
        """``calls``: how many calls of ``hook`` it has open at once. ``claims`` are those of its token."""
        self._brain, self._url, self._era, self._calls, self._tools = brain, f"{base}/mcp", era, calls, tools
        self._token = make_token(**{"sub": "model", "scope": "llm:serve tools:read", **claims})

    async def run(self) -> None:
        """Call ``hook`` again and again; ends by being cancelled."""
        headers = {"Authorization": f"Bearer {self._token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(60), trust_env=False) as http:
            transport = streamable_http_client(self._url, http_client=http, max_sse_event_size=None)
            async with (
                Client(
                    transport,
                    mode=MODES[self._era],
                    sampling_callback=self._sample,
                    sampling_capabilities=types.SamplingCapability(
                        tools=types.SamplingToolsCapability() if self._tools else None
                    ),
                ) as client,
                anyio.create_task_group() as group,
            ):
                assert client.protocol_version == VERSIONS[self._era], client.protocol_version
                for _ in range(self._calls):
                    group.start_soon(self._call_again, client)

    async def _call_again(self, client: Client) -> None:
        while True:
            try:
                result = await client.call_tool("hook")
            except MCPError as error:
                if not self._is_over(error):
                    raise
            else:
                assert not result.is_error, result

    def _is_over(self, error: MCPError) -> bool:
        """Whether only the call has ended: a modern client hears of its own refusal, and tells nobody, and one that took
        too long is told to call again."""
        refused = error.error.code in (REJECTED, FAULT)
        return self._era == "modern" and (refused or "call" in error.error.message)

    async def _sample(
        self, context: Any, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData:
        try:
            answer = await self._brain.answer(read_question(params))
        except Rejects as error:
            return types.ErrorData(code=REJECTED, message=str(error))
        except (Fails, Busy, BreaksOff) as error:
            return types.ErrorData(code=FAULT, message=str(error))
        return write_answer(answer, tools=bool(params.tools) or self._tools)


@asynccontextmanager
async def offered(clients: Iterable[SamplingClient]) -> AsyncIterator[None]:
    """The clients, at work inside."""
    failed: list[str] = []
    tasks = TaskSet(lambda name, error: failed.append(f"{name}: {error!r}"))
    for client in clients:
        tasks.spawn(client.run(), "sampling client")
    try:
        yield
    finally:
        await tasks.close()
    assert not failed, failed
