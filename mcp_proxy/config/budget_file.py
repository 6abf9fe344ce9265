"""Where spent budgets of tokens are kept between runs: STATE_DIR/budgets.json. What they mean is `llm.budgets`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_proxy.base.atomic_file import replace_file
from mcp_proxy.base.errors import StartError
from mcp_proxy.base.json import encode
from mcp_proxy.config.state import StoreError

MOST_TOKENS = 2**53 - 1
"""Where counting ends: what a JSON number can be for every reader. No budget is as large."""
_VERSION = 1
_LATEST = 1e12  # far behind any time that a token can name


@dataclass(frozen=True, slots=True)
class Spent:
    """How many tokens were spent. ``expires``: Unix time after which nobody can spend more; None: never."""

    tokens: int
    expires: float | None = None


class BudgetFile:
    """Reads the file at the start and replaces it as a whole."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "budgets.json"

    def load(self) -> dict[str, Spent]:
        """What was kept; a missing file is empty. Raises `StartError`: one that cannot be read never counts as empty."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StartError(f"{self.path} cannot be read: {error.strerror}") from None
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not _is_budgets(document):
            text = "does not hold spent budgets; mend it, or remove it to begin all budgets anew"
            raise StartError(f"{self.path} {text}")
        return {key: Spent(entry["spent"], entry.get("expires")) for key, entry in document["budgets"].items()}

    def save(self, budgets: Mapping[str, Spent]) -> None:
        """Replace the file, readable by the owner only. Raises `StoreError`; the old file is then in place."""
        entries = {key: _written(spent) for key, spent in budgets.items()}
        content = encode({"version": _VERSION, "budgets": entries}) + b"\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.path, content)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror or type(error).__name__}") from None


def _written(spent: Spent) -> dict[str, Any]:
    return {"spent": spent.tokens} | ({} if spent.expires is None else {"expires": spent.expires})


def _is_budgets(document: Any) -> bool:
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        return False
    budgets = document.get("budgets")
    return isinstance(budgets, dict) and all(_is_spent(entry) for entry in budgets.values())


def _is_spent(entry: Any) -> bool:
    if not isinstance(entry, dict) or type(entry.get("spent")) is not int:
        return False
    expires = entry.get("expires", 0)
    return 0 <= entry["spent"] <= MOST_TOKENS and type(expires) in (int, float) and 0 <= expires < _LATEST
