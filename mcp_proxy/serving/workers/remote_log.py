"""A worker's log: its lines are written by the owner, so that there is one log, one set of files and one live log."""

from __future__ import annotations

from typing import Any

from mcp_proxy.serving.workers.channel import Channel
from mcp_proxy.serving.workers.frames import Level, Said
from mcp_proxy.telemetry.logs import Traceback


class RemoteLog:
    """A `Logger`. What is at work here may fail in any way, so that of values that cannot cross their text does."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._traceback = Traceback(always=False)

    def debug(self, event: str, /, **fields: Any) -> None:
        self._say("debug", event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        self._say("info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        self._say("warning", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        self._say("error", event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """An error with the traceback of the exception being handled."""
        self._say("error", event, {"exc_info": True, **fields})

    def _say(self, level: Level, event: str, fields: dict[str, Any]) -> None:
        said = self._traceback(None, level, fields)
        shown = {name: value if isinstance(value, str | int | float) else repr(value) for name, value in said.items()}
        self._channel.send(Said(level, event, shown))
