"""The list of revoked tokens: shared by processes, never lost, never forgotten."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys

import pytest

from mcp_proxy.base.errors import StartError
from mcp_proxy.core.auth import revocation as module
from mcp_proxy.core.auth.revocation import RevocationError, Revocations, is_token_id, revoke

NOW = 1_800_000_000


def test_without_a_file_nothing_is_revoked(tmp_path):
    revocations = Revocations(tmp_path / "none")
    assert not revocations.is_revoked("a")
    assert not revocations.reload_if_changed()
    assert revocations.problem is None


def test_a_revocation_is_in_force_after_one_reload(tmp_path):
    revocations = Revocations(tmp_path)
    assert revoke(tmp_path, "a", NOW)
    assert revocations.reload_if_changed()
    assert revocations.is_revoked("a")
    assert not revocations.is_revoked("b")
    assert not revocations.reload_if_changed()


def test_a_revocation_is_in_force_at_once_where_it_is_made(tmp_path):
    revocations = Revocations(tmp_path / "state")
    assert revocations.revoke("a", NOW)
    assert revocations.is_revoked("a")
    assert not revocations.revoke("a", NOW + 5)


def test_the_file_is_versioned_and_keeps_the_first_time(tmp_path):
    revoke(tmp_path, "a", NOW + 0.7)
    assert not revoke(tmp_path, "a", NOW + 100)
    revoke(tmp_path, "ä b", NOW + 1)
    content = json.loads((tmp_path / "revoked.json").read_bytes())
    assert content == {"version": 1, "revoked": {"a": NOW, "ä b": NOW + 1}}


def test_only_the_owner_can_read_it(tmp_path):
    state = tmp_path / "deep" / "state"
    revoke(state, "a", NOW)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for name in ("revoked.json", "revoked.lock"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    assert sorted(os.listdir(state)) == ["revoked.json", "revoked.lock"]


def test_revocations_of_several_processes_at_once_lose_none(tmp_path):
    program = (
        "import sys; from pathlib import Path; from mcp_proxy.core.auth.revocation import revoke\n"
        "for n in range(20): revoke(Path(sys.argv[1]), f'{sys.argv[2]}-{n}', 1)"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(number)]) for number in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    revocations = Revocations(tmp_path)
    assert all(revocations.is_revoked(f"{number}-{n}") for number in range(4) for n in range(20))


DAMAGE = [
    b"",
    b"{",
    b"[]",
    b'{"version": 1}',
    b'{"version": 2, "revoked": {}}',
    b'{"version": 1, "revoked": ["a"]}',
    b'{"version": 1, "revoked": {"a": "yesterday"}}',
    b'{"version": 1, "revoked": {"a": true}}',
    b'{"version": 1, "revoked": {"": 1}}',
    b"\xff",
]


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_file_stops_the_start_and_names_itself(tmp_path, content):
    file = tmp_path / "revoked.json"
    file.write_bytes(content)
    with pytest.raises(StartError) as caught:
        Revocations(tmp_path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", DAMAGE)
def test_a_file_that_turns_bad_keeps_its_last_good_content_until_mended(tmp_path, content):
    revoke(tmp_path, "a", NOW)
    revocations = Revocations(tmp_path)
    file = tmp_path / "revoked.json"
    good = file.read_bytes()
    file.write_bytes(content)
    assert not revocations.reload_if_changed()
    assert revocations.is_revoked("a")
    assert str(file) in revocations.problem
    file.unlink()
    file.write_bytes(good.replace(b'"a"', b'"b"'))
    assert revocations.reload_if_changed()
    assert revocations.is_revoked("b")
    assert revocations.problem is None


def test_a_file_that_disappears_is_not_an_empty_one(tmp_path):
    revoke(tmp_path, "a", NOW)
    revocations = Revocations(tmp_path)
    (tmp_path / "revoked.json").unlink()
    assert not revocations.reload_if_changed()
    assert revocations.is_revoked("a")
    assert "gone" in revocations.problem
    revoke(tmp_path, "b", NOW)
    assert revocations.reload_if_changed()
    assert revocations.problem is None


def test_a_damaged_file_is_never_written_over(tmp_path):
    (tmp_path / "revoked.json").write_bytes(b"{")
    with pytest.raises(RevocationError, match="damaged"):
        revoke(tmp_path, "a", NOW)
    assert (tmp_path / "revoked.json").read_bytes() == b"{"


def test_a_failed_write_leaves_the_list_as_it_was(tmp_path, monkeypatch):
    revoke(tmp_path, "a", NOW)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", fail)
    with pytest.raises(RevocationError, match="No space"):
        revoke(tmp_path, "b", NOW)
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["revoked.json", "revoked.lock"]
    assert not Revocations(tmp_path).is_revoked("b")


def test_a_state_directory_that_is_a_file_is_reported(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(RevocationError, match="cannot be written"):
        revoke(tmp_path / "state", "a", NOW)
    with pytest.raises(StartError, match="cannot be read"):
        Revocations(tmp_path / "state")


@pytest.mark.parametrize("token_id", ["", "a" * 257, "a\n", "\x00"])
def test_what_is_no_token_id_cannot_be_revoked(tmp_path, token_id):
    assert not is_token_id(token_id)
    with pytest.raises(RevocationError, match="256"):
        revoke(tmp_path, token_id, NOW)
    assert os.listdir(tmp_path) == []


@pytest.mark.anyio
async def test_watching_follows_the_file(tmp_path):
    revocations = Revocations(tmp_path)
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            assert revocations.is_revoked("a")
            raise asyncio.CancelledError
        revoke(tmp_path, "a", NOW)

    with pytest.raises(asyncio.CancelledError):
        await revocations.watch(sleep=sleep)
    assert pauses == [0.25, 0.25]
