"""What a gateway's processes use: CPU seconds and resident memory, without the backends that it starts itself (stdio)."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil


@dataclass
class Usage:
    cpu: float = 0.0
    rss: float = 0.0
    processes: int = 0
    backend_cpu: float = 0.0


class Processes:
    """The gateway's process tree, apart from the backends that it may have started itself (stdio)."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)

    def members(self) -> tuple[list[psutil.Process], list[psutil.Process]]:
        mine, backends = [], []
        try:
            tree = [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return [], []
        for p in tree:
            try:
                is_backend = p.pid != self.root.pid and any("backend.py" in a for a in p.cmdline())
                # a shell that only wraps the backend is the gateway's doing, and costs next to nothing
                (backends if is_backend else mine).append(p)
            except psutil.Error:
                pass
        return mine, backends

    def usage(self) -> Usage:
        out = Usage()
        mine, backends = self.members()
        for p in mine:
            try:
                t = p.cpu_times()
                out.cpu += t.user + t.system
                out.rss += p.memory_info().rss / 2**20
                out.processes += 1
            except psutil.Error:
                pass
        for p in backends:
            try:
                t = p.cpu_times()
                out.backend_cpu += t.user + t.system
            except psutil.Error:
                pass
        return out

    def pin(self, gateway_cpus: list[int], other_cpus: list[int]) -> None:
        mine, backends = self.members()
        for group, cpus in ((mine, gateway_cpus), (backends, other_cpus)):
            for p in group:
                try:
                    for t in p.threads():
                        os.sched_setaffinity(t.id, cpus)
                except (psutil.Error, OSError):
                    pass
