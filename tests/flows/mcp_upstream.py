"""An MCP server in this process, of either era or both, whose lists change at a word and which remembers what it was sent.

    async with upstream(era="legacy") as one: …one.url…

Tools: ``echo {text}``, ``ask {who}``, ``ask_twice {who}``, ``sample {text}``, ``roots``, ``progress``, ``log``, ``link``,
``hang``, ``ask_later {who}`` (asks once `Upstream.go` is set), ``fail {code, message}``, ``die`` (cuts the connection),
``large {size}``, ``meta`` (returns what ``_meta`` it got), ``withdraw {who}`` (legacy: asks, and takes that back once
`Upstream.go` is set), ``progress_apart`` (legacy: reports on the standing stream). The others work in both eras.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.harness import eventually

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
Message = dict[str, Any]


def tool(name: str, **properties: str) -> Message:
    """A tool's definition; all of its arguments are needed."""
    shapes = {key: {"type": kind} for key, kind in properties.items()}
    return {"name": name, "inputSchema": {"type": "object", "properties": shapes, "required": list(shapes)}}


TOOLS = [
    tool("echo", text="string"), tool("ask", who="string"), tool("ask_twice", who="string"),
    tool("sample", text="string"), tool("roots"), tool("progress"), tool("log"), tool("link"), tool("hang"),
    tool("ask_later", who="string"), tool("fail", code="integer", message="string"), tool("die"),
    tool("withdraw", who="string"), tool("progress_apart"), tool("progress_while_asking"), tool("large", size="integer"), tool("meta"),
]  # fmt: skip


class Refused(Exception):
    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


class Needed(Exception):
    """A modern client has to answer first."""

    def __init__(self, requests: Message, state: str) -> None:
        super().__init__("input required")
        self.result = {"resultType": "input_required", "inputRequests": requests, "requestState": state}


@dataclass
class Received:
    """One message as it came."""

    method: str
    params: Message
    headers: Mapping[str, str]
    session: str | None


