"""Calls at a steady rate, each checked: an open loop, so that one slow answer delays no later question.

Latency is counted from when a call was due, not from when it was sent: what waits for a stalled proxy counts too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.harness import ProxyProcess, make_token
from tests.soak.measures import quantile

LEGACY, MODERN = "2025-11-25", "2026-07-28"
_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "soak", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_MOST_WAITING = 500
"""Calls in flight at which the load waits instead of piling up more."""

Ask = Callable[[int], Awaitable[None]]
"""One call; the number makes it different from all others. Raises for an answer that is not the right one."""


class WrongAnswer(Exception):
    """Not what had to come back."""


@dataclass
class Tally:
    """What became of the calls. Seconds are from when each was due."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    by_kind: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.elapsed if self.elapsed else 0.0

    def __str__(self) -> str:
        ordered = sorted(self.seconds)
        points = ", ".join(f"p{round(s * 100)} {quantile(ordered, s) * 1000:.1f} ms" for s in (0.5, 0.95, 0.99))
        worst = f"max {ordered[-1] * 1000:.0f} ms" if ordered else "none"
        return f"{len(ordered)} calls, {self.rate:.0f}/s, {points}, {worst}, {len(self.failures)} failed"


class Load:
    """Calls of all ``asks`` in turn, ``rate`` a second together, until `stop`."""

    def __init__(self, asks: Sequence[tuple[str, Ask]], rate: float) -> None:
        self._asks = asks
        self._rate = rate
        self._stop = asyncio.Event()
        self._free = asyncio.Semaphore(_MOST_WAITING)
        self.tally = Tally()

    def stop(self) -> None:
        """Begin no more calls; `run` returns when the last has been answered."""
        self._stop.set()

    async def run(self, seconds: float | None = None) -> Tally:
        """Call until `stop`, or for so many seconds."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as calls:
            for number in itertools.count():
                due = start + number / self._rate
                if self._stop.is_set() or (seconds is not None and due - start >= seconds):
                    break
                await self._until(due)
                await self._free.acquire()
                calls.create_task(self._one(number, due))
        self.tally.elapsed = loop.time() - start
        return self.tally

    async def _until(self, due: float) -> None:
        wait = due - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)

    async def _one(self, number: int, due: float) -> None:
        kind, ask = self._asks[number % len(self._asks)]
        try:
            await ask(number)
        except (WrongAnswer, aiohttp.ClientError, TimeoutError) as error:
            self.tally.failures.append(f"call {number} ({kind}): {error!r}")
        finally:
            self.tally.by_kind[kind] += 1
            self.tally.seconds.append(asyncio.get_running_loop().time() - due)
            self._free.release()


class Callers:
    """Clients of one proxy: REST, stateless modern MCP, and one legacy session that has to last. Use as a context."""

    def __init__(self, proxy: ProxyProcess, ttl: float) -> None:
        """``ttl``: seconds that the token must be good for."""
        self._base = proxy.base_url
        self._token = make_token(ttl=ttl, scope="admin")

    async def __aenter__(self) -> Callers:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=60),
            headers={"Authorization": f"Bearer {self._token}"},
        )
        self._session = await self._introduce()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def _introduce(self) -> str:
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
        async with self._post_mcp({"id": 0, "method": "initialize", "params": params}, {}) as answer:
            session = answer.headers["Mcp-Session-Id"]
            await answer.read()
        async with self._post_mcp({"method": "notifications/initialized"}, self._legacy(session)):
            return session

    def asks(self, servers: Sequence[str]) -> list[tuple[str, Ask]]:
        """Every kind of client with every one of these servers; each needs tools ``add`` and ``echo``."""

        def of(kind: str, ask: Callable[[str, int], Awaitable[None]], server: str) -> tuple[str, Ask]:
            return f"{kind} {server}", lambda number: ask(server, number)

        # REST twice: half of the calls are REST, half come through the MCP door.
        kinds = (("rest", self.rest), ("modern", self.modern), ("rest", self.rest), ("legacy", self.legacy))
        return [of(kind, ask, server) for kind, ask in kinds for server in servers]

    async def rest(self, server: str, number: int) -> None:
        """``POST /tools``."""
        body = {"method": f"{server}.add", "args": {"a": number, "b": 1}}
        async with self._http.post(f"{self._base}/tools", json=body) as answer:
            result = await self._json(answer)
            if result.get("server") != server:
                raise WrongAnswer(f"answered by {result.get('server')}")
            _check_sum(result, number + 1)

    async def outcome(self, server: str, number: int) -> str:
        """What becomes of a call that nothing is promised of: the word ``ok``, or status and type of the error."""
        body = {"method": "add", "args": {"a": number, "b": 1}, "server": server}
        async with self._http.post(f"{self._base}/tools", json=body) as answer:
            reply = await answer.json()
        return "ok" if answer.status == 200 else f"{answer.status} {reply['error']['type']}"

    async def modern(self, server: str, number: int) -> None:
        """``POST /mcp`` in the stateless era."""
        name = f"{server}.add"
        params = {"name": name, "arguments": {"a": number, "b": 2}, "_meta": _META}
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": name}
        await self._call_mcp(params, headers, number, number + 2)

    async def legacy(self, server: str, number: int) -> None:
        """``POST /mcp`` in the session."""
        params = {"name": f"{server}.add", "arguments": {"a": number, "b": 3}}
        await self._call_mcp(params, self._legacy(self._session), number, number + 3)

    @staticmethod
    def _legacy(session: str) -> dict[str, str]:
        return {"MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": session}

    async def _call_mcp(self, params: Any, headers: dict[str, str], number: int, expected: int) -> None:
        message = {"id": number + 1, "method": "tools/call", "params": params}
        async with self._post_mcp(message, headers) as answer:
            reply = await self._json(answer)
        if reply.get("id") != number + 1 or "result" not in reply:
            raise WrongAnswer(f"{reply}")
        _check_sum(reply["result"], expected)

    def _post_mcp(self, message: dict[str, Any], headers: dict[str, str]) -> Any:
        named = {"Accept": "application/json, text/event-stream", **headers}
        return self._http.post(f"{self._base}/mcp", json={"jsonrpc": "2.0", **message}, headers=named)

    async def _json(self, answer: aiohttp.ClientResponse) -> dict[str, Any]:
        text = await answer.text()
        if answer.status != 200:
            raise WrongAnswer(f"{answer.status}: {text[:300]}")
        if answer.content_type == "text/event-stream":
            data = [line[5:] for line in text.splitlines() if line.startswith("data:")]
            text = data[-1]
        found: dict[str, Any] = json.loads(text)
        return found


def _check_sum(result: dict[str, Any], expected: int) -> None:
    """The text holds the number (which way it is wrapped is the server's)."""
    text = result["content"][0]["text"]
    if result.get("isError") or str(expected) not in text:
        raise WrongAnswer(f"not {expected}: {text[:200]}")
