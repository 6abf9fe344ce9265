"""The table of faults. Each changes the `Reply` of one tools/call; how a reply is put on a wire is the wires' matter.

`STATES` at the end are the faults that are not about one call; `server` and the wires ask for them by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

MIB = 1024 * 1024


@dataclass
class Reply:
    """What a wire does in answer to one message."""

    message: dict[str, Any] | None = None  # the JSON-RPC reply
    before: list[dict[str, Any]] = field(default_factory=list)  # messages ahead of it
    raw: bytes | None = None  # instead of the message's JSON
    status: int = 200  # HTTP
    headers: dict[str, str] = field(default_factory=dict)  # HTTP
    content_type: str = "application/json"  # HTTP, when the shape is json
    shape: Literal["json", "sse"] | None = None  # HTTP; None: as usual in this era
    frame: Callable[[bytes], bytes] | None = None  # SSE: how the body becomes an event
    junk: bytes = b""  # a line ahead of the reply that no protocol has (a comment in SSE)
    delay: float = 0  # seconds before the reply
    drip: float = 0  # seconds for which the reply trickles, byte after byte
    cut: bool = False  # half of it, then the end of the connection
    copies: int = 1
    end: Literal["hang", "close", "die"] | None = None  # instead of an answer

    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return json.dumps(self.message, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def result(self) -> dict[str, Any]:
        assert self.message is not None
        return self.message["result"]


@dataclass(frozen=True)
class Call:
    """One tools/call, as a fault sees it. Options are the call's own arguments, else those of the mode."""

    request: dict[str, Any]
    arguments: dict[str, Any]
    options: dict[str, Any]

    def option(self, name: str, default: Any) -> Any:
        return self.arguments.get(name, self.options.get(name, default))


@dataclass(frozen=True)
class Fault:
    name: str
    help: str
    executes: bool  # whether the tool runs (and is in the ledger) before things go wrong
    apply: Callable[[Call, Reply], None]


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, help: str, *, executes: bool = True
) -> Callable[[Callable[[Call, Reply], None]], Callable[[Call, Reply], None]]:
    def register(apply: Callable[[Call, Reply], None]) -> Callable[[Call, Reply], None]:
        FAULTS[name] = Fault(name, help, executes, apply)
        return apply

    return register


# --- no answer


@fault("hang", "executes, never answers")
@fault("hang-before", "never answers, does not execute", executes=False)
def _hang(call: Call, reply: Reply) -> None:
    reply.end = "hang"


@fault("close", "executes, closes without an answer")
@fault("close-before", "closes without an answer, does not execute", executes=False)
def _close(call: Call, reply: Reply) -> None:
    reply.end = "close"


@fault("die", "executes, the process exits")
@fault("die-before", "the process exits, does not execute", executes=False)
def _die(call: Call, reply: Reply) -> None:
    reply.end = "die"


@fault("slow", "answers after `ms` (1000)")
def _slow(call: Call, reply: Reply) -> None:
    reply.delay = call.option("ms", 1000) / 1000


# --- half an answer


@fault("truncate-json", "half of a JSON body, then closes")
def _truncate_json(call: Call, reply: Reply) -> None:
    reply.shape, reply.cut = "json", True


@fault("truncate-sse", "half of an SSE event, then closes")
def _truncate_sse(call: Call, reply: Reply) -> None:
    reply.shape, reply.cut = "sse", True


@fault("progress-then-close", "progress notifications, then closes")
def _progress_then_close(call: Call, reply: Reply) -> None:
    _progress(call, reply)
    reply.end = "close"


@fault("drip", "the reply trickles in for `ms` (3000)")
def _drip(call: Call, reply: Reply) -> None:
    reply.drip = call.option("ms", 3000) / 1000


# --- the wrong answer


@fault("wrong-id", "another call's id: `id`, else one that nobody asked with")
def _wrong_id(call: Call, reply: Reply) -> None:
    own = call.request["id"]
    reply.message["id"] = call.option("id", own + 1000 if isinstance(own, int) else f"{own}-other")


@fault("string-id", "the id as a string, or the other way round")
def _string_id(call: Call, reply: Reply) -> None:
    own = call.request["id"]
    reply.message["id"] = str(own) if isinstance(own, int) else 1


@fault("null-id", "an error whose id is null")
def _null_id(call: Call, reply: Reply) -> None:
    reply.message = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "who asked?"}}


