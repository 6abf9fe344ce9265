"""What can go wrong with a completion, in neutral words; each API has its own for them (`wire`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ChatProblem:
    """One kind of failure: HTTP status, a code for OpenAI clients, an error type for Anthropic's.

    ``retry``: False tells the clients' libraries not to send the request again by themselves, which they otherwise do
    for 408, 409, 429 and 5xx.
    """

    status: int
    code: str
    anthropic_type: str
    retry: bool | None = None


BAD_REQUEST = ChatProblem(400, "invalid_request", "invalid_request_error")
UNSUPPORTED = ChatProblem(400, "unsupported_parameter", "invalid_request_error")
TOOLS_NOT_SUPPORTED = ChatProblem(400, "tools_not_supported", "invalid_request_error")
UNAUTHORIZED = ChatProblem(401, "invalid_api_key", "authentication_error")
BUDGET_SPENT = ChatProblem(402, "insufficient_quota", "billing_error", retry=False)
FORBIDDEN = ChatProblem(403, "permission_denied", "permission_error")
REFUSED = ChatProblem(403, "sampling_rejected", "permission_error", retry=False)
"""The person at the other end did not want it answered."""
MODEL_NOT_FOUND = ChatProblem(404, "model_not_found", "not_found_error")
NOT_FOUND = ChatProblem(404, "not_found", "not_found_error")
METHOD_NOT_ALLOWED = ChatProblem(405, "method_not_allowed", "invalid_request_error")
TIMED_OUT = ChatProblem(408, "request_timeout", "timeout_error")
"""The request itself did not arrive in time."""
TOO_LARGE = ChatProblem(413, "request_too_large", "request_too_large")
RATE_LIMITED = ChatProblem(429, "rate_limit_exceeded", "rate_limit_error")
QUEUE_FULL = ChatProblem(429, "queue_full", "rate_limit_error")
INTERNAL = ChatProblem(500, "internal_error", "api_error")
SOURCE_ERROR = ChatProblem(502, "source_error", "api_error", retry=False)
"""The model's side failed, or answered with what cannot be passed on."""
NOT_READY = ChatProblem(503, "hook_not_ready", "overloaded_error")
"""Nothing is connected that could answer."""
OVERLOADED = ChatProblem(503, "overloaded", "overloaded_error")
NO_ANSWER = ChatProblem(504, "no_answer", "timeout_error", retry=False)
"""Nobody knows whether the model worked on it: asking again would run it again."""


class ChatError(Exception):
    """A completion fails. ``param`` is the parameter of the request that is to blame; ``retry_after`` is seconds.

    ``details``: more, in the words of the API that the client speaks.
    """

    def __init__(
        self,
        problem: ChatProblem,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.details = details
        self.problem = problem
        self.message = message
        self.param = param
        self.retry_after = retry_after

    @property
    def text(self) -> str:
        """The message with the parameter to blame, for those who have no other place for it."""
        return f"{self.param}: {self.message}" if self.param else self.message
