"""What the API changed, kept on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mcp_proxy.base.errors import StartError
from mcp_proxy.config.state import State, StateStore, StoreError

FULL = State(
    7,
    {"mod": {"transport": "stdio", "command": "x", "env": {"KEY": "s3cret ü"}}, "web": {"url": "https://h/mcp"}},
    frozenset({"a", "b"}),
    frozenset({"c"}),
)
EMPTY: dict[str, Any] = {"version": 1, "revision": 0, "servers": {}, "disabled": [], "enabled": []}


def test_a_missing_file_or_directory_is_an_empty_state(tmp_path: Path) -> None:
    assert StateStore(tmp_path).load() == State()
    assert StateStore(tmp_path / "none" / "there").load() == State()


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    StateStore(tmp_path / "new" / "state").save(FULL)
    assert StateStore(tmp_path / "new" / "state").load() == FULL


def test_what_a_killed_process_left_half_written_goes_with_the_next_save(tmp_path: Path) -> None:
    (tmp_path / ".servers.json.x1y2z3").write_text('{"version": 1, "ser')
    (tmp_path / ".revoked.json.x1y2z3").write_text("of another file")
    StateStore(tmp_path).save(FULL)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".revoked.json.x1y2z3", "servers.json"]


def test_only_the_owner_can_read_the_file_and_the_directory(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state")
    store.save(State())
    os.chmod(store.path, 0o644)
    store.save(FULL)
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700


def test_saving_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save(State(1))
    before = store.path.stat().st_ino
    with store.path.open("rb") as reader:
        store.save(FULL)
        assert json.loads(reader.read())["revision"] == 1
    assert store.path.stat().st_ino != before
    assert os.listdir(tmp_path) == ["servers.json"]


def test_a_save_that_fails_says_so_in_one_line_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StateStore(tmp_path)
    store.save(FULL)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError) as caught:
        store.save(State(8))
    assert str(caught.value) == f"{store.path} cannot be written: No space left on device"
    assert store.load() == FULL
    assert os.listdir(tmp_path) == ["servers.json"]


def test_a_directory_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written: "):
        StateStore(tmp_path / "file").save(FULL)


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    deep: dict[str, Any] = {}
    for _ in range(64):
        deep = {"env": deep}
    for entry, said in (
        (deep, "nested too deeply"),
        ({"description": "x" * 10_000_000}, "larger than 10 MB"),
        ({"env": object()}, "no JSON"),
        ({"command": "\ud800"}, "no JSON"),
    ):
        with pytest.raises(StoreError, match=said):
            store.save(State(1, {"a": entry}))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ": is empty"),
        (b'{"version": 1,\n "revision": }', ", line 2: is not JSON"),
        (b'{"version": 1,\n "version": 1}', ", line 2: the key 'version' stands twice"),
        (b'{"a": "\xff"}', ", line 1: is not UTF-8"),
        (b"[]", ": must be an object"),
        (b"{}", ": has no version 1"),
        (json.dumps(EMPTY | {"version": 2}).encode(), ": has no version 1"),
        (json.dumps(EMPTY | {"version": True}).encode(), ": has no version 1"),
        (b'{"version": 1, "revision": 0, "servers": {}, "enabled": []}', ": disabled is missing"),
        (json.dumps(EMPTY | {"more": 1}).encode(), ": 'more' is not known"),
        (json.dumps(EMPTY | {"revision": -1}).encode(), ": revision must be"),
        (json.dumps(EMPTY | {"revision": "1"}).encode(), ": revision must be"),
        (json.dumps(EMPTY | {"revision": True}).encode(), ": revision must be"),
        (json.dumps(EMPTY | {"servers": []}).encode(), ": servers must be"),
        (json.dumps(EMPTY | {"servers": {"a": "x"}}).encode(), ": servers must be"),
        (json.dumps(EMPTY | {"disabled": "a"}).encode(), ": disabled must be"),
        (json.dumps(EMPTY | {"enabled": [1]}).encode(), ": enabled must be"),
        (b" " * 10_000_001, ": is larger than 10 MB"),
        (b"[" * 70 + b"]" * 70, ": is nested too deeply"),
    ],
)
def test_a_damaged_state_stops_the_start_with_file_line_and_reason(tmp_path: Path, content: bytes, said: str) -> None:
    store = StateStore(tmp_path)
    store.path.write_bytes(content)
    with pytest.raises(StartError) as caught:
        store.load()
    text = str(caught.value)
    assert text.startswith(f"{store.path}{said}")
    assert "remove it to forget" in text
    assert "\n" not in text


def test_a_state_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    StateStore(tmp_path).path.mkdir()
    with pytest.raises(StartError, match="cannot be read: Is a directory"):
        StateStore(tmp_path).load()
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be read: Not a directory"):
        StateStore(tmp_path / "file").load()


def test_a_link_that_leads_nowhere_is_not_an_empty_state(tmp_path: Path) -> None:
    StateStore(tmp_path).path.symlink_to(tmp_path / "gone")
    with pytest.raises(StartError, match="cannot be read: No such file"):
        StateStore(tmp_path).load()


def test_a_state_in_memory_shows_no_secrets() -> None:
    assert "s3cret" not in repr(FULL)


def test_a_file_that_another_program_has_changed_is_not_replaced(tmp_path: Path) -> None:
    one, other = StateStore(tmp_path), StateStore(tmp_path)
    one.save(State(1))
    assert other.load() == State(1)
    other.save(State(2))
    with pytest.raises(StoreError, match="was changed by another program"):
        one.save(State(2, {"a": {"command": "x"}}))
    assert StateStore(tmp_path).load() == State(2)
    other.save(State(3))


def test_a_file_that_was_removed_is_written_anew(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.save(State(1))
    store.path.unlink()
    store.save(State(2))
    assert store.load() == State(2)
