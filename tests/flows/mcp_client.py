"""MCP clients by hand: JSON-RPC over HTTP in each era and transport, so that tests see every message and can break rules.

`open_client` makes one of `KINDS`, and all of them are used alike. `reachable` is the application of `inside` behind a
real port. Upstreams to go with it are in `mcp_upstream`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.server import server_of
from mcp_proxy.serving.listeners import Listeners
from mcp_proxy.serving.terms import Serving
from tests.flows.inside import Inside, serving
from tests.harness import SERVER, WORKERS, eventually, make_token

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
KINDS = ("modern", "legacy", "sse")
EVERYTHING: dict[str, Any] = {"elicitation": {"form": {}}, "sampling": {}, "roots": {"listChanged": True}}
INFO = {"name": "by-hand", "version": "1"}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
PATIENCE = 10.0
"""Seconds that any answer may take."""

Message = dict[str, Any]
OnAsk = Callable[[str, Message], Message | Awaitable[Message]]


@dataclass
class Answer:
    """One HTTP answer: its JSON-RPC response, and in ``before`` what came ahead of that in its stream."""

    status: int
    headers: Mapping[str, str]
    message: Any = None
    before: list[Message] = field(default_factory=list)
    body: bytes = b""

    @property
    def result(self) -> Message:
        assert isinstance(self.message, dict), (self.status, self.body)
        assert "result" in self.message, self.message
        found: Message = self.message["result"]
        return found

    @property
    def error(self) -> Message:
        assert isinstance(self.message, dict), (self.status, self.body)
        assert "error" in self.message, self.message
        found: Message = self.message["error"]
        return found

    @property
    def refusal(self) -> tuple[int, int]:
        """HTTP status and JSON-RPC code."""
        return self.status, self.error["code"]

    @property
    def text(self) -> str:
        """The first text of a tool's result."""
        found: str = self.result["content"][0]["text"]
        return found


def answer_all(method: str, params: Message) -> Message:
    """An agreeable client: every question has the answer that its text asks for."""
    if method == "elicitation/create":
        return {"action": "accept", "content": {"name": f"answer to {params['message']}"}}
    if method == "sampling/createMessage":
        said = params["messages"][0]["content"]["text"]
        content = {"type": "text", "text": f"model on {said}"}
        return {"role": "assistant", "content": content, "model": "m", "stopReason": "endTurn"}
    return {"roots": [{"uri": "file:///root", "name": "root"}]}


