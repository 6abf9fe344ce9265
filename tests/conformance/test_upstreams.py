"""Each kind of upstream is of the era it is meant to be, as the proxy finds it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.conformance.upstreams import KINDS, upstream
from tests.harness import ProxyProcess

pytestmark = pytest.mark.anyio


async def test_the_kinds_are_spoken_to_in_the_best_era_they_have() -> None:
    async with AsyncExitStack() as stack:
        servers = {kind: await stack.enter_async_context(upstream(kind)) for kind in KINDS}
        proxy = await stack.enter_async_context(ProxyProcess("--no-auth", servers=servers))
        await proxy.connected(*KINDS)
        rows = (await proxy.get("/servers")).json["servers"]
        assert {row["name"]: (row["transport"], row["era"]) for row in rows} == {
            "dual": ("streamable-http", "modern"),
            "stdio": ("stdio", "modern"),
            "legacy-only": ("streamable-http", "legacy"),
            "modern-only": ("streamable-http", "modern"),
        }
        answers = [await proxy.call("test_simple_text", server=kind) for kind in KINDS]
        assert [answer.status for answer in answers] == [200, 200, 200, 200]
