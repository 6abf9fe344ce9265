"""The long run of calls and edits at once: a real proxy, three servers that nobody touches, and `edits` all around them."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.harness import faulty_http
from tests.harness import ProxyProcess
from tests.servers.known import modern_server, serving
from tests.soak.edits import Editor, Made
from tests.soak.load import Callers, Load, Tally
from tests.soak.measures import Held, held
from tests.soak.written import Written, command_template

STEADY = ("steady-command", "steady-linked", "steady-http")
WELCOME = frozenset({"ok", "404 tool_not_found", "404 server_not_found", "503 upstream_unavailable"})
"""What may become of a call to a server that goes or is switched off at that moment."""
_UNEXPECTED = ("task_failed", "unhandled_exception", "upstream_actor_failed")


@dataclass
class Report:
    """What a run found."""

    quiet: Tally = field(default_factory=Tally)
    busy: Tally = field(default_factory=Tally)
    made: Made = field(default_factory=Made)
    others: Counter[str] = field(default_factory=Counter)
    """What became of calls to servers that were being changed."""
    last_seconds: float = 0.0
    """From the last change until everything shown was as written."""
    before: Held | None = None
    after: Held | None = None
    stopped: str | None = None
    """What ended the edits early: a change that did not show, or that was refused."""
    errors: list[dict[str, Any]] = field(default_factory=list)
    """Lines of the log that a change must not leave."""

    def faults(self, least_rate: float, within: float) -> list[str]:
        """What is not as it should be, in words. ``within``: seconds in which the last change must show."""
        found = [*self.quiet.failures, *self.busy.failures]
        found += [
            f"{times} calls to a changing server: {word}" for word, times in self.others.items() if word not in WELCOME
        ]
        found += [self.stopped] if self.stopped else []
        found += [f"in the log: {line}" for line in self.errors]
        if self.last_seconds > within:
            found.append(f"the last change took {self.last_seconds:.2f} s to show")
        if self.busy.rate < least_rate:
            found.append(f"only {self.busy.rate:.0f} calls a second were managed")
        return found


async def soak(*, seconds: float, rate: float, edits: int, quiet: float, seed: int) -> Report:
    """``rate`` calls a second: for ``quiet`` seconds alone, then during ``edits`` changes spread over ``seconds``."""
    report = Report()
    ttl = seconds * 3 + quiet + 600
    async with _proxy() as (proxy, written, url), Callers(proxy, ttl) as callers:
        editor = Editor(proxy, written, url, seed, ttl)
        report.quiet = await Load(callers.asks(STEADY), rate).run(quiet)
        report.before = held(proxy.pid)
        load = Load(callers.asks(STEADY), rate)
        bystander = Load([("other", _others(callers, editor, report.others))], rate / 20)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(load.run()), group.create_task(bystander.run())]
            try:
                await editor.run(edits, seconds / edits)
                await _leave_only_steady(editor, written, report)
            except AssertionError as error:
                report.stopped = str(error)
            finally:
                load.stop()
                bystander.stop()
        report.busy, report.made = running[0].result(), editor.made
        report.busy.failures += bystander.tally.failures
        report.after = held(proxy.pid)
        report.errors = [line for event in _UNEXPECTED for line in proxy.log_lines(event=event)]
    return report


async def _leave_only_steady(editor: Editor, written: Written, report: Report) -> None:
    """Everything else goes at once; what is left is what was there at first."""
    for entries in written.files.values():
        entries.clear()
    since = time.monotonic()
    await editor.remove_added()
    for place in ("file", "linked"):
        written.save(place)
    for path in written.directory.glob("*/mcp_settings.json"):
        if path not in {written.provider_file(name) for name in written.steady["directory"]}:
            path.unlink()
    await editor.until_shown()
    report.last_seconds = time.monotonic() - since
    await editor.settled()


def _others(callers: Callers, editor: Editor, outcomes: Counter[str]) -> Any:
    async def ask(number: int) -> None:
        names = editor.others()
        if names:
            outcomes[await callers.outcome(names[number % len(names)], number)] += 1

    return ask


@asynccontextmanager
async def _proxy() -> AsyncIterator[tuple[ProxyProcess, Written, str]]:
    """A proxy with a steady server in each place where servers are written, and an upstream for others."""
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as directory:
        async with (
            serving(modern_server("streamable-http")) as modern,
            faulty_http(args=("--lifetime", "86400")) as other,
        ):
            demo = {"command": sys.executable, "args": ["-m", "mcp_proxy.demo"]}
            steady = {
                "file": {"steady-command": demo},
                "linked": {"steady-linked": {"url": modern}},
                "directory": {"steady-http": {"url": modern}},
            }
            written = Written(Path(directory), steady)
            written.begin()
            args = [*written.arguments(), "--allow-network", "127.0.0.0/8", "--log-level", "INFO"]
            env = {"MCP_PROXY_API_COMMANDS": command_template()}
            async with ProxyProcess(*args, env=env) as proxy:
                await proxy.connected()
                yield proxy, written, other.url
