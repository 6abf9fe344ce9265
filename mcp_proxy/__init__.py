"""MCP Proxy API: one service between every AI client and every MCP tool.

``create_app`` builds the application, ``main`` runs the command line; both are loaded when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_proxy.base.version import VERSION

if TYPE_CHECKING:
    from mcp_proxy.app import create_app
    from mcp_proxy.cli import main

__version__ = VERSION
__all__ = ["__version__", "create_app", "main"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from mcp_proxy.app import create_app

        return create_app
    if name == "main":
        # The function; ``mcp_proxy.main`` the module is for ``python -m`` and is callable as well.
        from mcp_proxy.cli import main

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
