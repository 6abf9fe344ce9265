"""The conformance suite by hand: `python -m tests.conformance --help`.

Prints a table (scenario, result, reason); the exit code is 1 when a scored scenario fails.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import tempfile
from pathlib import Path

from tests.conformance.suite import REVISIONS, Outcome, SuiteError, requirements, run_client, run_server
from tests.conformance.upstreams import KINDS, fixture_over_http, upstream
from tests.conformance.verdict import summary, table
from tests.harness import ProxyProcess

DESCRIPTION = """\
Run the official MCP conformance suite, and print what passed and what failed and why.

  python -m tests.conformance server                             the proxy before every kind of upstream
  python -m tests.conformance server --upstream stdio            ... before one kind
  python -m tests.conformance server --upstream none             the fixture server alone
  python -m tests.conformance server --url http://localhost:5000/mcp --revision 2026-07-28 --scenario caching
  python -m tests.conformance client                             the suite as upstream of the proxy, all but OAuth
  python -m tests.conformance client --scenario tools_call --keep /tmp/results
  python -m tests.conformance client --command 'python -m tests.conformance.drive --alone'    the client without proxy

A URL must serve the fixtures of fixture_server.py under their own names and need no token; its host is best spelled
localhost. scripts/test installs the suite."""


def main() -> None:
    args = arguments()
    directory = args.keep or Path(tempfile.mkdtemp(prefix="conformance-"))
    run = server_role if args.role == "server" else client_role
    try:
        passed = asyncio.run(run(args, directory))
    except SuiteError as error:
        sys.exit(f"error: {error}")
    print(f"Everything that was said, check by check: {directory}")
    sys.exit(0 if passed else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("role", choices=("server", "client"), help="the role of the proxy that is judged")
    parser.add_argument("--revision", choices=REVISIONS, help="only this revision of the protocol")
    parser.add_argument("--scenario", help="only this scenario")
    parser.add_argument("--url", help="server: judge what answers here, and start nothing")
    parser.add_argument("--upstream", choices=(*KINDS, "none"), help="server: only before this kind of upstream")
    parser.add_argument("--command", help="client: the client to judge, instead of the proxy with one in front")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the suite's files go (a new one in /tmp)")
    return parser.parse_args()


def revisions(args: argparse.Namespace, role: str) -> list[str]:
    """Those asked for that have the scenario asked for. Raises `SuiteError` when none has it."""
    found = []
    for revision in [args.revision] if args.revision else REVISIONS:
        listed = requirements(revision, role)
        if args.scenario in (None, *listed.scored, *listed.unscored):
            found.append(revision)
    if not found:
        raise SuiteError(f"no such scenario of a {role}: {args.scenario}")
    return found


async def server_role(args: argparse.Namespace, directory: Path) -> bool:
    """Judge a URL, or the proxy before each upstream."""
    passed = True
    for revision in revisions(args, "server"):
        kinds = [args.url] if args.url else [args.upstream] if args.upstream else KINDS
        for kind in kinds:
            place = directory / ("url" if args.url else kind) / revision
            found = await judge(kind, revision, place, args.scenario)
            passed &= show(f"{kind}, {revision}", found)
    return passed


async def judge(target: str, revision: str, directory: Path, scenario: str | None) -> list[Outcome]:
    """``target``: a URL, a kind of upstream to start behind a proxy, or "none" for the fixture server alone."""
    if target == "none":
        async with fixture_over_http("both") as url:
            return await run_server(url.replace("127.0.0.1", "localhost"), revision, directory, scenario=scenario)
    if target not in KINDS:
        return await run_server(target, revision, directory, scenario=scenario)
    async with upstream(target) as entry, ProxyProcess("--no-auth", servers={"ref": entry}) as proxy:
        await proxy.connected("ref")
        try:
            return await run_server(f"http://localhost:{proxy.port}/mcp", revision, directory, scenario=scenario)
        finally:
            keep(directory / "proxy.log", proxy.stderr())


def keep(file: Path, text: str) -> None:
    """Write it, beside the suite's own files."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


async def client_role(args: argparse.Namespace, directory: Path) -> bool:
    """Judge what the proxy, or another client, sends to the suite's server."""
    command = shlex.split(args.command) if args.command else [sys.executable, "-m", "tests.conformance.drive"]
    passed = True
    for revision in revisions(args, "client"):
        listed = requirements(revision, "client")
        every = [name for name in [*listed.scored, *listed.unscored] if not name.startswith("auth/")]
        place = directory / "client" / revision
        names = [args.scenario] if args.scenario else every
        found = [await run_client(command, revision, name, place) for name in names]
        passed &= show(f"client role, {revision}", found)
    return passed


def show(title: str, found: list[Outcome]) -> bool:
    """Print the table; did all that counts pass?"""
    print(f"\n== {title}\n\n{table(found)}\n\n{summary(found)}")
    return all(outcome.passed for outcome in found if outcome.unscored is None)


if __name__ == "__main__":
    main()