@fault("notification", "a notification where the reply should be")
def _notification(call: Call, reply: Reply) -> None:
    reply.message = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}


@fault("batch", "the reply in an array")
def _batch(call: Call, reply: Reply) -> None:
    reply.raw = b"[" + reply.body() + b"]"


@fault("no-result", "neither result nor error")
def _no_result(call: Call, reply: Reply) -> None:
    reply.message = {"jsonrpc": "2.0", "id": call.request["id"]}


@fault("odd-result", "a result that is no object")
def _odd_result(call: Call, reply: Reply) -> None:
    reply.message["result"] = "forty-two"


@fault("empty", "an empty body")
def _empty(call: Call, reply: Reply) -> None:
    reply.raw = b""


@fault("garbage", "bytes that are no JSON")
def _garbage(call: Call, reply: Reply) -> None:
    reply.raw = b"\x00\x01{]garbage"


@fault("html", "a page, with status 200")
def _html(call: Call, reply: Reply) -> None:
    reply.raw, reply.content_type, reply.shape = b"<html><body>Log in first</body></html>", "text/html", "json"


@fault("wrong-type", "a good reply called text/plain")
def _wrong_type(call: Call, reply: Reply) -> None:
    reply.content_type, reply.shape = "text/plain", "json"


@fault("invalid-utf8", "a byte that no UTF-8 has, inside a string")
def _invalid_utf8(call: Call, reply: Reply) -> None:
    reply.result["content"] = [{"type": "text", "text": "bad @@ byte"}]
    reply.raw = reply.body().replace(b"@@", b"\xff\xfe")


@fault("nan", "NaN and Infinity in structuredContent")
def _nan(call: Call, reply: Reply) -> None:
    reply.result["structuredContent"] = {"value": float("nan"), "other": float("inf")}


@fault("deep", "arrays nested `depth` (5000) deep in structuredContent")
def _deep(call: Call, reply: Reply) -> None:
    depth = call.option("depth", 5000)
    reply.result["structuredContent"] = {"value": "@@"}
    reply.raw = reply.body().replace(b'"@@"', b"[" * depth + b"]" * depth)


# --- HTTP statuses


@fault("status", "HTTP `status` (500); executes", executes=True)
def _status(call: Call, reply: Reply) -> None:
    _refuse_with(call, reply, call.option("status", 500))


@fault("status-500", "HTTP 500; executes")
def _status_500(call: Call, reply: Reply) -> None:
    _refuse_with(call, reply, 500)


@fault("status-429", "HTTP 429 with Retry-After: `retry_after` (1); does not execute", executes=False)
def _status_429(call: Call, reply: Reply) -> None:
    _refuse_with(call, reply, 429)
    reply.headers["Retry-After"] = str(call.option("retry_after", 1))


@fault("status-503", "HTTP 503 with Retry-After: `retry_after` (1); does not execute", executes=False)
def _status_503(call: Call, reply: Reply) -> None:
    _refuse_with(call, reply, 503)
    reply.headers["Retry-After"] = str(call.option("retry_after", 1))


@fault("status-401", "HTTP 401; does not execute", executes=False)
def _status_401(call: Call, reply: Reply) -> None:
    _refuse_with(call, reply, 401)
    reply.headers["WWW-Authenticate"] = "Bearer"


@fault("redirect", "HTTP 307 to `location` (itself); does not execute", executes=False)
def _redirect(call: Call, reply: Reply) -> None:
    _refuse_with(call, reply, 307)
    reply.headers["Location"] = call.option("location", "/mcp")


def _refuse_with(call: Call, reply: Reply, status: int) -> None:
    """Over stdio, where there is no status, this is a JSON-RPC error."""
    reply.status, reply.shape, reply.content_type = status, "json", "text/plain"
    reply.message = error(call.request["id"], -32603, f"HTTP status {status}")
    reply.raw = None


# --- large and odd, but legal


@fault("huge", "a text of `size` bytes (40 MiB)")
def _huge(call: Call, reply: Reply) -> None:
    reply.result["content"] = [{"type": "text", "text": "x" * call.option("size", 40 * MIB)}]


@fault("big-event", "one SSE event with a text of `size` bytes (2 MiB)")
def _big_event(call: Call, reply: Reply) -> None:
    reply.shape = "sse"
    reply.result["content"] = [{"type": "text", "text": "x" * call.option("size", 2 * MIB)}]


