"""The log: one processor chain for our own records and for those of libraries, made by `configure`.

JSON lines on stderr, or a console for people in a terminal and with DEBUG; always JSON in files and in the live log.
Everything passes `redact`. Where lines end up, and when, is `log_output`; the line of a request is made by `record`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.json import encode
from mcp_proxy.telemetry.log_feed import LogFeed
from mcp_proxy.telemetry.log_files import LogFiles
from mcp_proxy.telemetry.log_output import Line, LogOutput
from mcp_proxy.telemetry.log_stream import LogStream
from mcp_proxy.telemetry.redact import harmless, redact, redact_text

if TYPE_CHECKING:
    from mcp_proxy.settings import Settings

FOREIGN = ("hypercorn.error", "aiohttp", "asyncio", "quart.app", "mcp")
"""Libraries' loggers that bring handlers or levels of their own; all others reach the root logger anyway."""

TRACEBACK_LIMIT = 16 * 1024

_Event = MutableMapping[str, Any]
_SCALARS = frozenset({str, int, float, bool, type(None)})
_CONTROLS = re.compile(r"[\x00-\x1f]")
_CONTROLS_BUT_LAYOUT = re.compile(r"[\x00-\x08\x0b-\x1f]")


class Logger(Protocol):
    """What the program logs with. It is never asked to format: what varies is a field, not part of the event."""

    def debug(self, event: str, /, **fields: Any) -> Any: ...

    def info(self, event: str, /, **fields: Any) -> Any: ...

    def warning(self, event: str, /, **fields: Any) -> Any: ...

    def error(self, event: str, /, **fields: Any) -> Any: ...

    def exception(self, event: str, /, **fields: Any) -> Any:
        """An error with the traceback of the exception being handled."""


class SilentLogger:
    """The logger of level OFF."""

    def debug(self, event: str, /, **fields: Any) -> None: ...

    def info(self, event: str, /, **fields: Any) -> None: ...

    def warning(self, event: str, /, **fields: Any) -> None: ...

    def error(self, event: str, /, **fields: Any) -> None: ...

    def exception(self, event: str, /, **fields: Any) -> None: ...


def configure(settings: Settings, *, stream: TextIO | None = None, clock: Clock) -> Logger:
    """Make the log as ``settings`` say, and route the standard library's logging into it.

    ``stream`` is stderr unless given. To be called once, at the start; a second call replaces the first.
    """
    import structlog  # Here, because workers import this module, and must stay small.

    if settings.log_level == "OFF":
        silent = SilentLogger()
        route_foreign(silent)
        return silent
    stream = sys.stderr if stream is None else stream
    terminal = _is_terminal(stream)
    console = _Console(colors=_wants_colors(terminal)) if terminal or settings.debug else None
    output = LogOutput(LogStream(stream), lambda lost: log.error("log_lines_lost", lines=lost))
    lazy = structlog.wrap_logger(
        output,
        processors=[_Line(clock, Traceback(always=settings.debug), console, output)],
        wrapper_class=_without_context(structlog.make_filtering_bound_logger(settings.log_level), settings.log_level),
        context_class=dict,
    )
    log = cast(Logger, lazy.bind())
    if settings.log_dir is not None:

        def report(error: OSError) -> None:
            log.error("log_file_not_written", path=str(settings.log_dir), reason=error.strerror or str(error))

        output.files = LogFiles(settings.log_dir, clock=clock, on_error=report)
    route_foreign(log)
    return log


def follow(log: Logger, feed: LogFeed) -> None:
    """From now on ``feed`` also gets the lines of a log made by `configure`. One of level OFF has none."""
    output = getattr(log, "_logger", None)
    if isinstance(output, LogOutput):
        output.feed = feed


def _without_context(logger: type[Any], level: str) -> type[Any]:
    """A bound logger class whose methods run the chain on the fields of the call alone.

    Nothing is bound here, and nothing is interpolated: structlog's general way is two functions more, and copies the
    fields three times (a third of a line's cost).
    """
    numbers = logging.getLevelNamesMapping()
    heard = [name for name in ("debug", "info", "warning", "error") if numbers[name.upper()] >= numbers[level]]
    return type("Direct", (logger,), {name: _method(name) for name in heard})


