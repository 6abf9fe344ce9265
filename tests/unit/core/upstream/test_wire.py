from __future__ import annotations

import asyncio
import json

import pytest

from mcp_proxy.base.json import JsonError, Raw, encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.wire import ACKNOWLEDGED, Correlator, Outgoing, cancel_notice, tracked
from tests.unit.core.upstream.wires import turns

pytestmark = pytest.mark.anyio

OUT = Outgoing("tools/call", {"name": "t"})


def unexpected(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name}: {error!r}")


class Table:
    """A correlator with what it passed on and sent back."""

    def __init__(self) -> None:
        self.incoming: list[Incoming] = []
        self.sent: list[bytes] = []
        self.tasks = TaskSet(unexpected)
        self.calls = Correlator(self.incoming.append, self.sent.append, self.tasks)

    def answer(self, request_id: object, **fields: object) -> None:
        self.calls.deliver(json.dumps({"jsonrpc": "2.0", "id": request_id, **fields}).encode())


async def test_each_answer_reaches_the_request_it_belongs_to() -> None:
    table = Table()
    one, first = table.calls.open(OUT, Attempt())
    two, second = table.calls.open(OUT, Attempt())
    table.answer(two, result={"n": 2})
    table.answer(one, result={"n": 1})
    assert (encode(await first), encode(await second)) == (b'{"n":1}', b'{"n":2}')
    assert len(table.calls) == 0


async def test_an_error_reaches_the_request_it_belongs_to() -> None:
    table = Table()
    number, future = table.calls.open(OUT, Attempt())
    table.answer(number, error={"code": -32602, "message": "no"})
    with pytest.raises(RpcError) as raised:
        await future
    assert raised.value.code == -32602


@pytest.mark.parametrize("wrong", ["1", 2, 0, -1, None, "", 10**30])
async def test_an_answer_with_another_id_reaches_nobody(wrong: object) -> None:
    table = Table()
    number, future = table.calls.open(OUT, Attempt())
    assert number == 1
    table.answer(wrong, result={})
    assert (future.done(), table.calls.dropped, len(table.calls)) == (False, 1, 1)
    table.answer(number, result={})
    assert future.done()


@pytest.mark.parametrize("wrong", [True, 1.0, [1], {"id": 1}])
async def test_an_id_that_is_no_id_is_no_answer_at_all(wrong: object) -> None:
    table = Table()
    _, future = table.calls.open(OUT, Attempt())
    with pytest.raises(JsonError):
        table.answer(wrong, result={})
    assert not future.done()


async def test_late_and_repeated_answers_are_dropped() -> None:
    table = Table()
    number, future = table.calls.open(OUT, Attempt())
    table.calls.forget(number)
    table.answer(number, result={})
    assert (future.done(), table.calls.dropped) == (False, 1)
    again, other = table.calls.open(OUT, Attempt())
    assert again != number
    table.answer(again, result={"n": 1})
    table.answer(again, result={"n": 2})
    assert encode(await other) == b'{"n":1}'
    assert table.calls.dropped == 2


async def test_an_answer_to_a_request_whose_caller_has_gone_disturbs_nothing() -> None:
    table = Table()
    number, future = table.calls.open(OUT, Attempt())
    future.cancel()
    table.answer(number, result={})
    assert table.calls.dropped == 1


async def test_when_the_transport_is_gone_everybody_is_told_how_far_they_got() -> None:
    table = Table()
    sent = Attempt()
    sent.phase = Phase.SENT
    futures = [table.calls.open(OUT, attempt)[1] for attempt in (Attempt(), sent)]
    table.calls.fail_all("the pipe broke")
    for future, phase in zip(futures, (Phase.NOT_SENT, Phase.SENT), strict=True):
        with pytest.raises(WireError) as raised:
            await future
        assert (raised.value.failure, raised.value.phase) == (Failure.LOST, phase)
        assert raised.value.message == "the pipe broke"
    assert len(table.calls) == 0


async def test_one_request_can_be_failed_alone() -> None:
    table = Table()
    one, first = table.calls.open(OUT, Attempt())
    _, second = table.calls.open(OUT, Attempt())
    table.calls.fail(one, Failure.TOO_LARGE, "too large")
    table.calls.fail(99, Failure.TOO_LARGE, "nobody")
    with pytest.raises(WireError, match="too large"):
        await first
    assert not second.done()


