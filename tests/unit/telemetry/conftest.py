"""Every log that a test makes takes over the standard library's logging; afterwards that is as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from mcp_proxy.telemetry.logs import FOREIGN


@pytest.fixture(autouse=True)
def _standard_logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, access = list(root.handlers), logging.getLogger("hypercorn.access")
    yield
    root.handlers[:] = handlers
    access.disabled = False
    for name in FOREIGN:
        logging.getLogger(name).setLevel(logging.NOTSET)
