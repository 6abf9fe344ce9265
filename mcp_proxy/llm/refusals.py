"""What the edge refuses under ``/v1``, in the words of the API that is called: clients read no other errors."""

from __future__ import annotations

from collections.abc import Mapping

from mcp_proxy.base.errors import ProxyError
from mcp_proxy.bridge.errors import (
    BAD_REQUEST,
    FORBIDDEN,
    INTERNAL,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    OVERLOADED,
    RATE_LIMITED,
    TIMED_OUT,
    TOO_LARGE,
    UNAUTHORIZED,
    ChatError,
    ChatProblem,
)

_BY_STATUS: Mapping[int, ChatProblem] = {
    problem.status: problem
    for problem in (
        BAD_REQUEST,
        UNAUTHORIZED,
        FORBIDDEN,
        NOT_FOUND,
        METHOD_NOT_ALLOWED,
        TIMED_OUT,
        TOO_LARGE,
        RATE_LIMITED,
        INTERNAL,
        OVERLOADED,
    )
}


def told(error: ProxyError) -> ChatError:
    """The same failure, with the same status, for clients of the LLM APIs."""
    problem = _BY_STATUS.get(error.status)
    if problem is None:
        word = "api_error" if error.status >= 500 else "invalid_request_error"
        problem = ChatProblem(error.status, error.kind.type, word)
    return ChatError(problem, error.message, retry_after=error.retry_after)
