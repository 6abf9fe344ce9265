#!/usr/bin/env python3
"""Measure MCP gateways side by side; see bench/README.md.

scripts/bench --smoke                                   does everything work? under a minute
scripts/bench                                           this project, and the machine's limit
scripts/bench --gateways direct,mcp-proxy-api-stdio,mcpo --peers DIR --out bench/results/today.json
scripts/bench --gateways all --peers DIR --out docs/performance/table.json     all that is installed: most of an hour
scripts/bench --show bench/results/today.json [MORE.json ...]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import gateways as gw
import psutil
from accounting import Processes
from load import MARK, Load, Target
from machine import machine
from report import line, load_results, show

HERE = os.path.dirname(os.path.abspath(__file__))
BACKEND = os.path.join(HERE, "backend.py")
SIZES = {"1k": 1 << 10, "8k": 1 << 13, "64k": 1 << 16, "512k": 1 << 19, "1m": 1 << 20, "4m": 1 << 22, "10m": 10 << 20}
SMOKE_PLAN = "echo:16"
FILES = 8192  # descriptors: a thousand connections on both sides of a gateway


@dataclass
class Backend:
    name: str
    url: str
    command: list[str]


@dataclass
class Run:
    """What a gateway class gets to see."""

    port: int
    dir: str
    peers: str
    backends: list[Backend]
    backend_script: str = BACKEND

    def peer(self, path: str) -> str:
        return os.path.join(os.path.abspath(self.peers), path)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listening(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(0.2)
        return s.connect_ex(("127.0.0.1", port)) == 0


class Bench:
    def __init__(self, args, tools: int = 0) -> None:
        """``tools``: so many more on each backend than it needs."""
        self.args = args
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.cpus = ([cpus[0]], cpus[1:]) if args.pin and len(cpus) > 1 else None
        if self.cpus:
            os.sched_setaffinity(0, self.cpus[1])
        self.backend_port = free_port()
        self.backend = subprocess.Popen(
            [sys.executable, BACKEND, "http", "--port", str(self.backend_port), "--tools", str(tools)]
        )
        while not listening(self.backend_port):
            time.sleep(0.02)

    def close(self) -> None:
        self.backend.terminate()
        self.backend.wait(10)

    # --- one gateway process

    def backends(self, kind: str, count: int) -> list[Backend]:
        leaf = {"modern": "mcp-modern", "both": "mcp", "legacy": "mcp-legacy", "sse": "sse", "stdio": "mcp"}[kind]
        url = f"http://127.0.0.1:{self.backend_port}"
        return [Backend(f"b{i}", f"{url}/b{i}/{leaf}", [sys.executable, BACKEND, "stdio"]) for i in range(count)]

    def start(self, gateway: gw.Gateway, count: int = 1):
        """Start it and wait for the first correct answer; returns (run, process, seconds to that answer)."""
        kind = self.args.backend or gateway.backend
        run = Run(free_port(), tempfile.mkdtemp(prefix="bench-"), self.args.peers, self.backends(kind, count))
        command = gateway.command(run)
        # settings of whoever runs this must not reach the gateway
        ambient = {k: v for k, v in os.environ.items() if not k.startswith(("MCP_", "JWT_", "VIRTUAL_ENV"))}
        env = {**ambient, **gateway.env}
        log = open(os.path.join(run.dir, "gateway.log"), "wb")
        begin = time.perf_counter()
        cpus = None
        if self.cpus:
            cpus = self.cpus[0] if gateway.pin else [*self.cpus[0], *self.cpus[1]]
        process = subprocess.Popen(
            command, cwd=run.dir, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
        )  # fmt: skip
        try:
            while not listening(run.port):
                if process.poll() is not None or time.perf_counter() - begin > self.args.start_timeout:
                    raise RuntimeError(f"did not start: {self.tail(run)}")
                time.sleep(0.01)
            gateway.prepare(run)
            target = self.target(gateway, run, gateway.fronts[0], "echo")
            while error := asyncio.run(Load(target, 1, "echo").once(15)):
                if process.poll() is not None or time.perf_counter() - begin > self.args.start_timeout:
                    raise RuntimeError(f"no correct answer: {error} :: {self.tail(run)}")
                time.sleep(0.02)
            return run, process, time.perf_counter() - begin
        except BaseException:
            self.stop(run, process)
            raise

    def tail(self, run: Run) -> str:
        with open(os.path.join(run.dir, "gateway.log"), errors="replace") as f:
            return f.read()[-1500:]

    def stop(self, run: Run, process: subprocess.Popen) -> None:
        try:
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            tree = []
        process.send_signal(signal.SIGTERM) if process.poll() is None else None
        try:
            process.wait(4)
        except subprocess.TimeoutExpired:
            pass
        for p in tree:
            try:
                p.kill()
            except psutil.Error:
                pass
        process.wait(10)
        if not self.args.keep:
            shutil.rmtree(run.dir, ignore_errors=True)

    # --- measuring

    def target(self, gateway, run, front: str, op: str) -> Target:
        if op == "echo":
            return gateway.target(run, front, "echo", {"text": MARK})
        target = gateway.target(run, front, "payload", {"bytes": SIZES[op]})
        target.expect = SIZES[op]
        return target

    def measure(self, gateway, run, process, front: str, op: str, concurrency: int) -> dict:
        procs, marks = Processes(process.pid), []

        def edge() -> None:
            if not marks and self.cpus and gateway.pin:
                procs.pin(*self.cpus)
            busy = psutil.cpu_times()
            marks.append((procs.usage(), sum(busy) - busy.idle - busy.iowait, self.own_cpu()))

        load = Load(self.target(gateway, run, front, op), concurrency, op)
        row = asyncio.run(load.run(self.args.warmup, self.args.seconds, edge)).as_dict()
        row["gateway"] = gateway.name
        if len(marks) == 2:
            (before, busy0, own0), (after, busy1, own1) = marks
            cpu = after.cpu - before.cpu
            ours = cpu + after.backend_cpu - before.backend_cpu + own1 - own0
            row["rss_mib"] = round(after.rss, 1)
            row["other_load"] = round(max(0.0, busy1 - busy0 - ours) / row["seconds"], 2)
            row["cpu_s_per_1k"] = round(cpu / row["calls"] * 1000, 3) if row["calls"] else None
            row["cpu_load"] = round(cpu / row["seconds"], 2)
        return row

    def own_cpu(self) -> float:
        backend = psutil.Process(self.backend.pid).cpu_times()
        return time.process_time() + backend.user + backend.system

    def gateway(self, cls) -> dict:
        gateway = cls()
        report: dict = {"gateway": cls.name, "version": gateway.version(self.args.peers), "own": cls.own}
        report |= {"note": cls.note, "backend": self.args.backend or cls.backend, "rows": []}
        plan = parse_plan(self.args.plan)
        fronts = [f for f in cls.fronts if not self.args.fronts or f in self.args.fronts.split(",")]
        try:
            starts = []
            for _ in range(self.args.starts):
                run, process, took = self.start(cls())
                self.stop(run, process)
                starts.append(took)
            run, process, took = self.start(gateway)
            starts.append(took)
            report["cold_start_s"] = round(statistics.median(starts), 2)
            report["cold_starts"] = [round(s, 2) for s in starts]
            try:
                time.sleep(1.5)
                usage = Processes(process.pid).usage()
                report["idle_rss_mib"] = round(usage.rss, 1)
                report["processes"] = usage.processes
                for front in fronts:
                    if any(row["stuck"] for row in report["rows"]):  # it may still be at calls that nobody waits for
                        self.stop(run, process)
                        run, process, _ = self.start(gateway)
                    for op, concurrency in plan:
                        if process.poll() is not None:
                            raise RuntimeError("the gateway died: " + self.tail(run))
                        row = self.measure(gateway, run, process, front, op, concurrency)
                        report["rows"].append(row)
                        print(line(row), flush=True)
            finally:
                self.stop(run, process)
            if self.args.many and cls.many:
                many = cls()
                run, process, took = self.start(many, self.args.many)
                try:
                    time.sleep(1.5)
                    report["many"] = self.args.many
                    report["many_start_s"] = round(took, 2)
                    report["many_idle_rss_mib"] = round(Processes(process.pid).usage().rss, 1)
                finally:
                    self.stop(run, process)
        except Exception as exc:
            report["failed"] = f"{type(exc).__name__}: {exc}"
            print(f"{cls.name}: FAILED {report['failed']}", flush=True)
        return report


def parse_plan(text: str) -> list[tuple[str, int]]:
    """ "echo:1,16;64k:16" -> [("echo", 1), ("echo", 16), ("64k", 16)]"""
    plan = []
    for part in text.split(";"):
        op, _, levels = part.partition(":")
        plan += [(op, int(c)) for c in levels.split(",")]
    return plan


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gateways", help="comma-separated names, see --list, or all: every one that is installed")
    p.add_argument(
        "--smoke", action="store_true", help="a short run of every variant of this project; fails on any error"
    )
    p.add_argument("--extra", action="append", default=[], help="a Python file with further Gateway classes")
    p.add_argument("--peers", default=os.environ.get("BENCH_PEERS", "."), help="directory the peers are installed in")
    p.add_argument("--plan", default="echo:1,16,64;64k:16;1m:16;echo:256,1000", help="operation:concurrencies;…")
    p.add_argument("--fronts", default="", help="only these fronts")
    p.add_argument("--backend", default="", help="override the backend transport")
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--warmup", type=float, default=1.5)
    p.add_argument("--starts", type=int, default=2, help="extra cold starts (the median of all is reported)")
    p.add_argument("--many", type=int, default=20, help="also start with this many backends (0: do not)")
    p.add_argument("--start-timeout", type=float, default=90)
    p.add_argument("--no-pin", dest="pin", action="store_false", help="do not pin gateway and load to separate cores")
    p.add_argument("--keep", action="store_true", help="keep the scratch directories (logs)")
    p.add_argument("--out", default="")
    p.add_argument("--show", nargs="+", help="print the tables of earlier results")
    p.add_argument("--list", action="store_true")
    args = p.parse_args()
    for path in args.extra:
        spec = importlib.util.spec_from_file_location("extra_" + os.path.basename(path)[:-3], path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    if args.show:
        return print(show([report for path in args.show for report in load_results(path)["reports"]]))
    known = gw.all_gateways()
    if args.smoke:
        args.gateways = args.gateways or ",".join(["direct", *(n for n, c in known.items() if c.own)])
        args.plan = SMOKE_PLAN
        args.seconds, args.warmup, args.starts, args.many, args.start_timeout = 0.3, 0.1, 0, 0, 20
    args.gateways = args.gateways or "direct,mcp-proxy-api"
    if args.gateways == "all":
        args.gateways = ",".join(n for n, c in known.items() if c().version(args.peers) is not None)
    if unknown := [name for name in args.gateways.split(",") if name not in known]:
        p.error(f"no gateway is called {unknown[0]!r}; --list names them all")
    if args.list:
        return print("\n".join(f"{n:28} {','.join(c.fronts):22} backend {c.backend}" for n, c in known.items()))
    prepare_process()
    chosen = ("plan", "seconds", "warmup", "starts", "many", "pin", "fronts")
    results = {"machine": machine(), "settings": {name: getattr(args, name) for name in chosen}, "reports": []}
    bench = Bench(args)
    try:
        for name in args.gateways.split(","):
            results["reports"].append(bench.gateway(known[name]))
            if args.out:
                write_results(args.out, results)
    finally:
        bench.close()
    print("\n" + show(results["reports"]))
    if args.smoke and (bad := [r["gateway"] for r in results["reports"] if faulty(r)]):
        sys.exit(f"not without errors: {', '.join(bad)}")


def prepare_process() -> None:
    """The driver's own event loop, room for its connections and for those of what it starts, and an orderly end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it has started ends with it
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard), hard)
        )
    try:
        import uvloop

        uvloop.install()
    except ImportError:
        pass


def write_results(path: str, results: dict) -> None:
    """One part a line: to be read by people too, and compared."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)

    def text(value) -> str:
        if isinstance(value, list):
            return "[\n" + ",\n".join(json.dumps(one) for one in value) + "\n]"
        return json.dumps(value)

    parts = [f'"{name}": {text(value)}' for name, value in results.items()]
    with open(path, "w") as f:
        f.write("{\n" + ",\n".join(parts) + "\n}\n")


def faulty(report: dict) -> bool:
    """Did anything go wrong with this gateway?"""
    return "failed" in report or any(
        r["errors"] or r["stuck"] or r["foreign"] or not r["calls"] for r in report["rows"]
    )


if __name__ == "__main__":
    main()
