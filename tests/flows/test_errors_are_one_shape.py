"""Whatever goes wrong, and wherever: JSON in the one error shape, with its status in it and the request's id."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.edge.security_headers import SECURITY_HEADERS
from tests.faults.harness import FaultyUpstream
from tests.flows.inside import Inside, error_of, refusal, serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/health/nothing", "/tools%00", "/favicon.ico", "/servers/calc/nothing"]
)
async def test_an_unknown_path_is_404(calc: Inside, path: str):
    assert refusal(await calc.get(path)) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/tools", {"GET", "HEAD", "POST"}),
        ("PUT", "/tools", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "/tools", {"GET", "HEAD", "POST"}),
        ("POST", "/tools/list", {"GET", "HEAD"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("GET", "/api/tokens/revoke", {"POST"}),
        ("BREW", "/servers", {"GET", "HEAD", "POST"}),
        ("PUT", "/servers/calc", {"DELETE"}),
    ],
)
async def test_a_method_that_a_path_does_not_have_is_405_with_those_it_has(
    calc: Inside, method: str, path: str, allowed: set[str]
):
    reply = await calc.request(method, path)
    assert refusal(reply) == (405, "method_not_allowed")
    assert set(reply.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"Host": "evil.example"}, 421, "unknown_host"),
        ({"Host": "evil.example:5000"}, 421, "unknown_host"),
        ({"Host": "localhost.evil.example"}, 421, "unknown_host"),
        ({"Host": "a b"}, 400, "bad_request"),
        ({"Origin": "https://evil.example"}, 403, "origin_not_allowed"),
        ({"Origin": "null"}, 403, "origin_not_allowed"),
        ({"Origin": "http://localhost:9999"}, 403, "origin_not_allowed"),
        ({"Transfer-Encoding": "chunked", "Content-Length": "2"}, 400, "bad_request"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/tools"), ("GET", "/health/live"), ("GET", "/nothing")])
async def test_a_foreign_host_or_origin_is_refused_at_every_path(
    calc: Inside, method: str, path: str, headers: dict[str, str], status: int, kind: str
):
    assert refusal(await calc.request(method, path, headers=headers, data=b"{}")) == (status, kind)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:5000", "[::1]:5000", "LOCALHOST:1", "127.9.9.9"])
async def test_loopback_names_are_our_own(calc: Inside, host: str):
    assert (await calc.get("/health/live", headers={"Host": host})).status == 200
    own = {"Host": host, "Origin": f"http://{host.lower()}"}
    assert (await calc.get("/health/live", headers=own)).status == 200


async def test_allow_host_adds_names_and_on_other_binds_narrows_to_them(upstream: FaultyUpstream):
    async with serving(allow_host=("proxy.example",)) as inside:
        statuses = [
            (await inside.get("/", headers={"Host": h})).status for h in ("proxy.example", "localhost", "other")
        ]
        assert statuses == [200, 200, 421]
    async with serving(host="0.0.0.0") as inside:
        assert (await inside.get("/", headers={"Host": "anything.example"})).status == 200
    async with serving(host="0.0.0.0", allow_host=("proxy.example",)) as inside:
        assert (await inside.get("/", headers={"Host": "anything.example"})).status == 421


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/tools"), ("POST", "/tools/calc/add"), ("GET", "/tools"), ("GET", "/servers"), ("GET", "/health")],
)
async def test_a_fault_of_our_own_is_500_without_what_went_wrong_but_logged_with_it(
    upstream: FaultyUpstream, method: str, path: str
):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the-inner-reason")

    async with serving({"calc": {"url": upstream.url}}) as inside:
        manager: Any = inside.app.runtime.manager
        manager.resolve_tool = manager.settled = manager.describe = manager.health = broken
        body = {"json": {"method": "add"}} if method == "POST" else {}
        reply = await inside.request(method, path, **body)
        assert refusal(reply) == (500, "internal_error")
        assert b"inner" not in reply.body
        assert b"Traceback" not in reply.body
        (failed,) = inside.lines(level="error", event="unhandled_exception")
        assert "the-inner-reason" in failed["exception"]
        assert failed["request_id"] == error_of(reply)["request_id"]
        (line,) = inside.lines(event="request", request_id=error_of(reply)["request_id"])
        assert (line["status_code"], line["error"]) == (500, "internal_error")


@pytest.mark.parametrize(
    ("method", "path", "token", "status"),
    [
        ("GET", "/health/live", None, 200),
        ("GET", "/tools", "", 200),
        ("GET", "/tools", None, 401),
        ("GET", "/nothing", None, 404),
        ("DELETE", "/tools", None, 405),
        ("POST", "/tools", "", 400),
    ],
)
async def test_every_answer_has_an_id_and_the_headers_that_keep_browsers_out(
    calc: Inside, method: str, path: str, token: str | None, status: int
):
    reply = await calc.request(method, path, token=token)
    assert reply.status == status
    assert len(reply.headers["x-request-id"]) == 32
    for name, value in SECURITY_HEADERS:
        assert reply.headers[name.decode()] == value.decode()


async def test_head_is_answered_as_get_is_without_a_body(calc: Inside):
    reply = await calc.request("HEAD", "/health/live", token=None)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
