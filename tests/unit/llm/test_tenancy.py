from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.bridge.chat import ChatRequest, Message, Role, Text, Usage, question_tokens
from mcp_proxy.bridge.errors import (
    BUDGET_SPENT,
    NO_ANSWER,
    NOT_READY,
    OVERLOADED,
    QUEUE_FULL,
    RATE_LIMITED,
    SOURCE_ERROR,
    ChatError,
    ChatProblem,
)
from mcp_proxy.config.budget_file import BudgetFile
from mcp_proxy.core.auth.principal import LOCAL, Principal
from mcp_proxy.llm.budgets import Budgets
from mcp_proxy.llm.tenancy import (
    BUDGET_RESERVED,
    GUESS,
    QUESTION_TOO_LARGE,
    SMALL,
    TOO_MANY_PARALLEL,
    Admission,
    Tenancy,
)
from tests.unit.core.fakes import FakeClock, RecordingLog

pytestmark = pytest.mark.anyio
MOST_TOKENS = 8000


def asking(tokens: int, max_tokens: int | None = None) -> ChatRequest:
    """A question that is guessed to be of so many tokens."""
    message = Message(Role.USER, (Text("x" * tokens * 4),))
    ask = ChatRequest("fast", (message,), max_tokens=max_tokens)
    assert question_tokens(ask) == tokens
    return ask


class House:
    """A `Tenancy` with its clock and budgets at hand."""

    def __init__(self, directory: Path, *, most: int = 100, most_budgets: int = 100) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.budgets = Budgets(BudgetFile(directory), clock=self.clock, log=RecordingLog(), most=most_budgets)
        self.tenancy = Tenancy(self.clock, self.budgets, most_tokens=MOST_TOKENS, most=most)

    def admitted(self, caller: Principal, ask: ChatRequest | None = None) -> AbstractAsyncContextManager[Admission]:
        return self.tenancy.admitted(caller, asking(10) if ask is None else ask)

    async def refusal(self, caller: Principal, ask: ChatRequest | None = None) -> ChatError:
        with pytest.raises(ChatError) as raised:
            async with self.admitted(caller, ask):
                pass
        return raised.value

    async def run(self, caller: Principal, ask: ChatRequest | None = None, usage: Usage | None = None) -> None:
        async with self.admitted(caller, ask) as admission:
            admission.settle(usage)

    def left(self, caller: Principal, what: str = "tokens") -> int:
        return int(dict(self.tenancy.headers(caller, "openai"))[f"x-ratelimit-remaining-{what}".encode()])


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# Nothing is limited unless a claim asks


@pytest.mark.parametrize("caller", [Principal("alice"), LOCAL])
async def test_without_claims_nothing_is_limited_or_remembered_or_said(house: House, caller: Principal) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(200):
            ask = asking(100_000, 10**9)
            admission = await stack.enter_async_context(house.admitted(caller, ask))
            assert admission.ask is ask
            assert admission.headers("openai") == admission.headers("anthropic") == []
    assert (len(house.tenancy), len(house.budgets)) == (0, 0)


async def test_a_token_without_the_claim_is_not_limited_by_the_other_token_of_its_subject(house: House) -> None:
    await house.run(Principal("alice", rpm=1))
    await house.run(Principal("alice"))
    await house.run(Principal("alice", tpm=5000))
    assert (await house.refusal(Principal("alice", rpm=1))).problem is RATE_LIMITED


# Completions a minute


async def test_so_many_completions_a_minute_and_then_the_seconds_to_wait(house: House) -> None:
    caller = Principal("alice", rpm=2)
    await house.run(caller)
    house.clock.advance(20)
    await house.run(caller)
    house.clock.advance(5)
    error = await house.refusal(caller)
    assert (error.problem, error.retry_after) == (RATE_LIMITED, 35.0)
    assert "2 completions a minute" in error.message
    house.clock.advance(35)
    await house.run(caller)
    assert (await house.refusal(caller)).retry_after == 20.0


async def test_what_is_refused_does_not_prolong_the_wait(house: House) -> None:
    caller = Principal("alice", rpm=1)
    await house.run(caller)
    for _ in range(59):
        house.clock.advance(1)
        await house.refusal(caller)
    house.clock.advance(1)
    await house.run(caller)


