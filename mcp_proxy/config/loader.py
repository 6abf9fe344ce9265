"""What is configured right now, read once: for commands that look at the configuration and do not follow it.

Following it while the service runs is `sources` and `watch`; reading is `reading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mcp_proxy.config.dialects import parse_servers
from mcp_proxy.config.model import Finding, Grade, Servers
from mcp_proxy.config.reading import combine, read_document, read_servers
from mcp_proxy.config.sources import Sources
from mcp_proxy.config.state import State
from mcp_proxy.settings import Settings

__all__ = ["combine", "load_servers", "parse_servers", "read_document", "read_servers"]


def load_servers(settings: Settings, environ: Mapping[str, str]) -> Servers:
    """All servers of the variables, of every ``--config`` file and of ``--config-dir``. ``environ`` fills the variables
    in files. What is wrong with a file in the directory is a finding.

    Raises `StartError` with one line: which source, which line of it, why.
    """
    configured = Sources(settings, environ).start(State())
    findings = tuple(
        Finding("", "" if one.line is None else f"line {one.line}", Grade.UNSUPPORTED, one.reason, one.source)
        for one in configured.problems
    )
    return replace(configured.servers, findings=(*configured.servers.findings, *findings))
