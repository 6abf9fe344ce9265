"""What a kind of source cannot do by its nature, case by case, with the reason. Nothing else is left out.

What happens instead is tested in `test_what_sources_cannot_do`, for every entry that is not simply without meaning.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Exception_:
    """``case`` is a test, or one row of its table: ``test[row]``. ``api``: with this API alone."""

    kind: str
    case: str
    reason: str
    api: str | None = None


_BARRIER = "a modern client's refusal ends its own call and is told to nobody: the service waits until time runs out"
_NO_RECALL = "a modern client cannot be told that its answer is no longer wanted: no request is there to be cancelled"
_ONE_EACH = "a modern lane has one question at a time: the answer to the client's own call"
_NOBODY = "nobody sits before a provider who could say no"
_NOT_QUOTED = "a client that refuses says so in the words of MCP, which has none for a request that is not acceptable"
_NOT_BUSY = "clients have no word for too much to do: they refuse, or let it wait"
_WHOLE = "sampling knows no stream: an answer comes whole or not at all"
_NO_KEY = "a connected client needs no key"
_ONE_WORD = "chat completions have one reason, stop, for an answer that is complete and for one that met a stop text"
_NO_FAILURE = "chat completions have no word for a tool that failed: what it said arrives as what it said"
_NO_AUDIO = "Anthropic's messages take no audio"
_COLDER = "Anthropic's temperatures end at 1, OpenAI's at 2: a higher one is 1 there"
_OWN_FORM = "a provider holds its model to the form itself, and its answer is passed on as it comes"
_CONNECTED = "a provider's models have names; only connected clients choose for themselves"
_SPOKEN = "a provider that speaks the client's API is asked as the client asks: it may understand what we do not"
_HEEDS = "a provider that speaks the client's API heeds stop texts itself"
_VERBATIM = "a provider that speaks the client's API is quoted: nothing is added to what it says"
_REMEMBERS = "a provider that speaks the client's API keeps what it is asked to keep"
_NO_PROVIDER = "a connected client's model has no provider before its name"

# What cannot be understood here, API by API; rows of `test_what_requests_may_not_say.REFUSED`.
UNREAD = {
    "openai": (
        "chat: several answers",
        "chat: probabilities",
        "chat: an answer that is heard",
        "chat: functions of old",
        "chat: a search at the provider",
        "chat: a result of a function of old",
        "chat: a picture that would have to be fetched",
        "chat: a file",
        "chat: a tool of another kind",
        "chat: a format that there is not",
    ),
    "anthropic": (
        "messages: a picture that would have to be fetched",
        "messages: a document that cannot be read",
        "messages: citations",
        "messages: a tool of the provider's",
        "messages: servers of the caller's",
        "messages: a format that there is not",
        "messages: a conversation that is kept",
    ),
}
_STOPS = (
    "an answer ends before a stop text that the model does not heed",
    "the first of several stop texts counts",
    "a stop text within one word counts",
)
LANES = ("legacy", "modern")
PROVIDERS = ("openai", "anthropic")


def _of(kinds: tuple[str, ...], reason: str, *cases: str) -> tuple[Exception_, ...]:
    return tuple(Exception_(kind, case, reason) for kind in kinds for case in cases)


EXCEPTIONS: tuple[Exception_, ...] = (
    *_of(
        ("modern",),
        _BARRIER,
        "test_a_model_that_fails_is_asked_once_and_its_failure_told",
        "test_a_person_who_says_no_is_asked_once",
        "test_a_client_goes_on_answering_after_it_has_refused",
    ),
    *_of(
        ("modern",),
        _NO_RECALL,
        "test_a_caller_who_leaves_takes_the_question_back",
        "test_one_who_leaves_takes_nothing_from_the_others",
        "test_the_model_is_told_of_everyone_who_left_or_waited_too_long",
    ),
    *_of(("modern",), _ONE_EACH, "test_thirty_two_questions_are_worked_on_at_once"),
    *_of(PROVIDERS, _NOBODY, "test_a_person_who_says_no_is_asked_once"),
    *_of(LANES, _NOT_QUOTED, "test_a_provider_that_refuses_a_request_is_quoted"),
    *_of(LANES, _NOT_BUSY, "test_a_provider_that_has_too_much_to_do_is_tried_again_when_it_says"),
    *_of(
        LANES,
        _WHOLE,
        "test_a_provider_that_breaks_off_is_an_error_and_no_short_answer",
        "test_a_provider_that_breaks_off_ends_a_stream_with_an_error",
        "test_a_stream_that_is_closed_midway_ends_the_providers_too",
        "test_a_stream_helper_that_is_left_midway_ends_the_providers_too",
        "test_words_come_as_a_provider_says_them",
    ),
    *_of(LANES, _NO_KEY, "test_a_key_that_the_provider_does_not_know_is_nobody_elses_matter"),
    *_of(("openai",), _ONE_WORD, "test_conversation[a model that heeds a stop text is believed]"),
    *_of(("openai",), _NO_FAILURE, "test_accepted[messages: a tool that failed has failed]"),
    *_of(("anthropic",), _NO_AUDIO, "test_accepted[chat: a recording is heard]"),
    *_of(("anthropic",), _COLDER, "test_accepted[responses: the temperature counts]"),
    *(Exception_("openai", f"test_conversation[{row}]", _HEEDS, "chat") for row in _STOPS),
    *(Exception_("anthropic", f"test_conversation[{row}]", _HEEDS, "messages") for row in _STOPS),
    *_of(("openai",), _VERBATIM, "test_a_chat_completion_has_its_text_in_one_place_more"),
    *_of(("anthropic",), _REMEMBERS, "test_a_thread_that_has_to_be_kept_is_refused_and_not_forgotten"),
    *_of(
        PROVIDERS,
        _OWN_FORM,
        "test_the_fence_around_an_answer_is_taken_off",
        "test_an_answer_in_another_form_is_asked_for_again",
        "test_an_answer_that_stays_in_another_form_is_an_error_and_no_answer",
        "test_an_answer_that_breaks_a_rule_of_the_schema_is_asked_for_again",
    ),
    *_of(
        PROVIDERS,
        _CONNECTED,
        "test_connected_clients_choose_their_model_where_none_is_named",
        "test_any_other_name_is_a_hint_to_connected_clients",
    ),
    *(Exception_(kind, f"test_refused[{row}]", _SPOKEN) for kind in PROVIDERS for row in UNREAD[kind]),
    *_of(LANES, _NO_PROVIDER, "test_a_model_of_a_provider_can_be_named_with_it"),
)


def is_declared(kind: str, cases: Container[str | None], apis: Container[str | None]) -> bool:
    """Whether the kind cannot have one of these cases, with one of these APIs."""
    return any(one.kind == kind and one.case in cases and (one.api is None or one.api in apis) for one in EXCEPTIONS)


def is_exception(item: pytest.Item) -> bool:
    """Whether the item is declared. A case of the npm clients is what it is ``like``."""
    callspec: Any = getattr(item, "callspec", None)
    params = {} if callspec is None else callspec.params
    kind = params.get("source", params.get("run"))
    if kind is None:
        return False
    name = getattr(item, "originalname", item.name)
    case = params.get("case")
    cases = {name, *(f"{name}[{value}]" for value in params.values()), getattr(case, "like", None)}
    return is_declared(
        kind, cases, {params.get("api"), *(getattr(one, "api", None) for one in (params.get("way"), case))}
    )