async def test_all_tokens_of_a_subject_are_one_caller_and_those_without_one_are_each_their_own(house: House) -> None:
    await house.run(Principal("alice", rpm=1, token_id="a"))
    await house.refusal(Principal("alice", rpm=1, token_id="b"))
    await house.run(Principal("bob", rpm=1))
    await house.run(Principal("anonymous", rpm=1, owner="anonymous 1"))
    await house.run(Principal("anonymous", rpm=1, owner="anonymous 2"))


# At once


async def test_so_many_at_once_and_one_more_when_one_has_ended(house: House) -> None:
    caller = Principal("alice", max_parallel=2)
    async with house.admitted(caller):
        async with house.admitted(caller):
            error = await house.refusal(caller)
            assert (error.problem, error.retry_after) == (TOO_MANY_PARALLEL, 1.0)
            assert error.problem.status == 429
        async with house.admitted(caller):
            await house.refusal(caller)
    await house.run(caller)


async def test_a_completion_that_fails_makes_room_too(house: House) -> None:
    caller = Principal("alice", max_parallel=1, budget_tokens=100)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with house.admitted(caller):
                raise RuntimeError
    assert house.budgets.spent("sub:alice") == 30
    assert house.budgets.reserved("sub:alice") == 0


# Tokens a minute


async def test_question_and_answer_are_reserved_and_corrected_to_what_they_were(house: House) -> None:
    caller = Principal("alice", tpm=5000)
    async with house.admitted(caller, asking(100, 900)) as admission:
        assert house.left(caller) == 4000
        admission.settle(Usage(120, 80))
        assert house.left(caller) == 4800
        admission.settle(Usage(4000, 4000))
    assert house.left(caller) == 4800
    house.clock.advance(60)
    assert house.left(caller) == 5000


async def test_an_answer_without_a_number_is_guessed(house: House) -> None:
    caller = Principal("alice", tpm=5000)
    async with house.admitted(caller, asking(100)):
        assert house.left(caller) == 5000 - 100 - GUESS


async def test_what_is_not_settled_is_settled_with_the_question(house: House) -> None:
    caller = Principal("alice", tpm=5000)
    async with house.admitted(caller, asking(100)):
        pass
    assert house.left(caller) == 4900
    await house.run(caller, asking(100), None)
    assert house.left(caller) == 4800


async def test_an_answer_that_is_left_counts_as_far_as_it_was_said(house: House) -> None:
    caller = Principal("alice", tpm=5000, budget_tokens=5000)
    async with house.admitted(caller, asking(100)) as admission:
        admission.settle(None, characters=401)
    assert (house.left(caller), house.budgets.spent("sub:alice")) == (4799, 201)


@pytest.mark.parametrize(
    ("problem", "counted"), [(NOT_READY, 0), (QUEUE_FULL, 0), (SOURCE_ERROR, 100), (NO_ANSWER, 100)]
)
async def test_what_fails_before_a_model_was_at_work_spends_nothing(
    house: House, problem: ChatProblem, counted: int
) -> None:
    caller = Principal("alice", rpm=10, tpm=5000, budget_tokens=5000)
    with pytest.raises(ChatError):
        async with house.admitted(caller, asking(100)):
            raise ChatError(problem, "no")
    assert (house.left(caller), house.budgets.spent("sub:alice")) == (5000 - counted, counted)
    assert house.left(caller, "requests") == 9


async def test_more_than_was_reserved_counts_when_it_is_known(house: House) -> None:
    caller = Principal("alice", tpm=5000)
    async with house.admitted(caller, asking(100)) as admission:
        house.clock.advance(300)
        admission.settle(Usage(100, 9000))
    assert house.left(caller) == 0
    error = await house.refusal(caller)
    assert (error.problem, error.retry_after) == (RATE_LIMITED, 60.0)
    assert "5000 tokens a minute" in error.message


async def test_negative_usage_gives_nothing_back(house: House) -> None:
    caller = Principal("alice", tpm=5000, budget_tokens=50)
    await house.run(caller, asking(10), Usage(-(10**9), 20))
    assert house.left(caller) == 4980
    assert house.budgets.spent("sub:alice") == 20


async def test_a_question_larger_than_the_minute_is_told_not_to_come_again(house: House) -> None:
    error = await house.refusal(Principal("alice", tpm=50), asking(51))
    assert error.problem is QUESTION_TOO_LARGE
    assert (error.problem.retry, error.retry_after) == (False, None)
    await house.run(Principal("alice", tpm=50), asking(50))


