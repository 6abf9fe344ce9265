"""Limits that a token claims, as the official clients meet them: their own exceptions, headers, and waits."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import anthropic
import openai
import pytest

from tests.llm.callers import APIS, create, raw
from tests.llm.kinds import Clients, Kind
from tests.llm.test_failures import check, failure

pytestmark = pytest.mark.anyio

API = pytest.mark.parametrize("api", APIS)
_numbers = itertools.count()


def limited(kind: Kind, **claims: Any) -> Clients:
    """The clients of a caller that nobody has seen before, without retries."""
    return kind.clients_of(max_retries=0, sub=f"limited-{next(_numbers)}", **claims)


@API
async def test_more_requests_than_a_minute_may_have_are_to_be_tried_later(kind: Kind, api: str) -> None:
    clients = limited(kind, rpm=1)
    await create(clients, api, "say: the one")
    error = await failure(clients, api, "say: never")
    check(error, 429, "rate_limit_exceeded", "rate_limit_error", openai.RateLimitError, anthropic.RateLimitError)
    assert 0 < int(error.response.headers["retry-after"]) <= 60
    assert len(kind.brain.asked) == 1


@API
async def test_what_is_left_of_a_minute_is_told_in_the_headers_of_the_api(kind: Kind, api: str) -> None:
    clients = limited(kind, rpm=5, tpm=100_000)
    _, headers = await raw(clients, api, "say: hello")
    prefix, suffix = ("anthropic-ratelimit-requests-", "") if api == "messages" else ("x-ratelimit-", "-requests")
    assert headers[f"{prefix}limit{suffix}"] == "5"
    assert headers[f"{prefix}remaining{suffix}"] == "4"
    assert headers[f"{prefix}reset{suffix}"]


@API
async def test_more_tokens_than_a_minute_may_have_are_refused(kind: Kind, api: str) -> None:
    clients = limited(kind, tpm=50)
    error = await failure(clients, api, "say: " + "x" * 2000)
    assert isinstance(error, (openai.RateLimitError, anthropic.RateLimitError)), repr(error)
    assert not kind.brain.asked


@API
async def test_a_budget_that_is_spent_is_a_matter_of_payment(kind: Kind, api: str) -> None:
    clients = limited(kind, budget_tokens=20_000)
    await create(clients, api, "say: dear\nusage 15000 9000")
    error = await failure(clients, api, "say: never")
    check(error, 402, "insufficient_quota", "billing_error", openai.APIStatusError, anthropic.PaymentRequiredError)
    assert len(kind.brain.asked) == 1


@API
async def test_an_answer_gets_no_more_tokens_than_the_token_claims(kind: Kind, api: str) -> None:
    clients = limited(kind, max_tokens=64)
    await create(clients, api, "say: short")
    assert kind.brain.only.max_tokens == 64


@API
async def test_no_more_questions_at_once_than_the_token_claims(kind: Kind, api: str) -> None:
    clients = limited(kind, max_parallel=1)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(create(clients, api, "wait"))
        await kind.brain.is_at_work_on(1)
        error = await failure(clients, api, "say: never")
        kind.brain.let_go()
    assert isinstance(error, (openai.RateLimitError, anthropic.RateLimitError)), repr(error)
    assert first.result().id
    await create(clients, api, "say: now")
    assert len(kind.brain.asked) == 2


@API
async def test_without_limits_none_are_told(kind: Kind, api: str) -> None:
    _, headers = await raw(kind.clients, api, "say: hello")
    assert not [name for name in headers if "ratelimit" in name]
