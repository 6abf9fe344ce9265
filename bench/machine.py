"""Where and with what something was measured: processor, kernel, Python, versions of the gateways."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("hypercorn", "uvicorn", "uvloop", "httptools", "quart", "msgspec")
"""What the project's speed depends on."""


def machine() -> dict:
    """As it goes into the JSON of a run."""
    return {
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: importlib.metadata.version(name) for name in PARTS},
        "load_before": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def own_version() -> str:
    """The project's version, and the commit where there is one."""
    text = (ROOT / "mcp_proxy/base/version.py").read_text()
    version = text.split('VERSION = "', 1)[1].split('"', 1)[0]
    found = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return f"{version} {found.stdout.strip()}".strip()


def peer_version(peers: str, package: str) -> str | None:
    """The version of an installed peer, None: it is not installed. ``package`` as in `gateways`: ``v/mcpo/mcpo``."""
    place, _, name = package.rpartition("/")
    if place.startswith("npm/"):
        manifest = Path(peers, place, "node_modules", name, "package.json")
        return json.loads(manifest.read_text())["version"] if manifest.exists() else None
    found = sorted(Path(peers, place).glob(f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").rpartition("-")[2] if found else None
