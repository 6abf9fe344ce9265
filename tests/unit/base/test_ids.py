from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mcp_proxy.base.ids import random_id

FORKING = """
import os
from mcp_proxy.base.ids import random_id

print(random_id(), flush=True)
child = os.fork()
if child:
    os.waitpid(child, 0)
print(random_id(), flush=True)
"""


def test_an_id_is_32_hexadecimal_digits_and_new_each_time() -> None:
    ids = {random_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)


def test_ids_are_new_in_every_thread() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [one for some in pool.map(lambda _: [random_id() for _ in range(1000)], range(8)) for one in some]
    assert len(set(ids)) == 8000


def test_the_system_is_asked_once_for_many_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    draw = os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: (asked.append(size), draw(size))[1])
    for _ in range(1000):
        random_id()
    assert 0 < len(asked) < 20


def test_a_forked_process_has_ids_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], stdout=subprocess.PIPE, timeout=60, check=True, text=True)
    assert len(set(done.stdout.split())) == len(done.stdout.split()) == 3
