"""What goes wrong is told as each library's own exception, with a code and a request id, and is paid for once at most.

The clients here retry as they do by default, unless a case is about a status that is to be tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import anthropic
import httpx2
import openai
import pytest

from tests.harness import eventually, make_token
from tests.llm.callers import APIS, create
from tests.llm.kinds import ALIAS, KINDS, LANES, PATIENCE, Clients, Kind, opened
from tests.llm.sampling import SamplingClient, offered

pytestmark = pytest.mark.anyio

SHARE = 200
"""How many questions of one caller may wait."""
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
API = pytest.mark.parametrize("api", APIS)


async def failure(clients: Clients, api: str, text: str, **more: Any) -> Any:
    """The exception that a question ends with; a stream is read to its end."""
    with pytest.raises((openai.APIError, anthropic.APIError)) as caught:
        await read(clients, api, text, [], **more)
    return caught.value


async def read(clients: Clients, api: str, text: str, seen: list[Any], **more: Any) -> None:
    """Ask; what a stream brings is added to ``seen`` as it comes."""
    answer = await create(clients, api, text, **more)
    if more.get("stream"):
        async for event in answer:
            seen.append(event)


def check(error: Any, status: int, code: str, kind: str, *classes: type[Exception]) -> None:
    """Class, status and code; ``kind`` is the word that Anthropic's API has for it. All tell a request id and a reason."""
    assert isinstance(error, classes), repr(error)
    assert error.status_code == status
    assert error.request_id == error.response.headers["x-request-id"] == error.response.headers["request-id"]
    if isinstance(error, openai.APIStatusError):
        assert (error.code, bool(error.message), bool(error.type)) == (code, True, True)
        assert error.message != f"Error code: {status}"
    else:
        assert error.type == kind
        assert error.api_message
        assert error.body["request_id"] == error.request_id


def retries(error: Any) -> str | None:
    found: str | None = error.response.headers.get("x-should-retry")
    return found


@pytest.fixture(scope="module")
async def hasty(source: Kind) -> AsyncIterator[Kind]:
    """A service of the same kind that waits for a model for a second, and takes small bodies only."""
    async with opened(source.name, llm_timeout=1.0, llm_max_body=20_000) as kind:
        await create(kind.clients, "chat", "say: ready")  # the first question may have to wait for a lane
        yield kind


# The model's side


@STREAMED
@API
async def test_a_model_that_fails_is_asked_once_and_its_failure_told(kind: Kind, api: str, stream: bool) -> None:
    error = await failure(kind.clients, api, "fail: out of order", stream=stream)
    check(error, 502, "source_error", "api_error", openai.InternalServerError, anthropic.InternalServerError)
    assert "out of order" in str(error)
    assert retries(error) == "false"
    assert len(kind.brain.asked) == 1


@STREAMED
@API
async def test_a_person_who_says_no_is_asked_once(kind: Kind, api: str, stream: bool) -> None:
    error = await failure(kind.clients, api, "reject", stream=stream)
    check(
        error,
        403,
        "sampling_rejected",
        "permission_error",
        openai.PermissionDeniedError,
        anthropic.PermissionDeniedError,
    )
    assert len(kind.brain.asked) == 1


@API
async def test_a_client_goes_on_answering_after_it_has_refused(kind: Kind, api: str) -> None:
    await failure(kind.clients, api, "fail")
    answers = await asyncio.gather(*(create(kind.clients, api, f"say: {n}") for n in range(4)))
    assert len(answers) == 4


@STREAMED
@API
async def test_a_provider_that_refuses_a_request_is_quoted(kind: Kind, api: str, stream: bool) -> None:
    error = await failure(kind.clients, api, "reject", stream=stream)
    check(error, 400, "invalid_request", "invalid_request_error", openai.BadRequestError, anthropic.BadRequestError)
    assert "the user does not want that" in str(error)
    assert len(kind.brain.asked) == 1


@API
async def test_a_provider_that_has_too_much_to_do_is_tried_again_when_it_says(kind: Kind, api: str) -> None:
    clients = kind.clients_of(max_retries=0)
    error = await failure(clients, api, "busy 7")
    check(error, 429, "rate_limit_exceeded", "rate_limit_error", openai.RateLimitError, anthropic.RateLimitError)
    assert error.response.headers["retry-after"] == "7"
    assert retries(error) is None


@API
async def test_a_provider_that_breaks_off_is_an_error_and_no_short_answer(kind: Kind, api: str) -> None:
    error = await failure(kind.clients, api, "say: half a\nbreak off")
    check(error, 502, "source_error", "api_error", openai.InternalServerError, anthropic.InternalServerError)
    assert len(kind.brain.asked) == 1


