"""What a token's claims allow of completions: how many, how large, how much of them a minute, and how much in all.

Everything is counted before a completion runs, with a guess, and corrected when it is known. Nothing is limited, and
nothing kept, unless a claim asks for it. Which models a token sees is `Principal.sees_model`; rights are the door's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from mcp_proxy.base.clock import Clock
from mcp_proxy.bridge.chat import ChatRequest, Usage, estimate, question_tokens
from mcp_proxy.bridge.errors import (
    BAD_REQUEST,
    BUDGET_SPENT,
    MODEL_NOT_FOUND,
    NOT_READY,
    OVERLOADED,
    QUEUE_FULL,
    RATE_LIMITED,
    TOO_LARGE,
    TOOLS_NOT_SUPPORTED,
    UNSUPPORTED,
    ChatError,
    ChatProblem,
)
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.edge.types import Header
from mcp_proxy.llm.budgets import Budgets, Reservation
from mcp_proxy.llm.minute import Minute, Taken
from mcp_proxy.llm.rate_headers import Standing, rate_headers

TOO_MANY_PARALLEL = ChatProblem(429, "too_many_parallel", "rate_limit_error")
BUDGET_RESERVED = ChatProblem(429, "budget_reserved", "rate_limit_error")
"""What is left of the budget may be needed by completions that run."""
QUESTION_TOO_LARGE = ChatProblem(429, "rate_limit_exceeded", "rate_limit_error", retry=False)
"""It would not be let in at any time."""

UNASKED = frozenset(
    {
        BAD_REQUEST,
        UNSUPPORTED,
        TOOLS_NOT_SUPPORTED,
        MODEL_NOT_FOUND,
        TOO_LARGE,
        RATE_LIMITED,
        QUEUE_FULL,
        NOT_READY,
        OVERLOADED,
    }
)
"""Failures that say that no model was at work."""
GUESS = 1_000
"""Tokens of an answer for which the request names no number."""
SMALL = 4_096
"""Tokens that every model can be asked for. A request that names no number is given one where the budget has less; many
models refuse a larger one than they can do."""
MOST_CALLERS = 16_384
"""Callers that are counted at once. With more, those not seen for longest begin anew."""
_SOON = 1.0
"""Seconds after which another completion may have ended."""


@dataclass(eq=False, slots=True)
class _Caller:
    """What is counted of one caller, by all of its tokens."""

    requests: Minute = field(default_factory=Minute)
    tokens: Minute = field(default_factory=Minute)
    running: int = 0


Again = Callable[[ChatRequest, Usage | None], ChatRequest]
"""For the next question of a completion, and what it has taken so far: the question as it may be asked; see `Admission.again`."""


class Admission:
    """A completion that may run. ``ask`` is what it is to be asked for: the answer is no longer than allowed."""

    def __init__(
        self,
        ask: ChatRequest,
        question: int,
        held: Sequence[Callable[[int], None]],
        headers: Callable[[str], list[Header]],
        again: Again,
    ) -> None:
        """``question``: the guess at its tokens. ``held`` are told how many it were in all, once."""
        self.ask = ask
        self.again = again
        """Where the model is asked more than once: the next question, for an answer that the budget has. Raises `ChatError`
        when it is spent."""
        self._question = question
        self._held = held
        self._headers = headers
        self._settled = False

    def settle(self, usage: Usage | None, *, characters: int = 0) -> None:
        """What it came to. None: nobody knows, and the guess at the question is counted with the ``characters`` of the
        answer that were said. Only the first call counts.
        """
        if self._settled:
            return
        self._settled = True
        if usage is None:
            tokens = self._question + (estimate(["x" * characters]) if characters else 0)
        else:
            tokens = _total(usage)
        for settle in self._held:
            settle(tokens)

    def headers(self, api_name: str) -> list[Header]:
        """What is left to this caller now, in the words of the API (`apis.Api.name`)."""
        return self._headers(api_name)


class Tenancy:
    """Lets completions in."""

    def __init__(self, clock: Clock, budgets: Budgets, *, most_tokens: int, most: int = MOST_CALLERS) -> None:
        """``most_tokens``: of an answer, whatever is asked for. ``most``: callers that are remembered at once."""
        self._clock = clock
        self._budgets = budgets
        self._most_tokens = most_tokens
        self._most = most
        self._callers: OrderedDict[str, _Caller] = OrderedDict()

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._callers)

    @asynccontextmanager
    async def admitted(self, principal: Principal, ask: ChatRequest) -> AsyncIterator[Admission]:
        """Within this a completion runs. Raises `ChatError`: too many at once, too much a minute, or the budget is spent.

        What is refused counts nothing. What is not settled on leaving is settled with the guess at the question, or with
        nothing when it is left by an error of those in `UNASKED`.
        """
        # Nothing waits between looking and taking: no other completion can be let in meanwhile.
        caller = self._caller(principal)
        admission = self._admit(principal, ask, caller)
        if principal.max_parallel is not None:
            caller.running += 1
        try:
            yield admission
        except ChatError as error:
            if error.problem in UNASKED:
                admission.settle(Usage(0, 0))
            raise
        finally:
            if principal.max_parallel is not None:
                caller.running -= 1
            admission.settle(None)

    def headers(self, principal: Principal, api_name: str) -> list[Header]:
        """What is left to a caller now, also to one that was refused; none where no claim limits a minute."""
        now = self._clock.monotonic()
        caller = self._callers.get(principal.who) or _Caller()
        requests = _standing(principal.rpm, caller.requests, now)
        tokens = _standing(principal.tpm, caller.tokens, now)
        return rate_headers(api_name, requests, tokens, self._clock.time())

    def _caller(self, principal: Principal) -> _Caller:
        """Whose limits are counted; it is remembered if there are any."""
        if principal.rpm is None and principal.tpm is None and principal.max_parallel is None:
            return _Caller()
        caller = self._callers.setdefault(principal.who, _Caller())
        self._callers.move_to_end(principal.who)
        if len(self._callers) > self._most:
            # None whose completions run: they would no longer count.
            others = islice(self._callers.items(), self._most)
            if (oldest := next((who for who, one in others if not one.running), None)) is not None:
                del self._callers[oldest]
        return caller

    def _admit(self, principal: Principal, ask: ChatRequest, caller: _Caller) -> Admission:
        """Look at every limit, then take from each. Raises `ChatError`."""
        now = self._clock.monotonic()
        counted = principal.tpm is not None or principal.budget_tokens is not None
        question = question_tokens(ask) if counted else 0
        free = self._free(principal, question)
        answer = self._answer(principal, ask, free)
        left = self._unreserved(principal, free, answer)
        _check_parallel(principal, caller)
        _check_minute(principal, caller, now, question, answer)
        held: list[Callable[[int], None]] = []
        if principal.rpm is not None:
            caller.requests.take(now, 1)
        if principal.tpm is not None:
            # A client that names a large number to be safe is not to wait for an empty minute each time.
            rest = principal.tpm - caller.tokens.used(now)
            held.append(self._settling(caller.tokens.take(now, min(question + answer, rest))))
        again: Again = _as_it_is
        if principal.budget_tokens is not None:
            key, expires = budget_of(principal)
            reservation = self._budgets.reserve(key, question + answer, expires)
            held.append(reservation.settle)
            again = partial(self._again, principal, reservation)
        shortened = _shortened(ask, principal.max_tokens, left)
        return Admission(shortened, question, held, lambda api_name: self.headers(principal, api_name), again)

    def _again(self, principal: Principal, ours: Reservation, ask: ChatRequest, used: Usage | None) -> ChatRequest:
        """See `Admission.again`."""
        taken = 0 if used is None else _total(used)
        question = question_tokens(ask)
        free = self._free(principal, question, taken)
        answer = self._answer(principal, ask, free)
        left = self._unreserved(principal, free, answer, ours.tokens)
        ours.become(taken + question + answer)
        return _shortened(ask, principal.max_tokens, left)

    def _answer(self, principal: Principal, ask: ChatRequest, free: int | None) -> int:
        """The guess at the tokens of an answer."""
        return _least(ask.max_tokens or GUESS, principal.max_tokens, self._most_tokens, free)

    def _settling(self, taken: Taken) -> Callable[[int], None]:
        return lambda tokens: taken.settle(self._clock.monotonic(), tokens)

    def _free(self, principal: Principal, question: int, taken: int = 0) -> int | None:
        """Tokens that the budget has for an answer, one at least; None without a budget. Raises `ChatError`.

        ``taken``: by this completion, so far.
        """
        if principal.budget_tokens is None:
            return None
        key, _ = budget_of(principal)
        left = principal.budget_tokens - self._budgets.spent(key) - taken
        if left <= question:
            text = f"this token's budget of {principal.budget_tokens} tokens is spent"
            if left > 0:
                text = f"{left} of this token's {principal.budget_tokens} tokens are left, and the question alone takes"
                text += f" about {question}"
            raise ChatError(BUDGET_SPENT, f"{text}; ask for a new token")
        if not self._budgets.has_room(key):
            raise ChatError(OVERLOADED, "as many tokens with a budget as can be counted here have been used")
        return left - question

    def _unreserved(self, principal: Principal, free: int | None, answer: int, ours: int = 0) -> int | None:
        """What of ``free`` is not set aside for others, ``answer`` at least; ``ours`` is for this one. Raises `ChatError`."""
        if free is None:
            return None
        left = free - (self._budgets.reserved(budget_of(principal)[0]) - ours)
        if left < answer:
            text = "what is left of this token's budget may be needed by its completions that run; wait for them"
            raise ChatError(BUDGET_RESERVED, text, retry_after=_SOON)
        return left


def budget_of(principal: Principal) -> tuple[str, float | None]:
    """Which budget a principal spends, and until when; None: for ever, since its subject may come with other tokens."""
    if principal.token_id is not None:
        return f"jti:{principal.token_id}", principal.expires
    return f"sub:{principal.who}", None if principal.owner is None else principal.expires


def _check_parallel(principal: Principal, caller: _Caller) -> None:
    most = principal.max_parallel
    if most is not None and caller.running >= most:
        raise ChatError(TOO_MANY_PARALLEL, f"this token may run {most} completions at once", retry_after=_SOON)


def _check_minute(principal: Principal, caller: _Caller, now: float, question: int, answer: int) -> None:
    """Whether the completion fits into this minute; the error says when it will."""
    found: list[tuple[float, str]] = []
    if (rpm := principal.rpm) is not None:
        found.append((caller.requests.wait(now, 1, rpm), f"this token may ask for {rpm} completions a minute"))
    if (tpm := principal.tpm) is not None:
        if question > tpm:
            text = f"the question alone takes about {question} tokens, and this token may use {tpm} a minute"
            raise ChatError(QUESTION_TOO_LARGE, text)
        needed = min(question + min(answer, GUESS), tpm)
        found.append((caller.tokens.wait(now, needed, tpm), f"this token may use {tpm} tokens a minute"))
    wait, text = max(found, default=(0.0, ""))
    if wait > 0:
        raise ChatError(RATE_LIMITED, text, retry_after=wait)


def _shortened(ask: ChatRequest, most: int | None, left: int | None) -> ChatRequest:
    """The request for an answer of ``most`` tokens, which a claim allows, or what is ``left`` of a budget."""
    named = [number for number in (ask.max_tokens, most) if number is not None]
    if left is not None and left < min(named, default=SMALL):
        named.append(left)
    allowed = min(named, default=None)
    return ask if allowed == ask.max_tokens else replace(ask, max_tokens=allowed)


def _as_it_is(ask: ChatRequest, _: Usage | None) -> ChatRequest:
    return ask


def _total(usage: Usage) -> int:
    return max(0, usage.input_tokens) + max(0, usage.output_tokens)


def _least(*numbers: int | None) -> int:
    return min(number for number in numbers if number is not None)


def _standing(limit: int | None, minute: Minute, now: float) -> Standing | None:
    if limit is None:
        return None
    return Standing(limit, max(0, limit - minute.used(now)), minute.empty_in(now))
