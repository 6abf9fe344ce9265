"""Request ids. Handed in as a function, so that tests can count them."""

from __future__ import annotations

import os
from collections.abc import Callable

IdSource = Callable[[], str]


def random_id() -> str:
    """128 random bits as 32 hexadecimal digits."""
    return os.urandom(16).hex()
