"""What the tests of the core share: a clock that is moved by hand, a log that is read back, servers and tools."""

from __future__ import annotations

from typing import Any

from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.catalog.tool import Tool


class FakeClock:
    """Both clocks stand still until `advance`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class RecordingLog:
    """A `Logger` that keeps (level, event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, /, **fields: Any) -> None:
        self.lines.append(("debug", event, fields))

    def info(self, event: str, /, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, /, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, /, **fields: Any) -> None:
        self.lines.append(("error", event, fields))

    def exception(self, event: str, /, **fields: Any) -> None:
        self.lines.append(("exception", event, fields))

    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]


def server(name: str, **fields: Any) -> ServerSpec:
    """A server that is reached by URL."""
    return ServerSpec(name, Transport.STREAMABLE_HTTP, "test", url=f"http://{name}.test/mcp", **fields)


def tool(name: str, **definition: Any) -> Tool:
    """A tool that takes anything."""
    return Tool({"name": name, "inputSchema": {"type": "object"}, **definition})