@API
async def test_a_provider_that_breaks_off_ends_a_stream_with_an_error(kind: Kind, api: str) -> None:
    seen: list[Any] = []
    with pytest.raises((openai.APIError, anthropic.APIError)) as caught:
        await read(kind.clients, api, "say: half a\nbreak off", seen, stream=True)
    assert "half" in "".join(map(str, seen))
    assert "work" in str(caught.value)


async def test_a_failure_after_a_stream_has_begun_is_an_error_in_it() -> None:
    text = "slow 2.2\nfail: out of order"
    async with AsyncExitStack() as stack:
        # All at the same time: each takes as long as the status of a stream is held back.
        kinds = [await stack.enter_async_context(opened(name)) for name in KINDS if name != "modern"]
        asked = [failure(kind.clients, api, text, stream=True) for kind in kinds for api in APIS]
        assert all("out of order" in str(error) for error in await asyncio.gather(*asked))
        assert [len(kind.brain.asked) for kind in kinds] == [len(APIS)] * len(kinds)


@STREAMED
@API
async def test_a_key_that_the_provider_does_not_know_is_nobody_elses_matter(
    source: Kind, api: str, stream: bool, locked: Kind
) -> None:
    error = await failure(locked.clients, api, "say: never", stream=stream)
    check(error, 502, "source_error", "api_error", openai.InternalServerError, anthropic.InternalServerError)
    assert "the configured one" not in str(error)
    assert "the-wrong-key" not in str(error)


@pytest.fixture(scope="module")
async def locked(source: Kind) -> AsyncIterator[Kind]:
    """A service with a wrong key for its provider."""
    async with opened(source.name, key="the-wrong-key") as kind:
        yield kind


@STREAMED
@API
async def test_a_model_that_does_not_answer_in_time_is_asked_once(hasty: Kind, api: str, stream: bool) -> None:
    hasty.brain.forget()
    error = await failure(hasty.clients, api, "wait", stream=stream)
    check(error, 504, "no_answer", "timeout_error", openai.InternalServerError, anthropic.GatewayTimeoutError)
    assert retries(error) == "false"
    assert len(hasty.brain.asked) == 1
    hasty.brain.let_go()
    await hasty.brain.is_idle()


# Who asks


@API
async def test_a_key_that_is_no_token_is_an_authentication_error(kind: Kind, api: str) -> None:
    clients = kind.clients_of("sk-nobody-knows")
    error = await failure(clients, api, "say: never")
    check(
        error, 401, "invalid_api_key", "authentication_error", openai.AuthenticationError, anthropic.AuthenticationError
    )
    assert not kind.brain.asked


@API
async def test_a_token_that_has_expired_is_an_authentication_error(kind: Kind, api: str) -> None:
    clients = kind.clients_of(make_token(ttl=-100))
    error = await failure(clients, api, "say: never")
    check(
        error, 401, "invalid_api_key", "authentication_error", openai.AuthenticationError, anthropic.AuthenticationError
    )


@STREAMED
@API
async def test_a_token_without_the_right_is_told_which_it_lacks(kind: Kind, api: str, stream: bool) -> None:
    clients = kind.clients_of(scope="tools:read tools:call llm:serve")
    error = await failure(clients, api, "say: never", stream=stream)
    check(
        error,
        403,
        "permission_denied",
        "permission_error",
        openai.PermissionDeniedError,
        anthropic.PermissionDeniedError,
    )
    assert "llm:call" in str(error)
    assert not kind.brain.asked


@API
async def test_a_model_that_the_token_may_not_use_is_not_found(kind: Kind, api: str) -> None:
    clients = kind.clients_of(models=["other-*"])
    error = await failure(clients, api, "say: never")
    check(error, 404, "model_not_found", "not_found_error", openai.NotFoundError, anthropic.NotFoundError)
    assert isinstance(error, anthropic.NotFoundError) or error.param == "model"
    assert not kind.brain.asked


# What is asked for


async def test_an_api_that_is_not_there_is_not_found_in_the_words_of_the_caller(kind: Kind) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await kind.clients.openai.embeddings.create(model=ALIAS, input="x")
    assert caught.value.code == "not_found"
    assert "/v1/embeddings" in caught.value.message
    with pytest.raises(anthropic.NotFoundError) as other:
        await kind.clients.anthropic.messages.batches.list()
    assert other.value.type == "not_found_error"


