"""Revoked tokens, by ``jti``: one small file in the state directory, shared by every process that serves from it.

Writers take a lock file and replace the list whole; readers notice by ``stat``. A list that cannot be read never
counts as empty: the last good one stays in force, and at the start there is none, so the start fails.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mcp_proxy.base.atomic_file import replace_file
from mcp_proxy.base.errors import StartError
from mcp_proxy.base.json import JsonError, encode, read_strict

FILE = "revoked.json"
LOCK = "revoked.lock"
VERSION = 1
MAX_TOKEN_ID = 256

_Seen = tuple[int, int, int]
_log = logging.getLogger(__name__)


class RevocationError(Exception):
    """The list cannot be read or written, or the id is not one. One line that says what to do."""


def is_token_id(text: str) -> bool:
    """Whether ``text`` can be the ``jti`` of a token: 1 to 256 printable characters."""
    return 0 < len(text) <= MAX_TOKEN_ID and text.isprintable()


def revoke(state_dir: Path, token_id: str, now: float) -> bool:
    """Add ``token_id`` to the list on disk. False when it was there already.

    Safe beside other processes that do the same. Raises `RevocationError`: not an id, a damaged list, a directory
    that cannot be written.
    """
    if not is_token_id(token_id):
        raise RevocationError(f"a token id (jti) is 1 to {MAX_TOKEN_ID} printable characters")
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(state_dir / LOCK):
            revoked, _ = _read(state_dir / FILE)
            if token_id in revoked:
                return False
            _write(state_dir / FILE, {**revoked, token_id: int(now)})
    except OSError as error:
        raise RevocationError(f"{error.filename or state_dir} cannot be written: {error.strerror}") from None
    return True


class Revocations:
    """The list as one process knows it. ``problem`` says why the file cannot be followed, None when it can.

    Raises `StartError` when the file is there and damaged.
    """

    def __init__(self, state_dir: Path) -> None:
        self.problem: str | None = None
        self._dir = state_dir
        self._path = state_dir / FILE
        try:
            self._revoked, self._seen = _read(self._path)
        except RevocationError as error:
            raise StartError(str(error)) from None
        except OSError as error:
            raise StartError(f"{self._path} cannot be read: {error.strerror}") from None

    def is_revoked(self, token_id: str) -> bool:
        """Whether the token with this ``jti`` has been revoked. A lookup in memory."""
        return token_id in self._revoked

    def revoke(self, token_id: str, now: float) -> bool:
        """As the function `revoke`, and in force here at once."""
        added = revoke(self._dir, token_id, now)
        self.reload_if_changed()
        return added

    def reload_if_changed(self) -> bool:
        """Take over the file when it changed since it was last looked at. Whether its content was taken over."""
        look = self._look()
        if look == self._seen:
            return False
        try:
            revoked, seen = _read(self._path)
        except RevocationError as error:
            self._report(str(error))
            self._seen = look  # reported once, and read again when it changes
            return False
        except OSError as error:
            self._report(f"{self._path} cannot be read: {error.strerror}")
            return False
        self._seen = seen
        if seen is None:
            self._report(f"{self._path} is gone")
            return False
        self.problem = None
        self._revoked = revoked
        return True

    async def watch(self, interval: float = 0.25, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Follow the file until cancelled, so that a revocation is in force within a second."""
        while True:
            await sleep(interval)
            self.reload_if_changed()

    def _look(self) -> _Seen | None:
        try:
            return _stamp(os.stat(self._path))
        except OSError:
            return None

    def _report(self, what: str) -> None:
        problem = f"{what}; the {len(self._revoked)} revocations known before stay in force"
        if problem != self.problem:
            _log.error("%s", problem)
        self.problem = problem


def _stamp(status: os.stat_result) -> _Seen:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> tuple[Mapping[str, float], _Seen | None]:
    """The list and the stamp of what was read; no file is an empty list without a stamp."""
    try:
        with path.open("rb") as file:
            seen, data = _stamp(os.fstat(file.fileno())), file.read()
    except FileNotFoundError:
        return {}, None
    try:
        content = read_strict(data)
    except JsonError as error:
        raise RevocationError(f"{path} is damaged ({error}); restore it, or remove it to forget all of it") from None
    if not isinstance(content, dict) or content.get("version") != VERSION or not _is_list(content.get("revoked")):
        raise RevocationError(f"{path} is not a list of revoked tokens (version {VERSION}); restore or remove it")
    return content["revoked"], seen


def _is_list(revoked: object) -> bool:
    return isinstance(revoked, dict) and all(
        is_token_id(token_id) and type(when) in (int, float) and math.isfinite(when)
        for token_id, when in revoked.items()
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file. The list itself cannot be the lock: it is replaced."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, revoked: Mapping[str, float]) -> None:
    replace_file(path, encode({"version": VERSION, "revoked": revoked}) + b"\n")
