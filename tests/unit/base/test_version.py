from __future__ import annotations

import re
from importlib.metadata import version

from mcp_proxy.base.version import VERSION


def test_the_version_is_the_one_the_package_is_installed_with() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert version("mcp-proxy-api") == VERSION