@fault("odd-sse", "SSE with comments, CRLF and CR line ends, a retry field and data over several lines")
def _odd_sse(call: Call, reply: Reply) -> None:
    reply.shape, reply.frame = "sse", _odd_frame


def _odd_frame(body: bytes) -> bytes:
    lines = json.dumps(json.loads(body), indent=1).encode().split(b"\n")
    data = b"\r\n".join(b"data:" + (b" " if n % 2 else b"") + line for n, line in enumerate(lines))
    keepalives = b": keep-alive\r\n\r\n:\n\nretry: 1000\r\rid: 7\ndata:\n\n"
    return keepalives + b"event: message\r\nid: 8\r\n" + data + b"\r\n\r\n"


@fault("overlong-line", "a line of `size` bytes (40 MiB) that means nothing, then the reply")
def _overlong_line(call: Call, reply: Reply) -> None:
    reply.shape, reply.junk = "sse", b"x" * call.option("size", 40 * MIB)


@fault("twice", "the same reply two times")
def _twice(call: Call, reply: Reply) -> None:
    reply.shape, reply.copies = "sse", 2


@fault("progress", "three progress notifications ahead of the reply, where the call has a progress token")
def _progress(call: Call, reply: Reply) -> None:
    reply.shape = "sse"
    token = ((call.request.get("params") or {}).get("_meta") or {}).get("progressToken", "unasked")
    params = [{"progressToken": token, "progress": n, "total": 3, "message": f"step {n}"} for n in (1, 2, 3)]
    reply.before += [{"jsonrpc": "2.0", "method": "notifications/progress", "params": p} for p in params]


@fault("server-request", "a ping and a request for roots ahead of the reply")
def _server_request(call: Call, reply: Reply) -> None:
    reply.shape = "sse"
    for n, method in enumerate(("ping", "roots/list"), start=1):
        reply.before.append({"jsonrpc": "2.0", "id": f"server-{n}", "method": method})


# --- answers that mean no


@fault("error", "JSON-RPC error `code` (-32603); does not execute", executes=False)
def _error(call: Call, reply: Reply) -> None:
    reply.message = error(call.request["id"], call.option("code", -32603), call.option("message", "failed as asked"))


@fault("is-error", "a result with isError")
def _is_error(call: Call, reply: Reply) -> None:
    reply.result.update(content=[{"type": "text", "text": "failed as asked"}], isError=True)
    reply.result.pop("structuredContent", None)


@fault("input-required", "modern: asks for a name first; executes once that is given", executes=False)
def _input_required(call: Call, reply: Reply) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    ask = {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": schema}}
    reply.result.clear()
    reply.result.update(resultType="input_required", inputRequests={"name": ask}, requestState="opaque-state")


def error(request_id: Any, code: int, message: str, data: Any = None) -> dict[str, Any]:
    body = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return {"jsonrpc": "2.0", "id": request_id, "error": body}


STATES: dict[str, str] = {
    "refuse": "HTTP: does not listen",
    "blackhole": "HTTP: connecting gets no answer, as behind a firewall that drops",
    "sse-only": "HTTP: no /mcp (404), and /sse takes no POST (405)",
    "close-on-accept": "HTTP: closes each connection at once",
    "hang-on-connect": "accepts connections, reads, never answers anything",
    "slow-start": "starts listening or reading after `ms` (1500)",
    "exit-at-start": "exits at once with status 1",
    "ignore-sigterm": "survives SIGTERM and the end of stdin",
    "grandchild": "starts a `sleep` that outlives it (its process id is in the ledger)",
    "noise": "stdio: lines that are no messages, at the start and before each message",
    "legacy-only": "refuses server/discover and modern requests",
    "modern-only": "refuses initialize",
    "discover-silent": "never answers server/discover",
    "initialize-silent": "never answers initialize",
    "lose-session": "forgets its legacy sessions at a tools/call and answers 404 (once with times 1)",
    "list-hang": "never answers tools/list",
    "list-error": "answers tools/list with error -32603",
    "paged-tools": "tools/list with one tool a page",
    "cursor-loop": "tools/list whose next cursor never ends",
    "bad-schema": "further tools: with an impossible inputSchema, with none, with no name",
    "many-tools": "further tools: `tools` (10000) of them",
    "extra-tool": "one further tool, `extra`",
}
"""Faults that are not about one call, with what they mean."""
