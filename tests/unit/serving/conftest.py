"""What the tests of servers look into."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.serving import uvicorn_server
from mcp_proxy.serving.uvicorn_state import State


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """What the servers of this test know of their connections, in the order in which they were started."""
    made: list[State] = []

    def state(**more: Any) -> State:
        made.append(State(**more))
        return made[-1]

    monkeypatch.setattr(uvicorn_server, "State", state)
    return made