async def test_a_client_that_names_a_large_number_to_be_safe_need_not_wait_for_an_empty_minute(house: House) -> None:
    caller = Principal("alice", tpm=5000)
    for _ in range(10):
        async with house.admitted(caller, asking(100, 7000)) as admission:
            assert house.left(caller) == 0
            assert admission.ask.max_tokens == 7000
            assert (await house.refusal(caller)).problem is RATE_LIMITED
            admission.settle(Usage(100, 100))
    assert house.left(caller) == 3000


async def test_the_longest_of_the_waits_is_told(house: House) -> None:
    caller = Principal("alice", rpm=1, tpm=3000)
    await house.run(Principal("alice", tpm=3000), asking(2500), Usage(2500, 0))
    house.clock.advance(10)
    await house.run(Principal("alice", rpm=1))
    house.clock.advance(10)
    assert (await house.refusal(caller)).retry_after == 50.0
    assert (await house.refusal(Principal("alice", rpm=9, tpm=3000))).retry_after == 40.0


# Tokens of one answer


@pytest.mark.parametrize(
    ("asked", "claimed", "passed"), [(None, 500, 500), (100, 500, 100), (900, 500, 500), (None, 9000, 9000)]
)
async def test_an_answer_is_no_longer_than_the_claim(
    house: House, asked: int | None, claimed: int, passed: int | None
) -> None:
    async with house.admitted(Principal("alice", max_tokens=claimed), asking(10, asked)) as admission:
        assert admission.ask.max_tokens == passed
    assert len(house.tenancy) == 0


async def test_no_more_is_reserved_than_an_answer_may_take(house: House) -> None:
    caller = Principal("alice", tpm=50_000, max_tokens=300)
    async with house.admitted(caller, asking(100, 9000)):
        assert house.left(caller) == 49_600
    other = Principal("bob", tpm=50_000)
    async with house.admitted(other, asking(100, 10**9)):
        assert house.left(other) == 50_000 - 100 - MOST_TOKENS


# Tokens in all


async def test_a_budget_is_spent_for_good(house: House, tmp_path: Path) -> None:
    caller = Principal("alice", budget_tokens=1000, token_id="t-1", expires=5000.0)
    await house.run(caller, asking(10), Usage(300, 200))
    house.clock.advance(3600)
    await house.run(caller, asking(10), Usage(300, 195))
    error = await house.refusal(caller, asking(5))
    assert error.problem is BUDGET_SPENT
    assert error.retry_after is None
    assert "5 of this token's 1000 tokens are left" in error.message
    await house.run(caller, asking(4), Usage(4, 1))
    assert "budget of 1000 tokens is spent" in (await house.refusal(caller)).message
    await house.budgets.close()
    assert "is spent" in (await House(tmp_path).refusal(caller)).message


async def test_budgets_are_by_token_and_without_an_id_by_subject(house: House) -> None:
    await house.run(Principal("alice", budget_tokens=20, token_id="a"), asking(10), Usage(10, 10))
    await house.run(Principal("alice", budget_tokens=20, token_id="b"), asking(10), Usage(10, 10))
    await house.run(Principal("alice", budget_tokens=20), asking(10), Usage(10, 10))
    await house.run(Principal("a", budget_tokens=20), asking(10), Usage(10, 10))
    assert (await house.refusal(Principal("bob", budget_tokens=20, token_id="a"))).problem is BUDGET_SPENT
    assert (await house.refusal(Principal("alice", budget_tokens=20))).problem is BUDGET_SPENT


async def test_an_answer_takes_no_more_than_is_left_of_the_budget(house: House) -> None:
    caller = Principal("alice", budget_tokens=600)
    for asked in (None, 900):
        async with house.admitted(caller, asking(100, asked)) as admission:
            assert admission.ask.max_tokens == 500
            admission.settle(Usage(0, 0))
    async with house.admitted(caller, asking(100, 50)) as admission:
        assert admission.ask.max_tokens == 50


@pytest.mark.parametrize(("budget", "passed"), [(SMALL + 100, None), (SMALL + 99, SMALL - 1)])
async def test_a_request_without_a_number_gets_none_while_much_is_left(
    house: House, budget: int, passed: int | None
) -> None:
    async with house.admitted(Principal("alice", budget_tokens=budget), asking(100)) as admission:
        assert admission.ask.max_tokens == passed


