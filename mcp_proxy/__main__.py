"""``python -m mcp_proxy``."""

from __future__ import annotations

from mcp_proxy.cli import main

if __name__ == "__main__":
    main()