async def test_progress_reaches_the_request_whose_token_it_carries() -> None:
    table = Table()
    heard: list[Incoming] = []
    attempt = Attempt()
    number, _ = table.calls.open(Outgoing("tools/call", {}, on_message=heard.append), attempt)
    for token in (number, 99, str(number), True):
        table.calls.deliver(
            json.dumps(
                {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token}}
            ).encode()
        )
    # `True == 1`: without a look at the type it would be taken for the token 1.
    assert len(heard) == 1
    assert attempt.phase is Phase.STREAMING
    assert len(table.incoming) == 3


@pytest.mark.parametrize("params", [None, {}, {"progressToken": None}, "text"])
async def test_progress_without_a_usable_token_is_passed_on(params: object) -> None:
    table = Table()
    table.calls.open(OUT, Attempt())
    message: dict[str, object] = {"jsonrpc": "2.0", "method": "notifications/progress"}
    table.calls.deliver(json.dumps(message | ({} if params is None else {"params": params})).encode())
    assert [one.method for one in table.incoming] == ["notifications/progress"]


async def test_requests_of_the_upstream_are_answered_and_never_taken_for_answers() -> None:
    table = Table()
    number, future = table.calls.open(OUT, Attempt())
    table.calls.deliver(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}' % number)
    table.calls.deliver(b'{"jsonrpc":"2.0","id":"r","method":"roots/list"}')
    assert [json.loads(line) for line in table.sent] == [
        {"jsonrpc": "2.0", "id": number, "result": {}},
        {
            "jsonrpc": "2.0",
            "id": "r",
            "error": {"code": -32601, "message": "roots/list is not offered by this client"},
        },
    ]
    assert not future.done()


async def test_requests_that_show_nothing_they_belong_to_go_to_the_handler_of_the_transport() -> None:
    table = Table()
    asked: list[str] = []

    async def handler(request: Incoming) -> dict[str, object]:
        asked.append(request.method)
        return {"roots": []}

    table.calls.on_request = handler
    table.calls.deliver(b'{"jsonrpc":"2.0","id":"r","method":"roots/list"}')
    await turns()
    assert asked == ["roots/list"]
    assert [json.loads(line) for line in table.sent] == [{"jsonrpc": "2.0", "id": "r", "result": {"roots": []}}]


async def test_a_request_is_withdrawn_by_a_notification_that_goes_no_further() -> None:
    table = Table()

    async def handler(_: Incoming) -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    table.calls.on_request = handler
    table.calls.deliver(b'{"jsonrpc":"2.0","id":"r","method":"roots/list"}')
    await turns()
    table.calls.deliver(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"r"}}')
    await turns()
    assert (table.sent, table.incoming, len(table.tasks)) == ([], [], 0)


async def test_when_the_transport_is_gone_nobody_is_asked_any_more() -> None:
    table = Table()
    given_up: list[str] = []

    async def handler(request: Incoming) -> dict[str, object]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(request.method)
            raise
        return {}

    table.calls.on_request = handler
    table.calls.deliver(b'{"jsonrpc":"2.0","id":"r","method":"roots/list"}')
    await turns()
    table.calls.fail_all("the pipe broke")
    await turns()
    assert (given_up, table.sent, len(table.tasks)) == (["roots/list"], [], 0)


LOG = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"x"}}'


async def test_log_messages_belong_to_the_only_request_that_asked_for_some() -> None:
    table = Table()
    heard: list[Incoming] = []
    table.calls.open(OUT, Attempt())
    wanted, _ = table.calls.open(Outgoing("tools/call", {}, on_message=heard.append, logs=True), Attempt())
    table.calls.deliver(LOG)
    assert ([one.method for one in heard], table.incoming) == (["notifications/message"], [])
    table.calls.forget(wanted)
    table.calls.deliver(LOG)
    assert (len(heard), [one.method for one in table.incoming]) == (1, ["notifications/message"])


async def test_log_messages_that_could_be_of_several_requests_reach_none_of_them() -> None:
    table = Table()
    heard: list[Incoming] = []
    for _ in range(2):
        table.calls.open(Outgoing("tools/call", {}, on_message=heard.append, logs=True), Attempt())
    table.calls.deliver(LOG)
    assert (heard, len(table.incoming)) == ([], 1)


LISTEN = "subscriptions/listen"


def acknowledgement(subscription: object) -> bytes:
    params = {"notifications": {}, "_meta": {"io.modelcontextprotocol/subscriptionId": subscription}}
    return json.dumps({"jsonrpc": "2.0", "method": ACKNOWLEDGED, "params": params}).encode()