@pytest.mark.parametrize("path", ["/chat/completions", "/responses", "/messages", "/messages/count_tokens"])
async def test_what_can_only_be_posted_cannot_be_had(kind: Kind, path: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await kind.clients.openai.get(path, cast_to=object)
    assert caught.value.status_code == 405


@API
async def test_a_body_that_is_too_large_is_told_so(hasty: Kind, api: str) -> None:
    hasty.brain.forget()
    error = await failure(hasty.clients, api, "say: " + "x" * 30_000)
    check(error, 413, "request_too_large", "request_too_large", openai.APIStatusError, anthropic.ContentTooLargeError)
    assert not hasty.brain.asked


@API
async def test_where_nobody_could_answer_the_service_is_unavailable(nobody: Clients, api: str) -> None:
    error = await failure(nobody, api, "say: never")
    check(
        error, 503, "hook_not_ready", "overloaded_error", openai.InternalServerError, anthropic.ServiceUnavailableError
    )
    assert int(error.response.headers["retry-after"]) > 0
    assert retries(error) != "false"


@pytest.fixture(scope="module")
async def nobody() -> AsyncIterator[Clients]:
    """The clients of a service without any source."""
    async with opened("nobody", llm=True) as kind:
        yield kind.clients_of(max_retries=0)


async def test_a_client_that_comes_in_time_for_the_retry_answers() -> None:
    async with opened("nobody", llm=True) as kind, asyncio.TaskGroup() as group:
        asked = [group.create_task(create(kind.clients, api, "say: in time")) for api in APIS]
        refused = '"status_code":503'
        await eventually(lambda: kind.house.inside.log.count(refused) == len(APIS), what="all have been refused")
        async with offered([SamplingClient(kind.brain, kind.house.base, "legacy")]):
            await asyncio.wait_for(asyncio.gather(*asked), PATIENCE)
        assert kind.brain.answered == len(APIS)


@pytest.mark.parametrize("era", LANES)
@API
async def test_tools_are_refused_where_no_client_can_be_given_any(
    toolless: dict[str, Kind], era: str, api: str
) -> None:
    kind = toolless[era]
    schema = {"type": "object"}
    function = {"name": "go", "parameters": schema}
    tools: list[dict[str, Any]] = {
        "chat": [{"type": "function", "function": function}],
        "responses": [{"type": "function", **function, "strict": False}],
        "messages": [{"name": "go", "input_schema": schema}],
    }[api]
    error = await failure(kind.clients, api, "call go", tools=tools)
    check(error, 400, "tools_not_supported", "invalid_request_error", openai.BadRequestError, anthropic.BadRequestError)
    await create(kind.clients, api, "say: without")
    assert kind.brain.last.turns[-1].text == "say: without"


@pytest.fixture(scope="module")
async def toolless() -> AsyncIterator[dict[str, Kind]]:
    """Services whose one client has not declared that its model can be given tools."""
    async with AsyncExitStack() as stack:
        found = {}
        for era in LANES:
            kind = await stack.enter_async_context(opened("nobody", llm=True))
            client = SamplingClient(kind.brain, kind.house.base, era, tools=False)
            await stack.enter_async_context(offered([client]))
            await eventually(kind.is_ready, what="the client has called hook")
            found[era] = kind
        yield found


async def test_more_than_may_wait_is_refused_at_once_and_nothing_else_is_lost() -> None:
    async with opened("modern") as kind, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        too_many = 10
        most = LANES["modern"] + SHARE + too_many
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(_posted(http, kind)) for _ in range(most)]
            await eventually(lambda: sum(task.done() for task in asked) == too_many, what="the rest is refused")
            clients = kind.clients_of(max_retries=0)
            for api in APIS:
                error = await failure(clients, api, "say: one more")
                check(error, 429, "queue_full", "rate_limit_error", openai.RateLimitError, anthropic.RateLimitError)
                assert int(error.response.headers["retry-after"]) > 0
            kind.brain.let_go()
        assert sorted(task.result() for task in asked) == [200] * (most - too_many) + [429] * too_many
        assert kind.brain.answered == most - too_many


async def _posted(http: aiohttp.ClientSession, kind: Kind) -> int:
    body = {"model": ALIAS, "messages": [{"role": "user", "content": "wait\nsay: at last"}]}
    headers = {"Authorization": f"Bearer {make_token()}"}
    async with http.post(f"{kind.house.base}/v1/chat/completions", json=body, headers=headers) as answer:
        return answer.status


async def test_a_connection_without_a_body_is_not_waited_for(kind: Kind) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(
            f"{kind.house.base}/v1/chat/completions", headers={"Authorization": f"Bearer {make_token()}"}
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
