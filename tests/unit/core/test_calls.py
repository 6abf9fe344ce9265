from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from mcp_proxy.base.errors import (
    AMBIGUOUS_TOOL,
    DRAINING,
    INPUT_REQUIRED,
    INSUFFICIENT_SCOPE,
    INVALID_ARGUMENTS,
    OUTCOME_UNKNOWN,
    OVERLOADED,
    RESOURCE_NOT_FOUND,
    RESULT_TOO_LARGE,
    TIMEOUT,
    TOOL_NOT_FOUND,
    UPSTREAM_ERROR,
    UPSTREAM_UNAVAILABLE,
    Kind,
    ProxyError,
)  # fmt: skip
from mcp_proxy.base.json import Fields, Raw, decode_fields
from mcp_proxy.config.model import RetryRules, ServerSpec
from mcp_proxy.core.audit import AuditEvent
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.calls import CallPath, Outcome, Progress, UpstreamRefusal
from mcp_proxy.core.catalog.item import Prompt
from mcp_proxy.core.catalog.naming import decide
from mcp_proxy.core.catalog.offer import Offer, adopt_offer
from mcp_proxy.core.catalog.resolve import Target, resolve_prompt, resolve_resource, resolve_tool
from mcp_proxy.core.catalog.snapshot import build
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.limits import Gate, MemoryRateLimiter
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.retry import RetryBudgets
from mcp_proxy.core.routing import About, Call, Routing
from mcp_proxy.core.upstream.client import PROXY, Client
from mcp_proxy.core.upstream.crossing import Sending
from mcp_proxy.core.upstream.deadline import Deadline
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.terms import Era
from tests.unit.core.fakes import FakeClock, server, tool

pytestmark = pytest.mark.anyio

Step = bytes | Exception
OK = b'{"content":[]}'
ADD = tool("add", inputSchema={"type": "object", "properties": {"a": {"type": "integer"}}})


