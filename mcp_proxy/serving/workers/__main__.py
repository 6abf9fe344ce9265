"""``python -m mcp_proxy.serving.workers TERMS``: a worker, as `crew` starts it; nobody else does."""

from __future__ import annotations

import sys

from mcp_proxy.serving.workers.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
