"""The list of models: ``GET /v1/models`` and ``/v1/models/{id}``, as OpenAI's and Anthropic's clients both read it.

One object satisfies both: fields of the other API are passed over. Which names there are is `bridge.routes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

OWNER = "mcp-proxy-api"


def one(name: str, created: int) -> dict[str, Any]:
    """One model; ``created`` is seconds since 1970."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": OWNER,
        "type": "model",
        "display_name": name,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
    }


def listed(names: Iterable[str], created: int) -> dict[str, Any]:
    """All models, on the one page that there is."""
    data = [one(name, created) for name in names]
    return {
        "object": "list",
        "data": data,
        "has_more": False,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }
