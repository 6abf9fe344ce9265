"""What the two HTTP servers do differently, and by nature: tests of the whole program run under either (`harness.SERVER`)."""

from __future__ import annotations

import pytest

from tests.harness import SERVER

HTTP2 = pytest.param("h2", marks=pytest.mark.skipif(SERVER == "uvicorn", reason="HTTP/2 is Hypercorn's alone"))