async def test_while_the_rest_is_set_aside_for_others_a_completion_is_to_come_again(house: House) -> None:
    caller = Principal("alice", budget_tokens=2000)
    async with house.admitted(caller, asking(100, 1500)) as running:
        error = await house.refusal(caller, asking(100, 500))
        assert (error.problem, error.retry_after) == (BUDGET_RESERVED, 1.0)
        running.settle(Usage(100, 100))
        await house.run(caller, asking(100, 500), Usage(100, 500))
    assert house.budgets.spent("sub:alice") == 800


async def test_when_no_more_budgets_can_be_kept_a_new_one_is_refused_and_others_hold(tmp_path: Path) -> None:
    house = House(tmp_path, most_budgets=1)
    known = Principal("alice", budget_tokens=1000)
    await house.run(known)
    assert (await house.refusal(Principal("bob", budget_tokens=1000))).problem is OVERLOADED
    await house.run(known)


async def test_a_token_of_nobody_has_its_budget_until_it_expires(house: House) -> None:
    nobody = Principal("anonymous", budget_tokens=1000, owner="anonymous 1", expires=house.clock.now + 60)
    await house.run(nobody)
    await house.run(Principal("alice", budget_tokens=1000, expires=house.clock.now + 60))
    await house.budgets.close()
    assert {key: one.expires for key, one in BudgetFile(house.directory).load().items()} == {
        "sub:anonymous 1": house.clock.now + 60,
        "sub:alice": None,
    }


# All or nothing, and memory


async def test_what_one_limit_refuses_the_others_do_not_count(house: House) -> None:
    caller = Principal("alice", rpm=5, tpm=5000, max_parallel=1, budget_tokens=9000)
    async with house.admitted(caller, asking(100, 900)):
        before = house.tenancy.headers(caller, "openai"), house.budgets.reserved("sub:alice")
        await house.refusal(caller)
        assert (house.tenancy.headers(caller, "openai"), house.budgets.reserved("sub:alice")) == before


async def test_the_caller_seen_longest_ago_is_forgotten_but_none_whose_completions_run(tmp_path: Path) -> None:
    house = House(tmp_path, most=2)
    running = Principal("running", max_parallel=1)
    async with house.admitted(running):
        for number in range(10):
            await house.run(Principal(f"caller {number}", rpm=1))
        assert len(house.tenancy) == 2
        assert (await house.refusal(running)).problem is TOO_MANY_PARALLEL
    await house.refusal(Principal("caller 9", rpm=1))
    await house.run(Principal("caller 8", rpm=1))


# Headers


async def test_an_admission_and_a_refusal_say_what_is_left(house: House) -> None:
    caller = Principal("alice", rpm=2, tpm=4000)
    async with house.admitted(caller, asking(100, 900)) as admission:
        assert dict(admission.headers("openai")) == {
            b"x-ratelimit-limit-requests": b"2",
            b"x-ratelimit-remaining-requests": b"1",
            b"x-ratelimit-reset-requests": b"1m0s",
            b"x-ratelimit-limit-tokens": b"4000",
            b"x-ratelimit-remaining-tokens": b"3000",
            b"x-ratelimit-reset-tokens": b"1m0s",
        }
    await house.run(caller)
    house.clock.advance(30)
    await house.refusal(caller)
    said = dict(house.tenancy.headers(caller, "anthropic"))
    assert said[b"anthropic-ratelimit-requests-remaining"] == b"0"
    assert said[b"anthropic-ratelimit-requests-reset"] == b"1970-01-01T00:17:40Z"


async def test_a_caller_that_was_never_seen_has_everything(house: House) -> None:
    assert house.left(Principal("alice", rpm=7), "requests") == 7
    assert len(house.tenancy) == 0


# The arithmetic, whatever happens

Step = tuple[str, int, int, int]
Steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "end", "wait"]), st.integers(1, 300), st.integers(1, 1500), st.integers(0, 1500)
    ),
    max_size=40,
)


