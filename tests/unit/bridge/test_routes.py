from __future__ import annotations

import pytest

from mcp_proxy.bridge.errors import MODEL_NOT_FOUND, ChatError
from mcp_proxy.bridge.routes import EXTERNAL, SAMPLING, Routes, Step, parse_step

ALIASES = {"fast": [Step("work", "gpt-x-mini"), Step(SAMPLING, "")]}


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("work/gpt-x", Step("work", "gpt-x")),
        ("work/org/model", Step("work", "org/model")),
        ("sampling", Step(SAMPLING, "")),
        ("sampling/claude", Step(SAMPLING, "claude")),
    ],
)
def test_a_step_names_a_source_and_perhaps_a_model(text: str, step: Step) -> None:
    assert parse_step(text) == step


def test_an_alias_leads_to_its_steps_in_order() -> None:
    assert Routes(ALIASES, ["work"]).of("fast") == tuple(ALIASES["fast"])


@pytest.mark.parametrize("name", ["work/gpt-x", "work/org/model"])
def test_a_provider_in_front_leads_there_and_nowhere_else(name: str) -> None:
    assert Routes({}, ["work"]).of(name) == (Step("work", name.removeprefix("work/")),)


@pytest.mark.parametrize("name", ["", "auto", EXTERNAL])
def test_any_model_is_left_to_the_connected_client(name: str) -> None:
    assert Routes({}, []).of(name) == (Step(SAMPLING, ""),)


@pytest.mark.parametrize("name", ["gpt-5", "other/model", "work/"])
def test_another_name_is_a_hint_for_the_connected_client(name: str) -> None:
    assert Routes({}, ["work"]).of(name) == (Step(SAMPLING, name),)


@pytest.mark.parametrize("name", ["", "auto", "gpt-5", "other/model"])
def test_where_no_client_may_answer_an_unknown_name_is_not_found(name: str) -> None:
    with pytest.raises(ChatError) as raised:
        Routes(ALIASES, ["work"], sampling=False).of(name)
    assert (raised.value.problem, raised.value.param) == (MODEL_NOT_FOUND, "model")


@pytest.mark.parametrize(
    ("name", "known"),
    [("fast", True), ("work/gpt-x", True), (EXTERNAL, True), ("auto", False), ("", False), ("other/model", False)],
)
def test_a_name_of_ours_is_told_from_one_that_a_client_may_know(name: str, known: bool) -> None:
    assert Routes(ALIASES, ["work"]).knows(name) is known


def test_the_models_that_are_listed() -> None:
    assert Routes(ALIASES, ["work"]).names == ("fast", EXTERNAL)
    assert Routes(ALIASES, ["work"], sampling=False).names == ("fast",)
