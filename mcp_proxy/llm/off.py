"""What is under ``/v1`` while the LLM door is not switched on: nothing, and how to switch it on."""

from __future__ import annotations

from mcp_proxy.base.errors import ProxyError
from mcp_proxy.base.json import encode
from mcp_proxy.bridge.errors import NOT_FOUND, ChatError
from mcp_proxy.bridge.wire import anthropic_messages_frames, openai_chat_frames
from mcp_proxy.edge.respond import send_json
from mcp_proxy.edge.types import Header, Receive, Scope, Send
from mcp_proxy.llm.answer import failure_headers
from mcp_proxy.llm.refusals import told
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord


class LlmOff:
    """Stands in the place of `door.LlmDoor`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record: RequestRecord = scope[SCOPE_KEY]
        record.door, record.error = "llm", NOT_FOUND.code
        error = ChatError(NOT_FOUND, "there is no model here: the service was started without --llm")
        await send_json(send, *_answer(scope, error, record.request_id))

    def tell(self, scope: Scope, error: ProxyError, request_id: str) -> tuple[int, bytes, list[Header]]:
        """See `door.LlmDoor.tell`."""
        return _answer(scope, told(error), request_id)


def _answer(scope: Scope, error: ChatError, request_id: str) -> tuple[int, bytes, list[Header]]:
    anthropic = scope["path"].startswith("/v1/messages")
    words = anthropic_messages_frames.error_body if anthropic else openai_chat_frames.error_body
    return error.problem.status, encode(words(error, request_id)), failure_headers(error, request_id)