@dataclass
class Upstream:
    """The server. Change its lists and call `announce`."""

    era: str = "both"
    name: str = "upstream"
    tools: list[Message] = field(default_factory=lambda: list(TOOLS))
    prompts: list[Message] = field(default_factory=list)
    resources: list[Message] = field(default_factory=list)
    templates: list[Message] = field(default_factory=list)
    gated: list[Message] = field(default_factory=list)
    """Tools that only clients with elicitation are shown, some perhaps in place of one of the same name."""
    received: list[Received] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    """Tools whose call was taken back."""
    opened: dict[str, Message] = field(default_factory=dict)
    """What each session's client said of itself."""
    ended: list[str] = field(default_factory=list)
    """Sessions that were ended by their client."""
    subscribed: dict[str, set[str]] = field(default_factory=dict)
    """URIs by legacy session."""
    asked: dict[Any, asyncio.Future[Message]] = field(default_factory=dict)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    delay: float = 0
    """Seconds before a list or a handshake is answered."""
    port: int = 0

    def __post_init__(self) -> None:
        self._streams: dict[str, web.StreamResponse] = {}
        self._listening: list[tuple[web.StreamResponse, Message, Any]] = []
        self._running: dict[tuple[str | None, Any], asyncio.Task[Any]] = {}
        self._ids = itertools.count(1)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def calls(self, method: str = "tools/call") -> list[Received]:
        return [one for one in self.received if one.method == method]

    def called(self, name: str) -> int:
        """How often a tool was called; rounds count."""
        return sum(one.params.get("name") == name for one in self.calls())

    @property
    def following(self) -> set[str]:
        """URIs that somebody follows."""
        modern = [uri for _, wanted, _ in self._listening for uri in wanted.get("resourceSubscriptions", ())]
        return {uri for uris in self.subscribed.values() for uri in uris} | set(modern)

    @property
    def is_listened_to(self) -> bool:
        """Whether anybody would hear of changed lists."""
        return bool(self._streams) or any("toolsListChanged" in wanted for _, wanted, _ in self._listening)

    # Life

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/mcp", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Go away, and forget all sessions; `start` brings it back at the same address."""
        assert self._runner is not None
        for task in self._running.values():
            task.cancel()
        for stream in [*self._streams.values(), *(stream for stream, _, _ in self._listening)]:
            _abort(stream)
        self._streams.clear()
        self._listening.clear()
        self.subscribed.clear()
        self.opened.clear()
        await self._runner.cleanup()

    # Resources

    def has(self, uri: str) -> bool:
        """Whether there is such a resource. Those below ``linked`` are there and not listed."""
        starts = [one["uriTemplate"].partition("{")[0] for one in self.templates] + [f"{self.name}://linked"]
        return uri.startswith(tuple(starts)) or any(one["uri"] == uri for one in self.resources)

    def check(self, uri: str, *, modern: bool) -> None:
        if not self.has(uri):
            raise Refused(-32602 if modern else -32002, "Resource not found", {"uri": uri})

    # Telling

    async def announce(self, kind: str = "tools") -> None:
        """``list_changed``, to everybody who listens."""
        await self._tell(f"notifications/{kind}/list_changed", {}, f"{kind}ListChanged")

    async def update(self, uri: str) -> None:
        """``resources/updated``, to those who follow it."""
        await self._tell("notifications/resources/updated", {"uri": uri}, uri)

    async def _tell(self, method: str, params: Message, wish: str) -> None:
        for key, stream in list(self._streams.items()):
            if wish.endswith("ListChanged") or wish in self.subscribed.get(key, ()):
                await _event(stream, {"jsonrpc": "2.0", "method": method, "params": params})
        for stream, wanted, id in list(self._listening):
            if wish in wanted or wish in wanted.get("resourceSubscriptions", ()):
                marked = {**params, "_meta": {META + "subscriptionId": id}}
                await _event(stream, {"jsonrpc": "2.0", "method": method, "params": marked})

    # HTTP

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        key = request.headers.get("Mcp-Session-Id")
        if request.method == "GET":
            return await self._standing(request, key)
        if request.method == "DELETE":
            if key in self.opened:
                self.ended.append(key)
                del self.opened[key]
            return web.Response(status=200)
        message = await request.json()
        modern = request.headers.get("MCP-Protocol-Version") == MODERN
        method, params = message.get("method"), message.get("params") or {}
        if method is None:
            waiter = self.asked.get(message["id"])
            if waiter is not None and not waiter.done():
                waiter.set_result(message)
            return web.Response(status=202)
        self.received.append(Received(method, params, dict(request.headers), key))
        if problem := self._problem(message, modern, key):
            return problem
        if "id" not in message:
            self._noticed(key, method, params)
            return web.Response(status=202)
        return await self._answer(request, message, modern, key)

    def _problem(self, message: Message, modern: bool, key: str | None) -> web.Response | None:
        if self.era not in ("both", "modern" if modern else "legacy"):
            data = {"supported": [MODERN], "requested": LEGACY} if self.era == "modern" else None
            refused = Refused(-32022 if data else -32600, "Bad Request: not spoken here", data)
            return web.json_response({"jsonrpc": "2.0", "id": None, "error": refused.error}, status=400)
        if not modern and message["method"] not in ("initialize", "server/discover") and key not in self.opened:
            error = {"code": -32600, "message": "Session not found"}
            return web.json_response({"jsonrpc": "2.0", "id": None, "error": error}, status=404)
        return None

    def _noticed(self, key: str | None, method: str, params: Message) -> None:
        if method == "notifications/cancelled" and (task := self._running.get((key, params["requestId"]))):
            task.cancel()

    async def _standing(self, request: web.Request, key: str | None) -> web.StreamResponse:
        if key not in self.opened:
            return web.Response(status=404 if key else 405)
        stream = await _stream(request)
        self._streams[key] = stream
        try:
            await asyncio.Event().wait()
        finally:
            if self._streams.get(key) is stream:
                del self._streams[key]
        return stream

    async def _answer(
        self, request: web.Request, message: Message, modern: bool, key: str | None
    ) -> web.StreamResponse:
        method, params = message["method"], message.get("params") or {}
        if method == "subscriptions/listen":
            return await self._listen(request, message)
        if method in ("tools/call", "prompts/get", "resources/read"):
            stream = await _stream(request)
            await _event(stream, await self._work(stream, message, modern, key))
            return stream
        headers = {}
        try:
            result = await self._plain(method, params, modern, key)
        except Refused as refused:
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": refused.error})
        if method == "initialize":
            headers["Mcp-Session-Id"] = result.pop("session")
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)

    async def _listen(self, request: web.Request, message: Message) -> web.StreamResponse:
        stream = await _stream(request)
        wanted = dict(message["params"]["notifications"])
        if "resourceSubscriptions" in wanted:
            wanted["resourceSubscriptions"] = [uri for uri in wanted["resourceSubscriptions"] if self.has(uri)]
        meta = {META + "subscriptionId": message["id"]}
        params = {"notifications": wanted, "_meta": meta}
        await _event(stream, {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params})
        entry = (stream, wanted, message["id"])
        self._listening.append(entry)
        try:
            await asyncio.Event().wait()
        finally:
            if entry in self._listening:
                self._listening.remove(entry)
        return stream

    # Methods

    def _capabilities(self) -> Message:
        listed = {"listChanged": True}
        found: Message = {"tools": listed, "logging": {}}
        if self.prompts:
            found |= {"prompts": listed, "completions": {}}
        if self.resources or self.templates:
            found["resources"] = {**listed, "subscribe": True}
        return found

    async def _plain(self, method: str, params: Message, modern: bool, key: str | None) -> Message:
        if self.delay:
            await asyncio.sleep(self.delay)
        info = {"name": self.name, "version": "1"}
        if method == "initialize":
            session = secrets.token_hex(8)
            self.opened[session] = params
            told = {"protocolVersion": LEGACY, "capabilities": self._capabilities(), "serverInfo": info}
            return {**told, "session": session}
        done: Message = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if modern else {}
        if method == "server/discover":
            return {**done, "supportedVersions": [MODERN], "capabilities": self._capabilities()}
        if method == "tools/list":
            offers = params["_meta"][META + "clientCapabilities"] if modern else self.opened[key or ""]["capabilities"]
            gated = self.gated if "elicitation" in offers else []
            names = {one["name"] for one in gated}
            return {**done, "tools": [one for one in self.tools if one["name"] not in names] + gated}
        if method in ("resources/subscribe", "resources/unsubscribe", "ping", "logging/setLevel"):
            return self._accept(method, params, key or "")
        return {**done, **self._found(method, params)}

    def _accept(self, method: str, params: Message, key: str) -> Message:
        if method == "resources/subscribe":
            self.check(params["uri"], modern=False)
            self.subscribed.setdefault(key, set()).add(params["uri"])
        if method == "resources/unsubscribe":
            self.subscribed.get(key, set()).discard(params["uri"])
        return {}

    def _found(self, method: str, params: Message) -> Message:
        if method == "completion/complete":
            known = {one["name"] for one in self.prompts} | {one["uriTemplate"] for one in self.templates}
            if not known & set(params["ref"].values()):
                raise Refused(-32602, "Nothing to complete")
            return {"completion": {"values": [f"{self.name} completes"], "total": 1, "hasMore": False}}
        lists = {
            "prompts/list": ("prompts", self.prompts),
            "resources/list": ("resources", self.resources),
            "resources/templates/list": ("resourceTemplates", self.templates),
        }
        if method in lists:
            return {lists[method][0]: lists[method][1]}
        raise Refused(-32601, "Method not found")

    async def _work(self, stream: web.StreamResponse, message: Message, modern: bool, key: str | None) -> Message:
        place = (key, message["id"]) if not modern else (None, object())
        task = self._running[place] = asyncio.current_task()  # type: ignore[assignment]
        turn = Turn(self, stream, message["params"], modern, key)
        try:
            result = await turn.result(message["method"])
        except Needed as needed:
            result = needed.result
        except Refused as refused:
            return {"jsonrpc": "2.0", "id": message["id"], "error": refused.error}
        except asyncio.CancelledError:
            self.cancelled.append(str(message["params"].get("name")))
            raise
        finally:
            if self._running.get(place) is task:
                del self._running[place]
        if modern:
            result.setdefault("resultType", "complete")
            if message["method"] == "resources/read":
                result |= {"ttlMs": 0, "cacheScope": "private"}
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}


