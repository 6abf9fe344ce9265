from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcp_proxy.base.errors import StartError
from mcp_proxy.config.budget_file import MOST_TOKENS, BudgetFile, Spent
from mcp_proxy.config.state import StoreError


def test_what_was_saved_is_loaded_and_only_the_owner_can_read_it(tmp_path: Path) -> None:
    file = BudgetFile(tmp_path / "state")
    budgets = {"jti:t-1": Spent(7, 1_900_000_000), "sub:é": Spent(MOST_TOKENS)}
    assert file.load() == {}
    file.save(budgets)
    assert file.load() == budgets
    assert file.path == tmp_path / "state" / "budgets.json"
    assert file.path.stat().st_mode & 0o777 == 0o600


def document(entry: object) -> str:
    return json.dumps({"version": 1, "budgets": {"jti:a": entry}})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"version": 2, "budgets": {}}',
        '{"version": 1}',
        '{"version": 1, "budgets": []}',
        *(document(entry) for entry in (5, {}, {"spent": -1}, {"spent": 1.5}, {"spent": True}, {"spent": 2**53})),
        *(document({"spent": 1, "expires": when}) for when in (None, "soon", True, -1, 10**400, float("nan"))),
    ],
)
def test_a_file_that_cannot_be_read_stops_the_start_with_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "budgets.json").write_text(content)
    with pytest.raises(StartError, match=r"budgets\.json does not hold spent budgets; mend it") as raised:
        BudgetFile(tmp_path).load()
    assert "\n" not in str(raised.value)


def test_a_directory_in_the_files_place_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "budgets.json").mkdir()
    with pytest.raises(StartError, match="cannot be read"):
        BudgetFile(tmp_path).load()


def test_what_cannot_be_written_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(StoreError, match=r"budgets\.json cannot be written"):
        BudgetFile(tmp_path / "state").save({})
    assert (tmp_path / "state").read_text() == "in the way"
