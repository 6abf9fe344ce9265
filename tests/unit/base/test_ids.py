from __future__ import annotations

import re

from mcp_proxy.base.ids import random_id


def test_an_id_is_32_hexadecimal_digits_and_new_each_time() -> None:
    ids = {random_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)
