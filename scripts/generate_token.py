#!/usr/bin/env python3
"""Another name of ``mcp-proxy-api token``, for a checkout: ``python scripts/generate_token.py --sub NAME``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcp_proxy.scripts.generate_token import main

if __name__ == "__main__":
    main()
