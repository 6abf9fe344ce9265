"""Request ids. Handed in as a function, so that tests can count them."""

from __future__ import annotations

import os
from collections.abc import Callable

IdSource = Callable[[], str]

_AT_ONCE = 128
"""Ids that are made of one answer of the system: asking it costs more than all else about them."""

_left: list[str] = []
# Else the child would go on with the same ones.
os.register_at_fork(after_in_child=_left.clear)


def random_id() -> str:
    """128 random bits as 32 hexadecimal digits."""
    try:
        return _left.pop()
    except IndexError:
        digits = os.urandom(16 * _AT_ONCE).hex()
        first, *others = [digits[at : at + 32] for at in range(0, len(digits), 32)]
        _left.extend(others)
        return first