async def drive(house: House, caller: Principal, steps: list[Step], seen: Callable[[list[Any]], None]) -> list[Any]:
    """Completions begin and end as ``steps`` say; each takes at most what it may. Returns [when, tokens] of each."""
    done: list[Any] = []
    async with AsyncExitStack() as all_of_them:
        running: list[tuple[AsyncExitStack, Admission, int, list[Any]]] = []
        for what, first, second, third in steps:
            if what == "wait":
                house.clock.advance(first / 4)
            elif what == "end" and running:
                stack, admission, question, entry = running.pop(first % len(running))
                answer = min(third, admission.ask.max_tokens or 0)
                admission.settle(Usage(question, answer))
                entry[1] = question + answer
                await stack.aclose()
            elif what == "start":
                stack = await all_of_them.enter_async_context(AsyncExitStack())
                try:
                    ask = asking(first, second)
                    admission = await stack.enter_async_context(house.admitted(caller, ask))
                except ChatError:
                    continue
                done.append([house.clock.now, first])
                running.append((stack, admission, first, done[-1]))
            seen(done)
    return done


@given(steps=Steps, rpm=st.integers(1, 5), tpm=st.integers(2000, 4000), parallel=st.integers(1, 4))
async def test_never_more_than_allowed_is_let_in(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], rpm: int, tpm: int, parallel: int
) -> None:
    house = House(tmp_path_factory.mktemp("state"))
    caller = Principal("alice", rpm=rpm, tpm=tpm, max_parallel=parallel)

    def within(done: list[Any]) -> None:
        latest = [tokens for when, tokens in done if when > house.clock.now - 60]
        assert len(latest) <= rpm
        assert sum(latest) <= tpm
        assert house.left(caller) <= tpm - sum(latest)

    await drive(house, caller, steps, within)


@given(steps=Steps, budget=st.integers(500, 20_000))
async def test_a_budget_is_settled_exactly_and_never_overspent(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], budget: int
) -> None:
    house = House(tmp_path_factory.mktemp("state"))

    def within(done: list[Any]) -> None:
        assert house.budgets.spent("sub:alice") + house.budgets.reserved("sub:alice") <= budget

    done = await drive(house, Principal("alice", budget_tokens=budget), steps, within)
    assert house.budgets.spent("sub:alice") == sum(tokens for _, tokens in done) <= budget
    assert house.budgets.reserved("sub:alice") == 0


@given(steps=Steps)
async def test_what_is_refused_is_let_in_after_the_time_that_was_named(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    house = House(tmp_path_factory.mktemp("state"))
    caller = Principal("alice", rpm=3, tpm=3000)
    await drive(house, caller, steps, lambda _: None)
    while house.left(caller, "requests"):
        house.clock.advance(0.25)
        async with AsyncExitStack() as stack:
            with suppress(ChatError):  # of tokens a minute
                (await stack.enter_async_context(house.admitted(caller))).settle(Usage(1, 1))
    error = await house.refusal(caller)
    assert (error.problem, error.retry_after is None) == (RATE_LIMITED, False)
    house.clock.advance((error.retry_after or 0.0) - 0.125)
    await house.refusal(caller)
    house.clock.advance(0.125)
    await house.run(caller)


# Completions of several rounds


async def test_each_round_needs_a_budget_that_has_it(house: House) -> None:
    caller = Principal("alice", budget_tokens=1000)
    async with house.admitted(caller, asking(100, 200)) as admission:
        assert house.budgets.reserved("sub:alice") == 300
        assert admission.again(asking(300, 200), Usage(100, 150)).max_tokens == 200
        assert house.budgets.reserved("sub:alice") == 250 + 300 + 200
        assert admission.again(asking(400, 200), Usage(300, 200)).max_tokens == 100
        with pytest.raises(ChatError) as raised:
            admission.again(asking(500), Usage(400, 100))
        assert raised.value.problem is BUDGET_SPENT
        admission.settle(Usage(400, 100))
    assert (house.budgets.spent("sub:alice"), house.budgets.reserved("sub:alice")) == (500, 0)


async def test_a_round_leaves_to_others_what_is_set_aside_for_them(house: House) -> None:
    caller = Principal("alice", budget_tokens=1000)
    async with house.admitted(caller, asking(100, 200)) as one, house.admitted(caller, asking(100, 300)):
        assert one.again(asking(100, 300), Usage(100, 100)).max_tokens == 300
        with pytest.raises(ChatError) as raised:
            one.again(asking(200, 300), Usage(100, 100))
        assert raised.value.problem is BUDGET_RESERVED
    assert house.budgets.reserved("sub:alice") == 0


async def test_without_a_budget_every_round_is_as_it_is(house: House) -> None:
    async with house.admitted(Principal("alice", tpm=5000)) as admission:
        ask = asking(100_000)
        assert admission.again(ask, Usage(10**6, 10**6)) is ask