class Http:
    """Plain HTTP with a token. ``token``: "" makes an ordinary one, None sends none."""

    def __init__(self, base: str, token: str | None = "") -> None:
        self.base, self.token = base, token
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)

    async def close(self) -> None:
        await self.session.close()

    def headers(self, more: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        own = [] if self.token is None else [("Authorization", f"Bearer {self.token or make_token()}")]
        return own + list((more or {}).items())

    async def send(
        self, method: str, path: str, headers: Mapping[str, str] | list[tuple[str, str]] | None = None, data: Any = None
    ) -> Answer:
        """One request, its answer read whole."""
        given = self.headers() + headers if isinstance(headers, list) else self.headers(headers)
        async with asyncio.timeout(PATIENCE):
            skip = ("Content-Type", "Accept")
            request = self.session.request(method, self.base + path, headers=given, data=data, skip_auto_headers=skip)
            async with request as answer:
                return await read_answer(answer)


async def read_answer(answer: aiohttp.ClientResponse, on_message: Callable[[Message], Any] | None = None) -> Answer:
    """The whole answer; ``on_message`` hears of what comes ahead of the response, as it comes."""
    found = Answer(answer.status, answer.headers)
    if answer.content_type == "text/event-stream":
        async for _, message in events(answer):
            if "id" in message and "method" not in message:
                found.message = message
            else:
                found.before.append(message)
                if on_message is not None:
                    on_message(message)
    else:
        found.body = await answer.read()
        with suppress(ValueError):
            found.message = json.loads(found.body)
    return found


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Name and data of each server-sent event; data is decoded where it is JSON."""
    name, data = "message", ""
    buffer = b""
    async for chunk in answer.content.iter_any():
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for raw in lines:
            line = raw.decode().rstrip("\r")
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                data += line[5:].removeprefix(" ")
            elif not line and data:
                yield name, json.loads(data) if name == "message" else data
                name, data = "message", ""


class Client:
    """What the clients have in common: `request` for one request, `use` for one with all the questions that come of it."""

    kind = ""

    def __init__(self, http: Http, capabilities: Message, on_ask: OnAsk, path: str) -> None:
        self.http, self.capabilities, self.on_ask, self.path = http, capabilities, on_ask, path
        self.notes: list[Message] = []
        """Every notification, in order."""
        self.asked: list[tuple[str, Message]] = []
        """Every question, in order."""
        self.ids = itertools.count(1)
        self.failures: list[str] = []
        self.tasks = TaskSet(lambda name, error: self.failures.append(f"{name}: {error!r}"))

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.leave()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.leave()
        if kind is None:
            assert not self.failures, self.failures

    async def open(self) -> None:
        """Introduce the client."""

    async def leave(self) -> None:
        """Go away without a word."""
        await self.tasks.close()
        await self.http.close()

    async def request(self, method: str, params: Message | None = None, **more: Any) -> Answer:
        """One request and its answer. ``more``: id=, and headers= where there are any."""
        raise NotImplementedError

    async def use(self, method: str, params: Message | None = None, **more: Any) -> Answer:
        """A request until its result, whatever is asked meanwhile."""
        return await self.request(method, params, **more)

    async def call(self, tool: str, arguments: Message | None = None, **more: Any) -> Answer:
        """``tools/call`` until its result."""
        return await self.use("tools/call", {"name": tool, "arguments": arguments or {}}, **more)

    async def names(self, kind: str = "tools") -> list[str]:
        """What a list shows: names, URIs, templates."""
        method = "resources/templates/list" if kind == "resourceTemplates" else f"{kind}/list"
        key = {"resources": "uri", "resourceTemplates": "uriTemplate"}.get(kind, "name")
        return [one[key] for one in (await self.request(method)).result[kind]]

    async def cancel(self, request_id: int | str) -> None:
        """Tell that an answer is no longer wanted (legacy)."""
        await self.tell("notifications/cancelled", {"requestId": request_id})

    async def tell(self, method: str, params: Message | None = None) -> None:
        """Send a notification."""
        raise NotImplementedError

    async def listen(self, resources: list[str] | None = None) -> None:
        """Hear of changed lists, and of these resources."""
        raise NotImplementedError

    def heard(self, method: str) -> list[Message]:
        return [note for note in self.notes if note["method"] == method]

    async def hears(self, method: str, times: int = 1, timeout: float = 8) -> list[Message]:
        """Wait for a notification."""
        await eventually(lambda: len(self.heard(method)) >= times, timeout, what=f"{self.kind} hears {method}")
        return self.heard(method)

    async def _answer_to(self, message: Message) -> Message:
        method, params = message["method"], message.get("params") or {}
        self.asked.append((method, params))
        found = self.on_ask(method, params)
        return await found if isinstance(found, Awaitable) else found

    def _take(self, message: Message) -> None:
        """A message that is no response."""
        if "id" in message:
            self.tasks.spawn(self._reply(message), "answer")
        else:
            self.notes.append(message)

    async def _reply(self, message: Message) -> None:
        answer = await self._answer_to(message)
        body = {"error": answer["error"]} if "error" in answer else {"result": answer}
        await self._post({"jsonrpc": "2.0", "id": message["id"], **body})

    async def _post(self, message: Message, headers: Mapping[str, str] | None = None) -> Answer:
        raise NotImplementedError


def message_of(id: Any, method: str, params: Message | None) -> Message:
    message: Message = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        message["id"] = id
    if params is not None:
        message["params"] = params
    return message


JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


class Legacy(Client):
    """Streamable HTTP with a session."""

    kind = "legacy"
    version = LEGACY
    key: str | None = None

    async def open(self) -> None:
        params = {"protocolVersion": self.version, "capabilities": self.capabilities, "clientInfo": INFO}
        opened = await self._post(message_of(0, "initialize", params))
        assert opened.status == 200, (opened.status, opened.message)
        self.opened = opened.result
        self.key = opened.headers["Mcp-Session-Id"]
        await self.tell("notifications/initialized")

    @property
    def session_headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Mcp-Session-Id": self.key, "MCP-Protocol-Version": self.version}

    async def _post(self, message: Message, headers: Mapping[str, str] | None = None) -> Answer:
        sent = self.http.headers({**JSON, **self.session_headers, **(headers or {})})
        async with (
            asyncio.timeout(PATIENCE),
            self.http.session.post(self.http.base + self.path, json=message, headers=sent) as answer,
        ):
            return await read_answer(answer, self._take)

    async def request(self, method: str, params: Message | None = None, **more: Any) -> Answer:
        id = more.pop("id", None) or next(self.ids)
        return await self._post(message_of(id, method, params), **more)

    async def tell(self, method: str, params: Message | None = None) -> None:
        assert (await self._post(message_of(None, method, params))).status == 202

    async def listen(self, resources: list[str] | None = None) -> None:
        ready = asyncio.Event()
        self.stream = self.tasks.spawn(self._stream(ready), "GET stream")
        await asyncio.wait_for(ready.wait(), PATIENCE)
        for uri in resources or ():
            assert (await self.request("resources/subscribe", {"uri": uri})).result == {}

    async def _stream(self, ready: asyncio.Event) -> None:
        sent = self.http.headers({"Accept": "text/event-stream", **self.session_headers})
        with suppress(aiohttp.ClientPayloadError):
            async with self.http.session.get(self.http.base + self.path, headers=sent) as answer:
                assert answer.status == 200, answer.status
                ready.set()
                async for _, message in events(answer):
                    self._take(message)


class Sse(Client):
    """HTTP+SSE of 2024-11-05."""

    kind = "sse"

    async def open(self) -> None:
        self.waiting: dict[Any, asyncio.Future[Message]] = {}
        self.strays: list[Message] = []
        """Answers that nobody waited for."""
        self.place = asyncio.get_running_loop().create_future()
        self.stream = self.tasks.spawn(self._stream(), "SSE stream")
        self.endpoint: str = await asyncio.wait_for(self.place, PATIENCE)
        params = {"protocolVersion": "2024-11-05", "capabilities": self.capabilities, "clientInfo": INFO}
        self.opened = (await self.request("initialize", params, id="start")).result
        await self.tell("notifications/initialized")

    async def _stream(self) -> None:
        headers = self.http.headers({"Accept": "text/event-stream"})
        with suppress(aiohttp.ClientPayloadError):
            async with self.http.session.get(self.http.base + "/sse", headers=headers) as answer:
                assert answer.status == 200, answer.status
                async for name, message in events(answer):
                    if name == "endpoint":
                        self.place.set_result(message)
                    elif "method" in message:
                        self._take(message)
                    elif (waiter := self.waiting.get(message["id"])) is not None and not waiter.done():
                        waiter.set_result(message)
                    else:
                        self.strays.append(message)

    async def _post(self, message: Message, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.http.send("POST", self.endpoint, {**JSON, **(headers or {})}, json.dumps(message).encode())

    async def request(self, method: str, params: Message | None = None, **more: Any) -> Answer:
        id = more.pop("id", None) or next(self.ids)
        waiter = self.waiting[id] = asyncio.get_running_loop().create_future()
        taken = await self._post(message_of(id, method, params), **more)
        if taken.status != 202:
            return taken
        return Answer(200, taken.headers, await asyncio.wait_for(waiter, PATIENCE))

    async def tell(self, method: str, params: Message | None = None) -> None:
        assert (await self._post(message_of(None, method, params))).status == 202

    async def listen(self, resources: list[str] | None = None) -> None:
        for uri in resources or ():
            assert (await self.request("resources/subscribe", {"uri": uri})).result == {}


class Modern(Client):
    """Streamable HTTP without sessions."""

    kind = "modern"
    log_level: str | None = None

    def envelope(self, params: Message | None) -> Message:
        """``params`` with what every request says of its client."""
        own = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": self.capabilities,
            "io.modelcontextprotocol/clientInfo": INFO,
        }
        if self.log_level is not None:
            own["io.modelcontextprotocol/logLevel"] = self.log_level
        given = params or {}
        return {**given, "_meta": {**given.get("_meta", {}), **own}}

    def headers(self, method: str, params: Message) -> dict[str, str]:
        """The headers that repeat what the body says."""
        named = params.get(NAMED.get(method, ""))
        more = {"Mcp-Name": named} if isinstance(named, str) else {}
        return {**JSON, "MCP-Protocol-Version": MODERN, "Mcp-Method": method, **more}

    async def request(self, method: str, params: Message | None = None, **more: Any) -> Answer:
        full = self.envelope(params)
        id = more.pop("id", None) or next(self.ids)
        headers = self.http.headers({**self.headers(method, full), **more.pop("headers", {})})
        async with (
            asyncio.timeout(PATIENCE),
            self.http.session.post(
                self.http.base + self.path, json=message_of(id, method, full), headers=headers
            ) as answer,
        ):
            return await read_answer(answer, self._take)

    async def use(self, method: str, params: Message | None = None, **more: Any) -> Answer:
        params = dict(params or {})
        for _ in range(20):
            answer = await self.request(method, params, **more)
            found = answer.message.get("result") if isinstance(answer.message, dict) else None
            if not isinstance(found, dict) or found.get("resultType") != "input_required":
                return answer
            params["inputResponses"] = {
                key: await self._answer_to(wanted) for key, wanted in found.get("inputRequests", {}).items()
            }
            params.pop("requestState", None)
            if "requestState" in found:
                params["requestState"] = found["requestState"]
        raise AssertionError("asked too often")

    async def listen(self, resources: list[str] | None = None) -> None:
        wanted: Message = {f"{kind}ListChanged": True for kind in ("tools", "prompts", "resources")}
        if resources:
            wanted["resourceSubscriptions"] = resources
        self.ended: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.stream = self.tasks.spawn(self._listen(wanted), "listen")
        acknowledged = await self.hears("notifications/subscriptions/acknowledged")
        self.honoured = acknowledged[-1]["params"]["notifications"]

    async def _listen(self, wanted: Message) -> None:
        params = self.envelope({"notifications": wanted})
        headers = self.http.headers(self.headers("subscriptions/listen", params))
        message = message_of("listening", "subscriptions/listen", params)
        async with self.http.session.post(self.http.base + self.path, json=message, headers=headers) as answer:
            self.ended.set_result(await read_answer(answer, self._take))


def open_client(
    kind: str,
    base: str,
    *,
    token: str | None = "",
    capabilities: Message | None = None,
    on_ask: OnAsk = answer_all,
    path: str = "/mcp",
) -> Client:
    """A client of one of `KINDS`; an async context, introduced inside. ``capabilities``: None offers everything."""
    made = {"modern": Modern, "legacy": Legacy, "sse": Sse}[kind]
    return made(Http(base, token), EVERYTHING if capabilities is None else capabilities, on_ask, path)


@dataclass
class House:
    """The application behind a port."""

    inside: Inside
    port: int
    stop: Callable[[], Awaitable[None]]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def runtime(self) -> Any:
        return self.inside.app.runtime

    def client(self, kind: str, **more: Any) -> Any:
        """See `open_client`."""
        return open_client(kind, self.base, **more)

    def http(self, token: str | None = "") -> Http:
        return Http(self.base, token)


@asynccontextmanager
async def reachable(
    servers: Mapping[str, Any] | None = None, *, settle: bool = True, **settings: Any
) -> AsyncIterator[House]:
    """`inside.serving`, and a port of the loopback where its application listens."""
    async with serving(servers, settle=settle, **{"server": SERVER, "workers": int(WORKERS), **settings}) as inside:
        runtime = inside.app.runtime
        listeners = Listeners(runtime.settings.host)
        port = listeners.listen([0], "PORT")
        end = asyncio.Event()
        failed: list[str] = []
        tasks = TaskSet(lambda name, error: failed.append(f"{name}: {error!r}"))
        app = inside.app.asgi_app

        async def only_requests(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":  # `serving` has started it
                while True:
                    event = await receive()
                    await send({"type": f"{event['type']}.complete"})
                    if event["type"] == "lifespan.shutdown":
                        return
            await app(scope, receive, send)

        async def until_stopped() -> None:
            await end.wait()

        serve = server_of(runtime.settings)
        how = Serving(only_requests, listeners, until_stopped, tasks, runtime.log, runtime.clock, runtime.ids)
        server = tasks.spawn(serve(how), "server")

        async def stop() -> None:
            """As the program does at a signal."""
            inside.app.runtime.gate.not_ready = True
            await inside.app.runtime.drain()
            end.set()
            await asyncio.wait([server], timeout=5)

        try:
            yield House(inside, port, stop)
        finally:
            await inside.app.runtime.mcp.close()
            await inside.app.runtime.sse.close()
            end.set()
            await asyncio.wait([server], timeout=5)
            await tasks.close()
        assert not failed, failed
        assert not inside.lines(event="task_failed"), inside.lines(event="task_failed")
        assert not inside.lines(event="unhandled_exception"), inside.lines(event="unhandled_exception")