def _method(level: str) -> Callable[..., None]:
    def write(self: Any, event: str, /, **fields: Any) -> None:
        fields["event"] = event
        line: Any = fields
        for processor in self._processors:
            line = processor(self._logger, level, line)
        self._logger.write(line)

    return write


class Traceback:
    """Turns ``exc_info`` into ``exception``: the traceback at level error (or ``always``), else the last line of it."""

    def __init__(self, *, always: bool) -> None:
        self._always = always

    def __call__(self, _logger: Any, level: str, event: _Event) -> _Event:
        if "exc_info" not in event:
            return event
        error = _exception(event.pop("exc_info"))
        if error is not None:
            full = self._always or level in ("error", "critical")
            lines = traceback.format_exception(error) if full else traceback.format_exception_only(error)
            event["exception"] = redact_text("".join(lines).rstrip(), TRACEBACK_LIMIT, tail=True)
        return event


def _exception(
    exc_info: bool
    | BaseException
    | tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
    | None,
) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1]
    return sys.exc_info()[1] if exc_info else None


class _Line:
    """Puts ``timestamp``, ``level`` and ``event`` first, and makes the line: one processor, because each costs.

    For the stream, and as JSON for files and live log where there are any. The date is formatted once a second.
    """

    def __init__(self, clock: Clock, traceback: Traceback, console: _Console | None, output: LogOutput) -> None:
        self._time = clock.time
        self._traceback = traceback
        self._console = console
        self._output = output
        self._second = -1
        self._text = ""

    def __call__(self, _logger: Any, level: str, event: _Event) -> Line:
        now = self._time()
        second = int(now)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        stamp = f"{self._text}.{int((now - second) * 1000):03d}Z"
        event = {"timestamp": stamp, "level": level, "event": "", **event}
        if "exc_info" in event:
            event = self._traceback(None, level, event)
        if self._console is None:
            line = _json_line(event)
            return line, line
        wanted = self._output.files is not None or self._output.feed is not None
        return self._console(level, event), _json_line(event) if wanted else b""


def _json_line(event: _Event) -> bytes:
    if _SCALARS.issuperset(map(type, event.values())):
        try:
            line = encode(event)
        except (TypeError, ValueError):
            pass  # Half a surrogate pair, an endless integer: redaction makes them encodable.
        else:
            if harmless(line):
                return line + b"\n"
    return encode(_redacted(event)) + b"\n"


def _redacted(event: _Event) -> dict[str, Any]:
    """``exception`` is redacted where it is made, and longer than other texts."""
    trace = event.get("exception")
    fields: dict[str, Any] = redact({name: value for name, value in event.items() if name != "exception"})
    return fields if trace is None else {**fields, "exception": trace}


class _Console:
    """Lines for people. Terminals obey control characters, so that none may pass."""

    def __init__(self, *, colors: bool) -> None:
        import structlog

        self._render = structlog.dev.ConsoleRenderer(
            colors=colors, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
        )

    def __call__(self, level: str, event: _Event) -> bytes:
        shown = {
            name: _visible(value, layout=name == "exception") if isinstance(value, str) else value
            for name, value in _redacted(event).items()
        }
        return (self._render(None, level, shown) + "\n").encode()


def _visible(text: str, *, layout: bool) -> str:
    controls = _CONTROLS_BUT_LAYOUT if layout else _CONTROLS
    return controls.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


class _ForeignHandler(logging.Handler):
    """Hands records of the standard library's logging to our chain."""

    def __init__(self, log: Logger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = record.getMessage()
        except Exception:  # noqa: BLE001 - a stranger's message and arguments may raise anything
            event = "(a log record that cannot be formatted)"
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        write = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        write(event, **fields)


def route_foreign(log: Logger) -> None:
    """From now on what libraries log goes to ``log``, from level warning upwards."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _ForeignHandler)]:
        root.removeHandler(handler)
    root.addHandler(_ForeignHandler(log))
    for name in FOREIGN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    access = logging.getLogger("hypercorn.access")
    access.handlers.clear()
    access.disabled = True  # The edge writes the line of a request.


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False  # A closed stream.


def _wants_colors(terminal: bool) -> bool:
    """https://no-color.org: present and not empty means none. The bridge's own variables come first."""
    if os.environ.get("MCPTB_NO_COLOR"):
        return False
    if os.environ.get("MCPTB_FORCE_COLOR"):
        return True
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
