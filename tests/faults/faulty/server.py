"""Just enough MCP, in both eras: one JSON-RPC message in, one `Reply` out (None for a notification).

Knows nothing of wires. Keeps the modes in force and the ledger.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar

from .faults import FAULTS, STATES, Call, Reply, error

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
SERVER_INFO = {"name": "faulty-upstream", "version": "1"}
TOOLS: list[dict[str, Any]] = [
    {
        "name": "echo",
        "description": "Return the text",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "add",
        "description": "Add two numbers",
        "inputSchema": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
        "outputSchema": {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]},
        "annotations": {"idempotentHint": True},
    },
    {
        "name": "count",
        "description": "Return how many calls this process has executed, this one included",
        "inputSchema": {"type": "object", "properties": {}},
    },
]
BAD_TOOLS: list[dict[str, Any]] = [
    {"name": "broken", "inputSchema": {"type": "objekt", "properties": [], "pattern": "("}},
    {"name": "schemaless"},
    {"inputSchema": {"type": "object"}},
    {"name": "remote_ref", "inputSchema": {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/x"}}}},
]


class Ledger:
    """One JSON line per event, appended whole, so that several processes can share the file."""

    def __init__(self, path: Path | None) -> None:
        self._fd = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, event: str, **fields: Any) -> None:
        if self._fd is not None:
            line = json.dumps({"event": event, **fields, "pid": os.getpid(), "time": time.time()})
            os.write(self._fd, line.encode() + b"\n")


class Server:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.executed = 0
        self.options: dict[str, Any] = {}
        self._modes: dict[str, int | None] = {}  # name -> how often still; None: always
        self._control_file: Path | None = None
        self._control_text = ""

    # --- modes

    def control(self, order: dict[str, Any]) -> None:
        """``{"mode": "hang" or [...] or "none", "times": 1, "options": {"ms": 100}}`` replaces what was in force.

        Raises ValueError for a name that is not in the table.
        """
        given = order.get("mode", "none")
        names = [name for name in ([given] if isinstance(given, str) else given) if name != "none"]
        if unknown := [name for name in names if name not in FAULTS and name not in STATES]:
            raise ValueError(f"unknown mode: {', '.join(unknown)}")
        self._modes = dict.fromkeys(names, order.get("times"))
        self.options = dict(order.get("options") or {})

    def follow(self, control_file: Path) -> None:
        """Take orders from a file as well, which may change at any time."""
        self._control_file = control_file
        self.read_control_file()

    def read_control_file(self) -> None:
        if self._control_file is not None and self._control_file.exists():
            text = self._control_file.read_text()
            if text != self._control_text:
                self._control_text = text
                self.control(json.loads(text))

    def has(self, name: str) -> bool:
        return self._modes.get(name, 0) != 0

    def take(self, name: str) -> bool:
        """Whether the mode is in force; uses up one of its times."""
        left = self._modes.get(name, 0)
        if left:
            self._modes[name] = left - 1
        return left != 0

    def state(self) -> dict[str, Any]:
        return {"modes": self._modes, "options": self.options, "executed": self.executed, "pid": os.getpid()}

    # --- messages

    def answer(self, message: dict[str, Any], *, modern: bool) -> Reply | None:
        method = message.get("method")
        if method == "notifications/cancelled":
            self.ledger.write("cancelled", request=(message.get("params") or {}).get("requestId"))
        if method is None or message.get("id") is None:
            return None
        if self.has("hang-on-connect"):
            return Reply(end="hang")
        if modern and self.has("legacy-only"):
            return _failed(message, -32600, "Bad Request: Unsupported protocol version", status=400)
        handler = self._HANDLERS.get(method)
        if handler is None:
            return _failed(message, -32601, f"Method not found: {method}", status=404 if modern else 200)
        reply = handler(self, message, modern)
        if modern and reply.message is not None and isinstance(result := reply.message.get("result"), dict):
            result.setdefault("resultType", "complete")
            result.setdefault("_meta", {})["io.modelcontextprotocol/serverInfo"] = SERVER_INFO
        return reply

    def _initialize(self, message: dict[str, Any], modern: bool) -> Reply:
        asked = (message.get("params") or {}).get("protocolVersion")
        if self.has("initialize-silent"):
            return Reply(end="hang")
        if self.has("modern-only"):
            data = {"supported": [MODERN], "requested": asked}
            return _failed(message, -32022, "Unsupported protocol version", status=400, data=data)
        version = asked if asked in LEGACY else LEGACY[0]
        capabilities = {"tools": {"listChanged": True}}
        return _result(message, {"protocolVersion": version, "capabilities": capabilities, "serverInfo": SERVER_INFO})

    def _discover(self, message: dict[str, Any], modern: bool) -> Reply:
        if self.has("discover-silent"):
            return Reply(end="hang")
        if self.has("legacy-only"):
            return _failed(message, -32601, "Method not found: server/discover")
        capabilities = {"tools": {"listChanged": True}}
        found = {"supportedVersions": [MODERN], "capabilities": capabilities, "ttlMs": 0, "cacheScope": "private"}
        return _result(message, found)

    def _ping(self, message: dict[str, Any], modern: bool) -> Reply:
        return _result(message, {})

    def _list(self, message: dict[str, Any], modern: bool) -> Reply:
        self.ledger.write("list")
        if self.has("list-hang"):
            return Reply(end="hang")
        if self.has("list-error"):
            return _failed(message, -32603, "no list today")
        tools = self._tools()
        page: dict[str, Any] = {"tools": tools}
        cursor = (message.get("params") or {}).get("cursor")
        if self.has("paged-tools"):
            start = int(cursor or 0)
            page = {"tools": tools[start : start + 1]}
            if start + 1 < len(tools):
                page["nextCursor"] = str(start + 1)
        elif self.has("cursor-loop"):
            page["nextCursor"] = "again"
        if modern:
            page |= {"ttlMs": 0, "cacheScope": "private"}
        return _result(message, page)

    def _tools(self) -> list[dict[str, Any]]:
        tools = list(TOOLS)
        if self.has("extra-tool"):
            tools.append({"name": "extra", "description": "Return the text", "inputSchema": {"type": "object"}})
        if self.has("bad-schema"):
            tools += BAD_TOOLS
        if self.has("many-tools"):
            schema = {"type": "object", "properties": {"text": {"type": "string"}}}
            count = self.options.get("tools", 10_000)
            tools += [{"name": f"tool_{n:05}", "description": "x" * 80, "inputSchema": schema} for n in range(count)]
        return tools

    # --- calls

    def _call(self, message: dict[str, Any], modern: bool) -> Reply:
        params = message.get("params") or {}
        arguments = params.get("arguments") or {}
        tool = params.get("name")
        self.ledger.write("received", tool=tool, arguments=_short(arguments), id=message["id"])
        if tool not in {known.get("name") for known in self._tools()}:
            return _failed(message, -32602, f"Unknown tool: {tool}", status=400 if modern else 200)
        name = arguments.get("fault") or next((name for name in FAULTS if self.take(name)), None)
        if name is not None and name not in FAULTS:
            return _failed(message, -32602, f"Unknown fault: {name}; calls have {', '.join(FAULTS)}")
        if name == "input-required" and "inputResponses" in params:
            name = None
        executes = name is None or FAULTS[name].executes
        reply = _result(message, self._execute(tool, arguments) if executes else {"content": []})
        if name is not None:
            FAULTS[name].apply(Call(message, arguments, self.options), reply)
            code = ((reply.message or {}).get("error") or {}).get("code")
            if modern and reply.status == 200 and code in (-32602, -32600, -32020, -32021, -32022):
                reply.status = 400
        return reply

    def _execute(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.executed += 1
        self.ledger.write("executed", tool=tool, arguments=_short(arguments))
        if tool == "add":
            total = arguments.get("a", 0) + arguments.get("b", 0)
            text, structured = str(total), {"sum": total}
        elif tool == "count":
            text, structured = str(self.executed), None
        else:
            text, structured = str(arguments.get("text", "")), None
        result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": False}
        return result if structured is None else result | {"structuredContent": structured}

    _HANDLERS: ClassVar = {
        "initialize": _initialize,
        "server/discover": _discover,
        "ping": _ping,
        "tools/list": _list,
        "tools/call": _call,
    }


def _result(message: dict[str, Any], result: dict[str, Any]) -> Reply:
    return Reply({"jsonrpc": "2.0", "id": message["id"], "result": result})


def _failed(message: dict[str, Any], code: int, text: str, *, status: int = 200, data: Any = None) -> Reply:
    return Reply(error(message["id"], code, text, data), status=status)


def _short(arguments: dict[str, Any]) -> dict[str, Any]:
    """Long texts would make the ledger's lines too long to be appended in one piece."""
    return {k: v if not isinstance(v, str) or len(v) < 500 else v[:100] + "…" for k, v in arguments.items()}