class FakeUpstream:
    """Plays its steps, one a call; afterwards it answers. Keeps what it executed."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.executed: list[Sending] = []
        self.deadlines: list[float] = []
        self.inflight = 0
        self.is_available = True
        self.returns_soon = False
        self.hold: asyncio.Event | None = None

    async def request(self, sending: Sending, *, deadline: Deadline, attempt: Attempt) -> Fields:
        self.executed.append(sending)
        self.deadlines.append(deadline.at)
        if self.hold is not None:
            await self.hold.wait()
        step = self.steps.pop(0) if self.steps else OK
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, dict) else decode_fields(step)

    async def wait_ready(self, seconds: float) -> bool:
        return self.is_available


class FakeManager:
    """Real catalogue and rules, fake upstreams."""

    def __init__(self, servers: Sequence[tuple[ServerSpec, FakeUpstream]], offered: Offer) -> None:
        self.specs = {spec.name: spec for spec, _ in servers}
        self.upstreams = {spec.name: upstream for spec, upstream in servers}
        self.catalog = build([(spec, offered) for spec, _ in servers], decide("always", ".", 2), 1)

    async def resolve_tool(
        self,
        principal: Principal,
        name: str,
        at: str | None,
        *,
        client: Client = PROXY,
        shown: bool = False,
        prefer: str | None = None,
    ) -> Target[Tool]:
        return resolve_tool(self.catalog, self.specs, principal, name, at, shown=shown, prefer=prefer)

    async def resolve_prompt(
        self,
        principal: Principal,
        name: str,
        at: str | None,
        *,
        client: Client = PROXY,
        shown: bool = False,
        prefer: str | None = None,
    ) -> Target[Prompt]:
        return resolve_prompt(self.catalog, self.specs, principal, name, at, shown=shown, prefer=prefer)

    async def resolve_resource(
        self, principal: Principal, uri: str, at: str | None, *, client: Client = PROXY
    ) -> tuple[ServerSpec, ...]:
        return resolve_resource(self.catalog, self.specs, principal, uri, at).specs

    def upstream(self, name: str) -> FakeUpstream:
        return self.upstreams[name]


class Notes:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def record(self, event: AuditEvent) -> None:
        self.events.append(event)


class Path:
    """A call path over fake upstreams: group members m1, m2, … or one server alone; ``apart``: servers of no group."""

    def __init__(
        self,
        *upstreams: FakeUpstream,
        offered: Tool | Offer = ADD,
        retry: RetryRules | None = None,
        limit: int = 100,
        apart: bool = False,
        **spec: Any,
    ) -> None:
        group = "g" if len(upstreams) > 1 and not apart else None
        rules = retry or RetryRules()
        self.manager = FakeManager(
            [(server(f"m{n}", group=group, retry=rules, **spec), one) for n, one in enumerate(upstreams, 1)],
            offered if isinstance(offered, Offer) else Offer((offered,)),
        )
        self.gate, self.notes, self.progress = Gate(limit), Notes(), Progress()
        clock = FakeClock()
        self.path = CallPath(
            Routing(cast(McpClientManager, self.manager)), self.gate, MemoryRateLimiter(clock), self.notes, clock,
            random=lambda: 0.0, call_timeout=60, budgets=RetryBudgets(clock),
        )  # fmt: skip

    async def call(
        self,
        name: str = "add",
        arguments: Mapping[str, Any] | None = None,
        principal: Principal | None = None,
        **more: Any,
    ) -> Outcome:
        self.progress = Progress()
        params = more.pop("params", {"name": name, "arguments": arguments or {}})
        call = Call(name, params, principal or Principal("ann"), "r1", "rest", **more)
        async with asyncio.timeout(10):
            return await self.path.call(call, self.progress)

    async def refused(self, *args: Any, **kwargs: Any) -> ProxyError:
        with pytest.raises(ProxyError) as raised:
            await self.call(*args, **kwargs)
        assert self.gate.inflight == 0
        assert self.notes.events[-1].outcome == raised.value.kind.type
        return raised.value


def wire(failure: Failure, phase: Phase, **more: Any) -> WireError:
    return WireError(failure, phase, more.pop("message", "it broke"), **more)


REFUSED = (Failure.UNREACHABLE, Phase.NOT_SENT)
LOST = (Failure.LOST, Phase.SENT)


async def test_a_result_comes_back_as_the_bytes_it_was() -> None:
    path = Path(FakeUpstream(b'{"content":[ {"type":"text"} ],"structuredContent":{"x":1.50}}'))
    outcome = await path.call(arguments={"a": 1})
    assert bytes(outcome.fields["structuredContent"]) == b'{"x":1.50}'
    assert (outcome.server, outcome.is_error) == ("m1", False)


async def test_every_call_is_noted_once() -> None:
    path = Path(FakeUpstream(OK, b'{"content":[],"isError":true}', RpcError(-1, "no")))
    await path.call()
    assert (await path.call()).is_error
    await path.refused()
    await path.refused("unknown")
    assert [(one.tool, one.server, one.outcome, one.attempts) for one in path.notes.events] == [
        ("add", "m1", "ok", 1),
        ("add", "m1", "tool_error", 1),
        ("add", "m1", "upstream_error", 1),
        ("unknown", None, "tool_not_found", 0),
    ]


async def test_a_call_that_is_cancelled_is_noted_as_cancelled_and_leaves_the_gate() -> None:
    upstream = FakeUpstream()
    upstream.hold = asyncio.Event()
    path = Path(upstream)
    call = asyncio.get_running_loop().create_task(path.call())
    while not upstream.executed:  # noqa: ASYNC110 - two turns of the loop
        await asyncio.sleep(0)
    assert path.gate.inflight == 1
    call.cancel()
    await asyncio.wait([call], timeout=5)
    assert call.cancelled()
    assert (path.gate.inflight, path.notes.events[0].outcome) == (0, "cancelled")


async def test_an_error_of_our_own_is_not_noted_as_the_callers_leaving() -> None:
    path = Path(FakeUpstream(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        await path.call()
    assert (path.gate.inflight, path.notes.events[0].outcome) == (0, "internal_error")


# Before anything is sent


async def test_nothing_is_sent_without_the_scope() -> None:
    upstream = FakeUpstream()
    error = await Path(upstream).refused(principal=Principal("ann", scopes=frozenset({Scope.TOOLS_READ})))
    assert error.kind is INSUFFICIENT_SCOPE
    assert upstream.executed == []


async def test_nothing_is_sent_that_does_not_fit_the_schema() -> None:
    upstream = FakeUpstream()
    error = await Path(upstream).refused(arguments={"a": "secret"})
    assert (error.kind, error.status) == (INVALID_ARGUMENTS, 400)
    assert error.details == {"path": "/a", "reason": "must be of type integer"}
    assert "secret" not in error.message
    assert upstream.executed == []


async def test_nothing_is_sent_by_a_service_that_is_full_or_stops() -> None:
    upstream = FakeUpstream()
    assert (await Path(upstream, limit=0).refused()).kind is OVERLOADED
    path = Path(upstream)
    await path.gate.drain(1)
    assert (await path.refused()).kind is DRAINING
    assert upstream.executed == []


async def test_a_tool_the_token_does_not_reach_is_unknown() -> None:
    upstream = FakeUpstream()
    assert (await Path(upstream).refused(principal=Principal("ann", tools=("sub",)))).kind is TOOL_NOT_FOUND
    assert upstream.executed == []


@pytest.mark.parametrize(("own", "seconds"), [(None, 60), (5, 5), (10_000, 600)])
async def test_the_deadline_is_the_servers_or_the_programs_and_never_beyond_ten_minutes(
    own: float | None, seconds: float
) -> None:
    upstream = FakeUpstream()
    before = asyncio.get_running_loop().time()
    await Path(upstream, timeout=own).call()
    assert before + seconds <= upstream.deadlines[0] <= asyncio.get_running_loop().time() + seconds


# What is sent again, and what is not


@pytest.mark.parametrize(
    ("failure", "phase", "kind", "status"),
    [
        (Failure.LOST, Phase.SENT, OUTCOME_UNKNOWN, 502),
        (Failure.LOST, Phase.STREAMING, OUTCOME_UNKNOWN, 502),
        (Failure.TIMEOUT, Phase.SENT, OUTCOME_UNKNOWN, 504),
        (Failure.TIMEOUT, Phase.NOT_SENT, TIMEOUT, 504),
        (Failure.BAD_REPLY, Phase.STREAMING, UPSTREAM_ERROR, 502),
        (Failure.HTTP, Phase.STREAMING, UPSTREAM_ERROR, 502),
        (Failure.TOO_LARGE, Phase.STREAMING, RESULT_TOO_LARGE, 502),
        (Failure.BUSY, Phase.STREAMING, UPSTREAM_UNAVAILABLE, 503),
    ],
)
async def test_a_call_that_may_have_been_executed_is_never_sent_twice(
    failure: Failure, phase: Phase, kind: Kind, status: int
) -> None:
    one, other = FakeUpstream(wire(failure, phase)), FakeUpstream(wire(failure, phase))
    path = Path(one, other)
    error = await path.refused()
    assert (error.kind, error.status) == (kind, status)
    assert len(one.executed) + len(other.executed) == 1
    sent = phase is not Phase.NOT_SENT
    assert error.details == {
        "server": "m1",
        "executed": "unknown" if sent else "no",
        "retryable": not sent or failure is Failure.BUSY,
    }


@pytest.mark.parametrize(
    "failure", [Failure.UNREACHABLE, Failure.LOST, Failure.SESSION_LOST, Failure.RESTING, Failure.FULL]
)
async def test_a_call_that_was_not_sent_goes_to_the_next_replica(failure: Failure) -> None:
    one, other = FakeUpstream(wire(failure, Phase.NOT_SENT)), FakeUpstream()
    path = Path(one, other)
    assert (await path.call()).server == "m2"
    assert (path.progress.attempts, path.progress.server) == (2, "m2")
    assert (len(one.executed), len(other.executed)) == (1, 1)


@pytest.mark.parametrize(
    ("rules", "annotations"),
    [(RetryRules(idempotent=("a*",)), {}), (RetryRules(trust_annotations=True), {"readOnlyHint": True})],
)
async def test_an_idempotent_call_that_was_lost_goes_to_the_next_replica(
    rules: RetryRules, annotations: dict[str, bool]
) -> None:
    path = Path(FakeUpstream(wire(*LOST)), FakeUpstream(), offered=tool("add", annotations=annotations), retry=rules)
    assert (await path.call()).server == "m2"


async def test_annotations_that_are_not_trusted_change_nothing() -> None:
    one, other = FakeUpstream(wire(*LOST)), FakeUpstream()
    assert (
        await Path(one, other, offered=tool("add", annotations={"readOnlyHint": True})).refused()
    ).kind is OUTCOME_UNKNOWN
    assert other.executed == []


@pytest.mark.parametrize("most", [0, 1, 2])
async def test_there_are_no_more_further_attempts_than_configured(most: int) -> None:
    upstreams = [FakeUpstream(*[wire(*REFUSED)] * 5) for _ in range(4)]
    path = Path(*upstreams, retry=RetryRules(max=most))
    assert (await path.refused()).kind is UPSTREAM_UNAVAILABLE
    assert path.progress.attempts == most + 1


async def test_an_answer_of_the_upstream_is_never_asked_for_again() -> None:
    one, other = FakeUpstream(RpcError(-32000, "no")), FakeUpstream()
    assert (await Path(one, other, retry=RetryRules(idempotent=("*",))).refused()).kind is UPSTREAM_ERROR
    assert other.executed == []


async def test_a_named_server_outside_a_group_gets_its_call_again_when_it_is_back() -> None:
    upstream = FakeUpstream(wire(*REFUSED))
    assert (await Path(upstream).call()).server == "m1"
    assert len(upstream.executed) == 2


async def test_a_server_that_refuses_for_lack_of_room_is_not_asked_again() -> None:
    upstream = FakeUpstream(wire(Failure.FULL, Phase.NOT_SENT))
    error = await Path(upstream).refused()
    assert (error.kind, len(upstream.executed)) == (OVERLOADED, 1)


async def test_a_server_that_stays_away_is_not_waited_for() -> None:
    upstream = FakeUpstream(wire(*REFUSED, retry_after=7))
    upstream.is_available = False
    error = await Path(upstream).refused()
    assert (error.kind, error.retry_after) == (UPSTREAM_UNAVAILABLE, 7)
    assert len(upstream.executed) == 1


async def test_when_the_budget_is_used_up_failures_are_passed_on_at_once() -> None:
    path = Path(FakeUpstream(*[wire(*REFUSED)] * 50), FakeUpstream(*[wire(*REFUSED)] * 50))
    attempts = []
    for _ in range(6):
        await path.refused()
        attempts.append(path.progress.attempts)
    assert attempts == [2, 2, 2, 1, 1, 1]


async def test_the_least_busy_replica_is_asked_first() -> None:
    one, other = FakeUpstream(), FakeUpstream()
    one.inflight = 3
    assert (await Path(one, other).call()).server == "m2"
    assert (await Path(one, other).call("m1.add")).server == "m1"


# What the upstream answers


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (RpcError(-32602, "bad"), UPSTREAM_ERROR, 400),
        (RpcError(-32603, "bad"), UPSTREAM_ERROR, 502),
        (RpcError(-32021, "needs sampling"), INPUT_REQUIRED, 422),
    ],
)
async def test_a_json_rpc_error_keeps_its_code(error: RpcError, kind: Kind, status: int) -> None:
    found = await Path(FakeUpstream(error)).refused()
    assert (found.kind, found.status) == (kind, status)
    assert found.details == {"server": "m1", "rpc_code": error.code}
    assert error.message in found.message


async def test_what_is_repeated_of_an_upstreams_message_is_bounded() -> None:
    assert len((await Path(FakeUpstream(RpcError(1, "x" * 100_000))).refused()).message) < 2100


@pytest.mark.parametrize("raw", [b'{"resultType":"new_kind"}', b'{"resultType":7}'])
async def test_a_result_of_no_known_form_is_the_upstreams_fault(raw: bytes) -> None:
    error = await Path(FakeUpstream(raw)).refused()
    assert (error.kind, error.status) == (UPSTREAM_ERROR, 502)


async def test_what_a_tool_asks_for_is_passed_on() -> None:
    asked = {"name": {"method": "elicitation/create"}}
    raw = json.dumps({"resultType": "input_required", "inputRequests": asked}).encode()
    error = await Path(FakeUpstream(raw)).refused()
    assert (error.kind, error.status, error.details) == (INPUT_REQUIRED, 422, {"inputRequests": asked})


async def test_a_question_that_cannot_be_read_is_the_upstreams_fault() -> None:
    fields = {"resultType": Raw(b'"input_required"'), "inputRequests": Raw(b'"\\ud800"')}
    assert (await Path(FakeUpstream(fields)).refused()).kind is UPSTREAM_ERROR


@pytest.mark.parametrize(("flag", "is_error"), [("true", True), ("false", False), ("1", False), ("null", False)])
async def test_only_a_plain_true_makes_a_result_an_error(flag: str, is_error: bool) -> None:
    assert (await Path(FakeUpstream(f'{{"content":[],"isError":{flag}}}'.encode())).call()).is_error is is_error


# Everything that is not a tool


def offering(**lists: list[dict[str, str]]) -> Offer:
    return adopt_offer(lists, Offer())


PROMPTS = offering(prompts=[{"name": "greet"}])
FILES = offering(resources=[{"uri": "file:///a"}], resourceTemplates=[{"uriTemplate": "file:///t/{x}"}])
READ: dict[str, Any] = {"method": "resources/read", "about": About.RESOURCE, "params": {"uri": "file:///a"}}
UNKNOWN = RpcError(-32002, "resource not found", {"uri": "file:///a"})


@pytest.mark.parametrize("name", ["greet", "m1.greet", "m1__greet"])
async def test_a_prompt_is_asked_for_by_the_name_that_its_server_uses(name: str) -> None:
    upstream = FakeUpstream()
    path = Path(upstream, offered=PROMPTS)
    params = {"name": name, "arguments": {"to": "Ann"}}
    outcome = await path.call(name, method="prompts/get", about=About.PROMPT, params=params)
    [sending] = upstream.executed
    assert (outcome.server, sending.method, sending.tool) == ("m1", "prompts/get", None)
    assert sending.params == {"name": "greet", "arguments": {"to": "Ann"}}
    assert path.notes.events[0].method == "prompts/get"
    assert path.notes.events[0].tool == "greet"


async def test_an_unknown_prompt_is_said_to_be_one() -> None:
    upstream = FakeUpstream()
    error = await Path(upstream, offered=PROMPTS).refused("add", method="prompts/get", about=About.PROMPT)
    assert error.kind is TOOL_NOT_FOUND
    assert "prompt" in error.message
    assert upstream.executed == []


async def test_what_a_prompts_arguments_may_be_is_completed_with_its_servers_own_name_for_it() -> None:
    upstream = FakeUpstream()
    params = {"ref": {"type": "ref/prompt", "name": "m1.greet"}, "argument": {"name": "to", "value": "A"}}
    await Path(upstream, offered=PROMPTS).call(
        "m1.greet", method="completion/complete", about=About.PROMPT, params=params
    )
    assert upstream.executed[0].params == {**params, "ref": {"type": "ref/prompt", "name": "greet"}}
    assert params["ref"] == {"type": "ref/prompt", "name": "m1.greet"}


async def test_what_a_templates_variables_may_be_is_completed_by_the_server_that_has_it() -> None:
    upstream = FakeUpstream()
    params = {"ref": {"type": "ref/resource", "uri": "file:///t/{x}"}, "argument": {"name": "x", "value": "A"}}
    await Path(upstream, offered=FILES).call(
        "file:///t/{x}", method="completion/complete", about=About.RESOURCE, params=params
    )
    assert upstream.executed[0].params is params


async def test_a_resource_is_read_by_its_own_uri() -> None:
    upstream = FakeUpstream()
    path = Path(upstream, offered=FILES)
    assert (await path.call("file:///a", **READ)).server == "m1"
    assert upstream.executed[0].params is READ["params"]
    assert path.notes.events[0].tool == "file:///a"


async def test_a_resource_that_nobody_has_is_not_found() -> None:
    upstream = FakeUpstream()
    error = await Path(upstream, offered=FILES).refused("http://nobody/", **READ)
    assert (error.kind, error.status, error.details) == (RESOURCE_NOT_FOUND, 404, {"uri": "http://nobody/"})
    assert upstream.executed == []


@pytest.mark.parametrize("code", [-32002, -32602])
async def test_the_next_owner_is_asked_when_one_does_not_know_the_resource(code: int) -> None:
    first, second, third = FakeUpstream(RpcError(code, "?")), FakeUpstream(), FakeUpstream()
    path = Path(first, second, third, offered=FILES, apart=True)
    assert (await path.call("file:///a", **READ)).server == "m2"
    assert [len(one.executed) for one in (first, second, third)] == [1, 1, 0]
    assert path.notes.events[-1].outcome == "ok"


async def test_when_no_owner_knows_it_the_last_ones_answer_counts() -> None:
    upstreams = [FakeUpstream(UNKNOWN), FakeUpstream(RpcError(-32602, "the last"))]
    error = await Path(*upstreams, offered=FILES, apart=True).refused("file:///a", **READ)
    assert isinstance(error, UpstreamRefusal)
    assert error.answer.message == "the last"
    assert [len(one.executed) for one in upstreams] == [1, 1]


async def test_any_other_answer_is_the_answer() -> None:
    first, second = FakeUpstream(RpcError(-32603, "broken")), FakeUpstream()
    assert (await Path(first, second, offered=FILES, apart=True).refused("file:///a", **READ)).kind is UPSTREAM_ERROR
    assert second.executed == []


async def test_replicas_are_one_owner() -> None:
    first, second = FakeUpstream(UNKNOWN, UNKNOWN), FakeUpstream(UNKNOWN, UNKNOWN)
    error = await Path(first, second, offered=FILES).refused("file:///a", **READ)
    assert isinstance(error, UpstreamRefusal)
    assert len(first.executed) + len(second.executed) == 1


async def test_a_replica_stands_in_for_one_that_cannot_be_reached() -> None:
    first, second = FakeUpstream(wire(*REFUSED)), FakeUpstream()
    assert (await Path(first, second, offered=FILES).call("file:///a", **READ)).server == "m2"


async def test_the_owner_that_is_named_is_asked_first_however_busy_it_is() -> None:
    first, second = FakeUpstream(), FakeUpstream()
    second.inflight = 9
    assert (await Path(first, second, offered=FILES).call("file:///a", server="m2", **READ)).server == "m2"


@pytest.mark.parametrize("code", [-32002, -32602])
async def test_no_other_tool_is_called_when_one_answers_with_such_an_error(code: int) -> None:
    one, other = FakeUpstream(RpcError(code, "?")), FakeUpstream()
    await Path(one, other).refused()
    assert other.executed == []


async def test_reading_may_be_repeated_where_calling_may_not() -> None:
    assert (
        await Path(FakeUpstream(wire(*LOST)), FakeUpstream(), offered=FILES).call("file:///a", **READ)
    ).server == "m2"
    prompts = Path(FakeUpstream(wire(*LOST)), FakeUpstream(), offered=PROMPTS)
    assert (await prompts.call("greet", method="prompts/get", about=About.PROMPT)).server == "m2"


@pytest.mark.parametrize(
    "more", [{}, READ, {"method": "prompts/get", "about": About.PROMPT}], ids=["tool", "resource", "prompt"]
)
async def test_nothing_of_a_server_is_used_without_the_scope(more: dict[str, Any]) -> None:
    upstream = FakeUpstream()
    reader = Principal("ann", scopes=frozenset({Scope.TOOLS_READ}))
    error = await Path(upstream, offered=FILES).refused("file:///a", principal=reader, **more)
    assert (error.kind, error.details) == (INSUFFICIENT_SCOPE, {"scope": "tools:call"})
    assert upstream.executed == []


# Clients


class Forwarding(FakeUpstream):
    """Something reaches the client before each attempt ends."""

    async def request(self, sending: Sending, *, deadline: Deadline, attempt: Attempt) -> Fields:
        attempt.forwarded = True
        return await super().request(sending, deadline=deadline, attempt=attempt)


@pytest.mark.parametrize("phase", [Phase.SENT, Phase.STREAMING])
async def test_what_a_client_has_seen_part_of_is_never_sent_twice(phase: Phase) -> None:
    one, other = Forwarding(wire(Failure.LOST, phase)), FakeUpstream()
    path = Path(one, other, retry=RetryRules(idempotent=("*",)))
    assert (await path.refused()).kind is OUTCOME_UNKNOWN
    assert (len(one.executed), len(other.executed), path.progress.attempts) == (1, 0, 1)


async def test_what_was_not_sent_goes_to_the_next_replica_all_the_same() -> None:
    assert (await Path(Forwarding(wire(*REFUSED)), FakeUpstream()).call()).server == "m2"


async def test_every_attempt_is_made_for_the_client_that_asked_within_one_deadline() -> None:
    client = Client(Era.LEGACY, key="k")
    one, other = FakeUpstream(wire(*REFUSED)), FakeUpstream()
    await Path(one, other).call(client=client)
    assert one.executed[0].client is other.executed[0].client is client
    assert one.deadlines == other.deadlines


async def test_a_pinned_call_goes_to_its_server_and_no_other() -> None:
    one, other = FakeUpstream(), FakeUpstream(wire(*REFUSED))
    other.inflight = 9
    other.is_available = False
    path = Path(one, other)
    error = await path.refused("g.add", server="m2", pinned=True)
    assert (error.kind, one.executed, len(other.executed)) == (UPSTREAM_UNAVAILABLE, [], 1)


async def test_a_pinned_read_asks_nobody_else() -> None:
    one, other = FakeUpstream(), FakeUpstream(UNKNOWN)
    with pytest.raises(UpstreamRefusal):
        await Path(one, other, offered=FILES).call("file:///a", server="m2", pinned=True, **READ)
    assert (len(one.executed), len(other.executed)) == (0, 1)


async def test_the_upstreams_own_error_is_at_hand_for_doors_that_pass_it_on() -> None:
    answer = RpcError(-32050, "no such city", {"city": "x"})
    error = await Path(FakeUpstream(answer)).refused()
    assert isinstance(error, UpstreamRefusal)
    assert error.answer is answer
    assert error.details == {"server": "m1", "rpc_code": -32050, "data": {"city": "x"}}


WANTS = b'{"resultType":"input_required","inputRequests":{"a":{"method":"elicitation/create"}},"requestState":"s"}'


async def test_a_modern_client_gets_the_wish_for_input_itself() -> None:
    outcome = await Path(FakeUpstream(WANTS)).call(client=Client(Era.MODERN, capabilities={"elicitation": {}}))
    assert (outcome.input_required, outcome.is_error) == (True, False)
    assert bytes(outcome.fields["requestState"]) == b'"s"'


@pytest.mark.parametrize("client", [PROXY, Client(Era.LEGACY, key="k")], ids=["proxy", "legacy"])
async def test_a_client_that_cannot_give_input_is_told_what_is_missing(client: Client) -> None:
    assert (await Path(FakeUpstream(WANTS)).refused(client=client)).kind is INPUT_REQUIRED


@pytest.mark.parametrize(("era", "passes"), [(Era.MODERN, True), (Era.LEGACY, False)])
async def test_a_kind_of_result_that_is_not_known_here_is_for_modern_clients_alone(era: Era, passes: bool) -> None:
    path, client = Path(FakeUpstream(b'{"resultType":"task"}')), Client(era, key="k")
    if passes:
        outcome = await path.call(client=client)
        assert (bytes(outcome.fields["resultType"]), outcome.input_required) == (b'"task"', False)
    else:
        assert (await path.refused(client=client)).kind is UPSTREAM_ERROR


async def test_a_name_from_a_list_means_what_it_was_listed_for() -> None:
    """Two servers have an ``add``; on the list one of them is called so."""
    one, other = FakeUpstream(), FakeUpstream()
    path = Path(one, other, apart=True)
    catalog = build([(spec, Offer((ADD,))) for spec in path.manager.specs.values()], decide("never", ".", 2), 1)
    path.manager.catalog = catalog
    shown = [entry.name for entry in catalog.tools.shown]
    assert shown[0] == "add"
    assert (await path.refused("add")).kind is AMBIGUOUS_TOOL
    assert (await path.call("add", shown=True)).server == "m1"
    assert (await path.call(shown[1], shown=True)).server == "m2"
    assert [sending.params["name"] for sending in (*one.executed, *other.executed)] == ["add", "add"]