async def test_an_acknowledgement_reaches_the_subscription_whose_id_it_carries() -> None:
    table = Table()
    heard: list[int] = []
    attempts = [Attempt(), Attempt()]
    ids = [
        table.calls.open(Outgoing(LISTEN, {}, on_message=lambda _, n=n: heard.append(n)), attempt)[0]  # type: ignore[misc]
        for n, attempt in enumerate(attempts)
    ]
    table.calls.deliver(acknowledgement(ids[1]))
    assert (heard, table.incoming) == ([1], [])
    assert [attempt.phase for attempt in attempts] == [Phase.NOT_SENT, Phase.STREAMING]
    table.calls.deliver(acknowledgement(ids[0]))
    assert heard == [1, 0]


@pytest.mark.parametrize("subscription", ["1", 2, 0, -1, None, True, 1.0, [1], {"id": 1}])
async def test_an_acknowledgement_of_another_subscription_reaches_no_request(subscription: object) -> None:
    table = Table()
    heard: list[Incoming] = []
    number, _ = table.calls.open(Outgoing(LISTEN, {}, on_message=heard.append), Attempt())
    assert number == 1
    table.calls.deliver(acknowledgement(subscription))
    assert (heard, [one.method for one in table.incoming]) == ([], [ACKNOWLEDGED])


@pytest.mark.parametrize(
    "params", [None, {}, [], 7, "x", {"_meta": None}, {"_meta": 7}, {"_meta": []}, {"_meta": {}}], ids=str
)
async def test_an_acknowledgement_of_nothing_reaches_no_request(params: object) -> None:
    table = Table()
    heard: list[Incoming] = []
    table.calls.open(Outgoing(LISTEN, {}, on_message=heard.append), Attempt())
    message: dict[str, object] = {"jsonrpc": "2.0", "method": ACKNOWLEDGED}
    table.calls.deliver(json.dumps(message | ({} if params is None else {"params": params})).encode())
    assert (heard, len(table.incoming)) == ([], 1)


async def test_an_acknowledgement_after_the_subscription_has_ended_reaches_no_request() -> None:
    table = Table()
    heard: list[Incoming] = []
    number, _ = table.calls.open(Outgoing(LISTEN, {}, on_message=heard.append), Attempt())
    table.calls.forget(number)
    table.calls.deliver(acknowledgement(number))
    assert (heard, len(table.incoming)) == ([], 1)


async def test_noise_is_reported_to_the_transport() -> None:
    with pytest.raises(JsonError):
        Table().calls.deliver(b"Starting up!")


def test_a_progress_token_is_added_only_when_somebody_listens() -> None:
    params = {"name": "t", "_meta": {"k": 1}}
    assert tracked(Outgoing("m", params), 7) is params
    heard = Outgoing("m", params, on_message=lambda _: None)
    assert tracked(heard, 7) == {"name": "t", "_meta": {"k": 1, "progressToken": 7}}
    raw = Outgoing("m", {"_meta": Raw(b'{"k":1}')}, on_message=lambda _: None)
    assert tracked(raw, 7) == {"_meta": {"k": 1, "progressToken": 7}}
    assert params == {"name": "t", "_meta": {"k": 1}}
    only_logs = Outgoing("m", params, on_message=lambda _: None, progress=False)
    assert tracked(only_logs, 7) is params


def test_no_request_carries_the_progress_token_of_somebody_else() -> None:
    params = {"name": "t", "_meta": {"k": 1, "progressToken": 3}}
    assert tracked(Outgoing("m", params), 7) == {"name": "t", "_meta": {"k": 1}}
    heard = Outgoing("m", params, on_message=lambda _: None)
    assert tracked(heard, 7) == {"name": "t", "_meta": {"k": 1, "progressToken": 7}}


@pytest.mark.parametrize("odd", [7, "x", [1], None, Raw(b"7")])
def test_meta_that_is_no_object_keeps_nobody_from_hearing_of_progress(odd: object) -> None:
    heard = Outgoing("m", {"_meta": odd}, on_message=lambda _: None)
    assert tracked(heard, 7) == {"_meta": {"progressToken": 7}}
    silent = Outgoing("m", {"_meta": odd})
    assert tracked(silent, 7) is silent.params


def test_the_cancel_notice_names_the_request() -> None:
    notice = json.loads(cancel_notice(7))
    assert notice["method"] == "notifications/cancelled"
    assert notice["params"]["requestId"] == 7
    assert "id" not in notice


async def test_a_correlator_of_many_requests_gives_each_an_id_of_its_own() -> None:
    table = Table()
    ids = [table.calls.open(OUT, Attempt())[0] for _ in range(1000)]
    assert len(set(ids)) == 1000
    await asyncio.sleep(0)
