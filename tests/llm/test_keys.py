"""Where clients put their key: wherever the official libraries and older tools do, the token is found."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.harness import make_token
from tests.llm.callers import APIS, create, text_of
from tests.llm.kinds import ALIAS, Kind, clients_at, opened

pytestmark = pytest.mark.anyio

BODY = {"model": ALIAS, "max_tokens": 100, "messages": [{"role": "user", "content": "say: known"}]}
PLACES = {
    "Authorization": lambda token: {"Authorization": f"Bearer {token}"},
    "x-api-key": lambda token: {"x-api-key": token},
    "api-key": lambda token: {"api-key": token},
    "the same in two places": lambda token: {"Authorization": f"Bearer {token}", "x-api-key": token},
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("place", PLACES)
async def test_the_key_is_found_in(kind: Kind, place: str, path: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(kind.house.base + path, headers=PLACES[place](make_token()), json=BODY)
    assert answer.status_code == 200
    assert "known" in answer.text


async def test_two_keys_are_one_too_many(kind: Kind) -> None:
    headers = {"Authorization": f"Bearer {make_token()}", "x-api-key": make_token(sub="another")}
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{kind.house.base}/v1/messages", headers=headers, json=BODY)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_key_in_the_address_is_none(kind: Kind) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{kind.house.base}/v1/chat/completions?token={make_token()}", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_anthropics_client_may_send_its_token_as_such(kind: Kind) -> None:
    async with anthropic.AsyncAnthropic(auth_token=make_token(), api_key=None, base_url=kind.house.base) as client:
        answer: Any = await client.messages.create(**BODY)  # type: ignore[call-overload]
    assert answer.content[0].text == "known"


async def test_anthropics_client_may_speak_an_older_version(kind: Kind) -> None:
    token = make_token()
    headers = {"x-api-key": token, "anthropic-version": "2023-06-01"}
    async with anthropic.AsyncAnthropic(api_key=token, base_url=kind.house.base, default_headers=headers) as client:
        answer: Any = await client.messages.create(**BODY)  # type: ignore[call-overload]
    assert answer.content[0].text == "known"


async def test_openais_client_may_name_its_organisation_and_project(kind: Kind) -> None:
    async with openai.AsyncOpenAI(
        api_key=make_token(), base_url=f"{kind.house.base}/v1", organization="org", project="proj"
    ) as client:
        answer: Any = await client.chat.completions.create(**BODY)  # type: ignore[call-overload]
    assert answer.choices[0].message.content == "known"


async def test_the_clients_that_block_are_answered_too(kind: Kind) -> None:
    def ask() -> list[str]:
        token, base = make_token(), kind.house.base
        with openai.OpenAI(api_key=token, base_url=f"{base}/v1") as one:
            chat: Any = one.chat.completions.create(**BODY)
            chunks: Any = one.chat.completions.create(**BODY, stream=True)
            words = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            response = one.responses.create(model=ALIAS, input="say: known")
        with anthropic.Anthropic(api_key=token, base_url=base) as other:
            message: Any = other.messages.create(**BODY)  # type: ignore[call-overload]
            with other.messages.stream(**BODY) as stream:  # type: ignore[arg-type]
                text = stream.get_final_text()
        return [chat.choices[0].message.content, words, response.output_text, message.content[0].text, text]

    assert await asyncio.to_thread(ask) == ["known"] * 5


@pytest.mark.parametrize("api", APIS)
async def test_without_authorisation_any_key_is_taken(api: str) -> None:
    async with opened("openai", no_auth=True, jwt_secret=None) as kind, clients_at(kind.house.base, "none") as clients:
        assert text_of(api, await create(clients, api, "say: anyone")) == "anyone"
