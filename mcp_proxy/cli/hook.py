"""``mcp-proxy-api hook``: runs beside a provider's key, connects out to a service and answers its completions.

What it does is `bridge.companion`; here are the options, the lines on stderr, and how it ends.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
from pydantic import SecretStr

from mcp_proxy.base.errors import StartError
from mcp_proxy.config.address import url_fault

PROVIDERS = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": ("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
}
"""Where each is by default, and the variable that its key is looked for in."""
ANY = "any"
MOST_PARALLEL = 64
"""Answers that one connection can have under way at once."""
_SECONDS = 300.0
"""How long a provider may be silent."""
_IN_HEADER = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for on the command line, checked. ``model`` None: the one that a question asks for."""

    url: str
    token: str | None = field(repr=False)
    provider: str
    base_url: str
    key: SecretStr
    model: str | None
    parallel: int


@click.command()
@click.option("--server", required=True, metavar="URL", help="MCP endpoint of the service: https://HOST/mcp.")
@click.option("--provider", required=True, type=click.Choice(list(PROVIDERS)), help="The API that the provider speaks.")
@click.option("--model", required=True, metavar="NAME", help="Its model for every question; any: the one asked for.")
@click.option("--base-url", metavar="URL", help="Where the provider is.  [default: the API's own address]")
@click.option(
    "--key-env", metavar="NAME", help="Variable that holds its key.  [default: OPENAI_API_KEY or ANTHROPIC_API_KEY]"
)
@click.option("--token", envvar="MCP_PROXY_TOKEN", help="Token for the service [MCP_PROXY_TOKEN].")
@click.option(
    "--parallel",
    default=8,
    show_default=True,
    type=click.IntRange(1, MOST_PARALLEL),
    help="Answers at once; more wait.",
)
def hook(
    server: str, provider: str, model: str, base_url: str | None, key_env: str | None, token: str | None, parallel: int
) -> None:
    """Answer completions of a running service with a provider, whose key stays here.

    The service runs with --llm; its token needs the scope llm:serve. Only connections out are made.
    Runs until it is stopped (Ctrl-C: exit code 0), and connects again when the connection is lost. Exit code 1 when the
    service does not let it in, 2 when it cannot start as asked.

    \b
    export MCP_PROXY_TOKEN="$(mcp-proxy-api token --scope llm:serve --ttl 7d)"
    mcp-proxy-api hook --server https://tools.example/mcp --provider openai --model gpt-x-mini
    mcp-proxy-api hook --server http://127.0.0.1:5000/mcp --provider anthropic --model any --key-env WORK_KEY
    """
    if not model:
        raise StartError("--model is empty; name a model of the provider's, or any")
    url, key_name = PROVIDERS[provider]
    plan = Plan(
        _endpoint(server),
        _header("--token", token),
        provider,
        _address("--base-url", base_url or url).rstrip("/"),
        _key(key_env or key_name),
        None if model == ANY else model,
        parallel,
    )
    try:
        sys.exit(asyncio.run(_run(plan)))
    except KeyboardInterrupt:  # in the moment before it is listened for
        sys.exit(0)


# Checking


def _address(option: str, url: str) -> str:
    if fault := url_fault(url):
        raise StartError(f"{option} {fault}")
    return url


def _endpoint(url: str) -> str:
    """The address of MCP; that of the service as a whole will do."""
    parts = urlsplit(_address("--server", url))
    return url if parts.path.strip("/") else urlunsplit(parts._replace(path="/mcp"))


def _header(what: str, value: str | None) -> str | None:
    value = (value or "").strip()
    if value and not _IN_HEADER.fullmatch(value):
        raise StartError(f"{what} holds characters that cannot be sent; copy it again, whole and without spaces")
    return value or None


def _key(name: str) -> SecretStr:
    key = _header(f"the key in {name}", os.environ.get(name))
    if key is None:
        text = "put the provider's key there, or name the variable that holds it with --key-env"
        raise StartError(f"the variable {name} is not set; {text}")
    return SecretStr(key)


# Running


class _Teller:
    """Says on stderr what has changed, in one line each; the same failure is said once, not for every question."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._failure = ""

    def connected(self) -> None:
        """See `Observer.connected`."""
        answering = f"{self._plan.provider}, model {self._plan.model or 'as asked for'}, {self._plan.parallel} at once"
        _tell(f"connected to {self._plan.url}, answering with {answering}")

    def lost(self, reason: str, pause: float) -> None:
        """See `Observer.lost`."""
        _tell(f"not connected to {self._plan.url} ({_one_line(reason)}); next attempt in {pause:.1f} s")

    def failed(self, reason: str) -> None:
        """See `Observer.failed`."""
        if reason != self._failure:
            self._failure = reason
            _tell(f"a question was not answered: {_one_line(reason)}")

    def broke(self, name: str, error: BaseException) -> None:
        """A task has failed for a reason that nobody has thought of."""
        self.failed(f"{name}: {type(error).__name__}")


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _tell(line: str) -> None:
    click.echo(f"mcp-proxy-api: {line}", err=True)


async def _run(plan: Plan) -> int:
    """Serve until a signal; the exit code."""
    from mcp_proxy.base.clock import SystemClock
    from mcp_proxy.base.tasks import TaskSet
    from mcp_proxy.bridge.companion import Companion, Refused, Service
    from mcp_proxy.bridge.hook_connection import CONNECT_TIMEOUT, HookDialer
    from mcp_proxy.bridge.provider import Provider
    from mcp_proxy.core.upstream.exchanges import new_exchange
    from mcp_proxy.llm.service import FORMATS

    teller = _Teller(plan)
    tasks = TaskSet(teller.broke)
    exchange = new_exchange(CONNECT_TIMEOUT)
    source = Provider(plan.provider, plan.base_url, plan.key, FORMATS[plan.provider], exchange, _SECONDS)
    companion = Companion(source, plan.model, parallel=plan.parallel, observer=teller)
    headers: Mapping[str, str] = {"Authorization": f"Bearer {plan.token}"} if plan.token else {}
    service = Service(HookDialer(plan.url, headers, tasks), teller, SystemClock(), random.random)
    try:
        await _until_signal(service.served_by(companion))
    except Refused as refusal:
        _tell(_one_line(str(refusal)))
        return 1
    finally:
        await tasks.close()
        await exchange.close()
    return 0


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Do ``work`` until it ends or the program is asked to stop; then it is cancelled. Raises what it raises."""
    from mcp_proxy.base.tasks import TaskSet

    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    tasks = TaskSet(lambda name, error: None)  # its error is raised here
    try:
        working = tasks.spawn(work, "companion")
        await asyncio.wait([working, tasks.spawn(asked.wait(), "signal")], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        await tasks.close()
