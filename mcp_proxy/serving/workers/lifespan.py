"""The application's start and end, where no HTTP server of this process sees to them (ASGI's lifespan protocol)."""

from __future__ import annotations

import asyncio

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.edge.types import App, Message


class Lifespan:
    """Of one application."""

    def __init__(self, app: App, tasks: TaskSet) -> None:
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        running = tasks.spawn(app(scope, self._told.get, self._said.put), "lifespan")  # type: ignore[arg-type]
        running.add_done_callback(lambda _: self._said.put_nowait({"type": "lifespan.ended"}))

    async def start(self) -> None:
        """Raises `RuntimeError` when the application does not start."""
        await self._until("startup")

    async def end(self) -> None:
        """Raises `RuntimeError` when the application does not end in order."""
        await self._until("shutdown")

    async def _until(self, what: str) -> None:
        self._told.put_nowait({"type": f"lifespan.{what}"})
        said = await self._said.get()
        if said["type"] != f"lifespan.{what}.complete":
            raise RuntimeError(f"the application's {what} failed: {said.get('message', said['type'])}")
