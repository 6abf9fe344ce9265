#!/usr/bin/env python3
"""An MCP server that misbehaves on purpose, and keeps a ledger of what it executed. Standard library only.

    python upstream.py stdio --ledger calls.jsonl --mode noise
    python upstream.py http  --ledger calls.jsonl --mode hang --mode paged-tools --times 1

`http` serves streamable HTTP at /mcp (both eras) and HTTP+SSE of 2024-11-05 at /sse, and prints one line when it is
ready: {"port": 41234, "control": 41235}. It answers modern requests as JSON and legacy ones as SSE, unless --shape says
otherwise.

Tools: echo {text} (read-only), add {a, b} (idempotent), count {} (neither).

Faults are in force for the whole run (--mode), from when they are ordered

    POST /_control {"mode": "close", "times": 1, "options": {"ms": 50}}      on either port; "none" ends all
    --control FILE                                                           the same JSON, read before each message

or for one call, by its arguments: {"text": "x", "fault": "slow", "ms": 200}. Options are named in `backquotes` below.
The ledger has one JSON line per event: executed (tool, arguments), received (a tools/call arrived), list, started,
cancelled, disconnected (from a hanging call), grandchild; each with pid and time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from faulty.faults import FAULTS, STATES
from faulty.over_http import Http
from faulty.over_stdio import Stdio
from faulty.server import Ledger, Server


def table() -> str:
    rows = [("of one call", "")]
    rows += [(f"  {fault.name}", fault.help) for fault in FAULTS.values()]
    rows += [("of the whole", "")] + [(f"  {name}", text) for name, text in STATES.items()]
    return "faults\n" + "\n".join(f"  {name:<24}{text}".rstrip() for name, text in rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=table(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("transport", choices=("stdio", "http"))
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--mode", action="append", default=[], metavar="FAULT", help="repeatable")
    parser.add_argument("--times", type=int, help="how often each mode strikes (default: always)")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="repeatable; JSON values")
    parser.add_argument("--control", type=Path, metavar="FILE", help="modes from a file")
    parser.add_argument("--ledger", type=Path, metavar="FILE")
    parser.add_argument("--shape", choices=("auto", "json", "sse"), default="auto", help="of HTTP replies")
    parser.add_argument("--lifetime", type=float, default=600, help="seconds after which it exits whatever happens")
    return parser.parse_args()


def option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def prepare(server: Server, ledger: Ledger) -> None:
    """What happens before anything is served."""
    ledger.write("started")
    if server.take("exit-at-start"):
        sys.exit("exits at once, as asked")
    if server.has("ignore-sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if server.has("grandchild"):
        quiet = subprocess.DEVNULL
        child = subprocess.Popen(["sleep", "300"], stdin=quiet, stdout=quiet, stderr=quiet)
        ledger.write("grandchild", child=child.pid)


async def serve_http(server: Server, port: int, shape: str, wait: float) -> None:
    http = Http(server, shape)
    ports = await http.start(port)
    if not wait:
        await http.listen()
    print(json.dumps(ports), flush=True)
    if wait:  # the port is known, and refuses for now
        await asyncio.sleep(wait)
        await http.listen()
    await asyncio.get_running_loop().create_future()


def main() -> None:
    args = arguments()
    ledger = Ledger(args.ledger)
    server = Server(ledger)
    server.control({"mode": args.mode, "times": args.times, "options": dict(map(option, args.option))})
    if args.control is not None:
        server.follow(args.control)
    watchdog = threading.Timer(args.lifetime, os._exit, (4,))
    watchdog.daemon = True
    watchdog.start()
    prepare(server, ledger)
    wait = server.options.get("ms", 1500) / 1000 if server.has("slow-start") else 0.0
    if args.transport == "http":
        asyncio.run(serve_http(server, args.port, args.shape, wait))
    else:
        time.sleep(wait)
        asyncio.run(Stdio(server).serve())


if __name__ == "__main__":
    main()
