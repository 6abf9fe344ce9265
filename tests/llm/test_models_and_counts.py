"""Lists of models and counts of tokens, with both libraries: what is asked about beside completions."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.llm.kinds import ALIAS, Kind

pytestmark = pytest.mark.anyio

EXTERNAL = "mcp-external-sampling"
HELLO: Any = [{"role": "user", "content": "hello"}]


async def test_openais_client_lists_the_models(kind: Kind) -> None:
    models = [model async for model in kind.clients.openai.models.list()]
    assert ALIAS in [model.id for model in models]
    for model in models:
        assert (model.object, type(model.created)) == ("model", int)
        assert model.owned_by


async def test_anthropics_client_lists_the_models_to_the_last_page(kind: Kind) -> None:
    models = [model async for model in kind.clients.anthropic.models.list()]
    assert ALIAS in [model.id for model in models]
    for model in models:
        assert model.type == "model"
        assert model.display_name
        assert model.created_at.tzinfo is not None


async def test_both_clients_list_the_same(kind: Kind) -> None:
    ones = [model.id async for model in kind.clients.openai.models.list()]
    others = [model.id async for model in kind.clients.anthropic.models.list()]
    assert ones == others


async def test_each_model_of_the_list_can_be_looked_at(kind: Kind) -> None:
    for model in (await kind.clients.openai.models.list()).data:
        assert await kind.clients.openai.models.retrieve(model.id) == model
    for other in (await kind.clients.anthropic.models.list()).data:
        assert (await kind.clients.anthropic.models.retrieve(other.id)).id == other.id


async def test_the_list_says_whether_somebody_could_answer_and_how_many_there_are(kind: Kind) -> None:
    answer = await kind.clients.openai.models.with_raw_response.list()
    assert answer.headers["x-mcp-bridge"] == "hook"
    assert answer.headers["x-mcp-session-ready"] == "true"
    assert answer.headers["x-mcp-models-count"] == str(len(answer.parse().data))


async def test_a_model_that_there_is_not_is_not_found(kind: Kind) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await kind.clients.openai.models.retrieve("gone")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(anthropic.NotFoundError) as other:
        await kind.clients.anthropic.models.retrieve("gone")
    assert other.value.type == "not_found_error"
    assert other.value.request_id


async def test_a_token_for_some_models_sees_these(kind: Kind) -> None:
    clients = kind.clients_of(models=["f*"])
    assert [model.id async for model in clients.openai.models.list()] == [ALIAS]
    clients = kind.clients_of(models=["x*"])
    assert [model.id async for model in clients.anthropic.models.list()] == []
    with pytest.raises(openai.NotFoundError):
        await clients.openai.models.retrieve(ALIAS)


@pytest.mark.parametrize("model", [ALIAS], ids=str)
async def test_tokens_are_counted_without_asking_the_model(kind: Kind, model: str) -> None:
    counted = await kind.clients.anthropic.messages.count_tokens(model=model, messages=HELLO)
    assert counted.input_tokens > 0
    assert not kind.brain.asked


async def test_more_of_anything_is_more_tokens(kind: Kind) -> None:
    tool: Any = {"name": "weather", "description": "what it is like", "input_schema": {"type": "object"}}
    picture: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    count = kind.clients.anthropic.messages.count_tokens
    asked: list[dict[str, Any]] = [
        {"messages": HELLO},
        {"messages": [*HELLO, {"role": "assistant", "content": "hi there"}, *HELLO]},
        {"messages": [{"role": "user", "content": "hello " * 100}]},
        {"messages": [{"role": "user", "content": "hello " * 100}], "system": "You are a sailor."},
        {"messages": [{"role": "user", "content": "hello " * 100}], "system": "You are a sailor.", "tools": [tool]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello " * 100}, picture]}]},
    ]
    counts = [(await count(model=ALIAS, **one)).input_tokens for one in asked]
    assert counts == sorted(set(counts))


async def test_the_count_of_the_beta_is_the_same(kind: Kind) -> None:
    one = await kind.clients.anthropic.messages.count_tokens(model=ALIAS, messages=HELLO)
    other = await kind.clients.anthropic.beta.messages.count_tokens(model=ALIAS, messages=HELLO)
    assert one.input_tokens == other.input_tokens


async def test_a_count_of_what_is_no_request_is_refused(kind: Kind) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        await kind.clients.anthropic.messages.count_tokens(model=ALIAS, messages=[])
    assert caught.value.type == "invalid_request_error"


async def test_a_count_needs_the_right_to_ask(kind: Kind) -> None:
    clients = kind.clients_of(scope="tools:read")
    with pytest.raises(anthropic.PermissionDeniedError):
        await clients.anthropic.messages.count_tokens(model=ALIAS, messages=HELLO)


async def test_connected_clients_choose_their_model_where_none_is_named(kind: Kind) -> None:
    for model in ("auto", EXTERNAL, ""):
        kind.brain.forget()
        answer = await kind.clients.openai.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "say: mine"}]
        )
        assert answer.choices[0].message.content == "mine"
        assert kind.brain.only.model == ""


async def test_any_other_name_is_a_hint_to_connected_clients(kind: Kind) -> None:
    answer = await kind.clients.openai.chat.completions.create(
        model="gpt-9", messages=[{"role": "user", "content": "say: as you like"}]
    )
    assert answer.model == "brain-1"
    assert kind.brain.only.model == "gpt-9"


async def test_a_model_of_a_provider_can_be_named_with_it(kind: Kind) -> None:
    answer = await kind.clients.openai.chat.completions.create(
        model="work/other-model", messages=[{"role": "user", "content": "say: as you like"}]
    )
    assert answer.choices[0].message.content == "as you like"
    assert kind.brain.only.model == "other-model"