@dataclass
class Turn:
    """One call being worked on."""

    server: Upstream
    stream: web.StreamResponse
    params: Message
    modern: bool
    key: str | None

    def __post_init__(self) -> None:
        state = self.params.get("requestState")
        self.answers: Message = json.loads(state) if state else {}
        self.answers |= self.params.get("inputResponses") or {}

    async def ask(self, name: str, method: str, params: Message) -> Message:
        if self.modern:
            if name not in self.answers:
                raise Needed({name: {"method": method, "params": params}}, json.dumps(self.answers))
            found: Message = self.answers[name]
            return found
        id = f"q{next(self.server._ids)}"
        waiter = self.server.asked[id] = asyncio.get_running_loop().create_future()
        await _event(self.stream, {"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        answer = await waiter
        if "error" in answer:
            raise Refused(answer["error"]["code"], f"the client says: {answer['error']['message']}")
        result: Message = answer["result"]
        return result

    async def elicit(self, name: str, message: str) -> str:
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        answer = await self.ask(
            name, "elicitation/create", {"mode": "form", "message": message, "requestedSchema": schema}
        )
        return str(answer.get("content") or answer.get("action") or {"name": answer})

    async def notify(self, method: str, params: Message) -> None:
        await _event(self.stream, {"jsonrpc": "2.0", "method": method, "params": params})

    async def result(self, method: str) -> Message:
        if method == "prompts/get":
            return {"messages": [{"role": "user", "content": text(f"{self.server.name} {self.params['name']}")}]}
        if method == "resources/read":
            return self._resource(self.params["uri"])
        return {"content": [text(await self._tool(self.params["name"], self.params.get("arguments") or {}))]}

    def _resource(self, uri: str) -> Message:
        self.server.check(uri, modern=self.modern)
        return {"contents": [{"uri": uri, "text": f"{self.server.name} has {uri}"}]}

    async def _tool(self, name: str, args: Message) -> str:
        works = {
            "withdraw": self._withdraw,
            "progress_apart": self._report_apart,
            "progress_while_asking": self._report_while_asking,
            "die": self._die,
            "sample": self._sample,
        }
        if name in works:
            return await works[name](args)
        if name in ("progress", "log"):
            return await self._report(name)
        if name in ("ask", "ask_twice", "ask_later"):
            return await self._ask(name, args["who"])
        if name == "roots":
            return str((await self.ask("listed", "roots/list", {}))["roots"][0]["uri"])
        if name == "hang":
            await asyncio.Event().wait()
        if name == "fail":
            raise Refused(args["code"], args["message"], {"of": self.server.name})
        if name == "large":
            return "é\u2028" * (args["size"] // 2)
        if name == "meta":
            return json.dumps(self.params.get("_meta") or {})
        return f"{self.server.name} {name} {args.get('text', '')}".strip()

    async def _ask(self, name: str, who: str) -> str:
        if name == "ask_later":
            await self.server.go.wait()
            return await self.elicit("one", f"later, {who}")
        if name == "ask":
            return await self.elicit("one", f"who is {who}?")
        first = await self.elicit("one", f"first, {who}")
        return first + " " + await self.elicit("two", f"second, {who}")

    async def _sample(self, args: Message) -> str:
        wanted = {"messages": [{"role": "user", "content": text(args["text"])}], "maxTokens": 10}
        return str((await self.ask("said", "sampling/createMessage", wanted))["content"]["text"])

    async def _die(self, args: Message) -> str:
        _abort(self.stream)
        await asyncio.Event().wait()
        raise AssertionError

    async def _report_apart(self, args: Message) -> str:
        self.stream = await self._standing()
        await self._report("progress")
        await asyncio.sleep(0.1)  # the answer takes another way, and would overtake it
        return "progress"

    async def _report_while_asking(self, args: Message) -> str:
        """The first step is reported before the question, the second while it is open, the third after the answer."""
        token = self.params["_meta"]["progressToken"]

        async def report(step: int) -> None:
            await self.notify("notifications/progress", {"progressToken": token, "progress": step})

        await report(1)
        async with asyncio.TaskGroup() as group:
            said = group.create_task(self.elicit("one", "who are you?"))
            await self.server.go.wait()
            await report(2)
        await report(3)
        return said.result()

    async def _standing(self) -> web.StreamResponse:
        return await eventually(lambda: self.server._streams.get(self.key), what="the proxy holds a stream")

    async def _withdraw(self, args: Message) -> str:
        schema = {"type": "object", "properties": {}}
        params = {"mode": "form", "message": f"never mind, {args['who']}", "requestedSchema": schema}
        id = f"q{next(self.server._ids)}"
        await _event(self.stream, {"jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params})
        await self.server.go.wait()
        await self.notify("notifications/cancelled", {"requestId": id, "reason": "never mind"})
        return "withdrawn"

    async def _report(self, name: str) -> str:
        meta = self.params.get("_meta") or {}
        for step in (1, 2, 3):
            if name == "progress" and "progressToken" in meta:
                await self.notify(
                    "notifications/progress", {"progressToken": meta["progressToken"], "progress": step, "total": 3}
                )
            if name == "log" and (not self.modern or META + "logLevel" in meta):
                await self.notify("notifications/message", {"level": "info", "data": f"step {step}"})
        return name


def _abort(stream: web.StreamResponse) -> None:
    """Cut the connection."""
    if stream._req is not None and stream._req.transport is not None:
        stream._req.transport.abort()


def text(content: str) -> Message:
    return {"type": "text", "text": content}


async def _stream(request: web.Request) -> web.StreamResponse:
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(request)
    return stream


async def _event(stream: web.StreamResponse, message: Message) -> None:
    with contextlib.suppress(ConnectionError):
        await stream.write(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n")


@asynccontextmanager
async def upstream(**fields: Any) -> AsyncIterator[Upstream]:
    """One that runs for as long as the block; ``fields`` are those of `Upstream`."""
    one = Upstream(**fields)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()
