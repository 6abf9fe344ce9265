"""``mcp-proxy-api token``: makes tokens, and revokes them. The token stands alone on stdout.

Needs neither a running service nor its libraries. Counterpart: `mcp_proxy.core.auth`.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mcp_proxy.base.errors import StartError
from mcp_proxy.base.ids import random_id
from mcp_proxy.base.quote import quote
from mcp_proxy.core.auth.claims import COUNTS
from mcp_proxy.core.auth.mint import mint, option_of, signing_key
from mcp_proxy.core.auth.principal import DEFAULT_SCOPES, Scope
from mcp_proxy.core.auth.revocation import RevocationError
from mcp_proxy.core.auth.revocation import revoke as revoke_token
from mcp_proxy.settings import Settings, load_settings

DEFAULT_TTL = 3600
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_TTL = re.compile(r"([0-9]{1,10})([smhd]?)")

_HELP = f"""Make a token, or revoke one.

Prints the token alone on stdout, signed with JWT_SECRET (or --key-file) from the environment or .env.
Without --scope it has: {" ".join(sorted(DEFAULT_SCOPES))}.

\b
Scopes: {" ".join(Scope)}

\b
Examples:
  mcp-proxy-api token --sub alice
  mcp-proxy-api token --sub ci --scope "tools:read tools:call" --tools 'calc.*' --ttl 15m
  mcp-proxy-api token --sub app --scope llm:call --models 'fast*' --rpm 30 --budget-tokens 200000 --ttl 1d
  mcp-proxy-api token --sub ops --scope admin --jti ops-2 --ttl 7d
  mcp-proxy-api token revoke ops-2
  curl -H "Authorization: Bearer $(mcp-proxy-api token --sub me)" http://127.0.0.1:5000/tools/list
"""


class _Stop(click.ClickException):
    """One line on stderr, exit code 2."""

    exit_code = 2


class _OneLineGroup(click.Group):
    """Wrong usage is one line too, without the reminder of the syntax; ``--help`` has that."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            raise _Stop(error.format_message()) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _Stop(error.format_message()) from None


def parse_ttl(text: str) -> int:
    """Seconds from ``90``, ``90s``, ``15m``, ``1h``, ``7d``. Raises `StartError`."""
    match = _TTL.fullmatch(text.strip())
    if match is None:
        raise StartError(f"--ttl {quote(text, 32)} is not a time; accepted: 90, 90s, 15m, 1h, 7d")
    return int(match[1]) * _UNITS[match[2]]


def _words(values: Sequence[str], separators: str) -> list[str] | None:
    """All words of a repeatable option; None when it was not given, empty when it was given empty."""
    return [word for value in values for word in re.split(separators, value) if word] if values else None


def _counts(given: Mapping[str, Any]) -> dict[str, int]:
    """The claims that limit by a number, of the options that were given."""
    found = {}
    for name, what in COUNTS.items():
        if (text := given[name]) is None:
            continue
        if not re.fullmatch(r"[0-9]{1,12}", text):
            raise StartError(f"{option_of(name)} {quote(text, 32)} is not a number of {what}")
        found[name] = int(text)
    return found


def _listed(name: str, help: str) -> Callable[[Any], Any]:
    return click.option(name, multiple=True, metavar="GLOB,…", help=help)


@click.group("token", cls=_OneLineGroup, invoke_without_command=True, help=_HELP, no_args_is_help=False)
@click.option("--sub", default="user", show_default=True, metavar="NAME", help="Whom the token is for.")
@click.option("--scope", multiple=True, metavar="SCOPES", help="What it may do: words, or repeated.")
@_listed("--servers", "Only these servers or groups (repeatable).")
@_listed("--tools", "Only these tools: NAME or SERVER.NAME (repeatable).")
@_listed("--models", "Only these models (repeatable).")
@click.option("--rate", metavar="N", help="Calls a minute.")
@click.option("--rpm", metavar="N", help="Completions of models a minute.")
@click.option("--tpm", metavar="N", help="Tokens a minute, of questions and answers.")
@click.option("--max-parallel", metavar="N", help="Completions at once.")
@click.option("--budget-tokens", metavar="N", help="Tokens in all, of questions and answers.")
@click.option("--max-tokens", metavar="N", help="Tokens of one answer.")
@click.option("--compact", is_flag=True, help="MCP clients list the meta tools instead of all tools.")
@click.option("--ttl", metavar="TIME", help="How long it is valid: 90, 90s, 15m, 1h, 7d.  [default: 1h]")
@click.option("--jti", metavar="ID", help="Its id, for revoking it.  [default: random]")
@click.option("--key-file", metavar="PEM", help="Private key, when JWT_ALGORITHM is RS*, PS*, ES* or EdDSA.")
@click.option("--kid", metavar="ID", help="Id of that key in the JWKS.")
@click.pass_context
def token(context: click.Context, /, **given: Any) -> None:
    if context.invoked_subcommand is not None:
        return
    try:
        settings = load_settings().settings
        token_id = given["jti"] if given["jti"] is not None else random_id()
        now, ttl = time.time(), _ttl(given["ttl"], settings)
        text = mint(
            signing_key(settings, given["key_file"], given["kid"]),
            subject=given["sub"],
            now=now,
            ttl=ttl,
            scopes=_words(given["scope"], r"[\s,]+"),
            servers=_words(given["servers"], r"[\s,]+"),
            tools=_words(given["tools"], r"[\s,]+"),
            models=_words(given["models"], r"[\s,]+"),
            counts=_counts(given),
            token_id=token_id,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            max_ttl=settings.jwt_max_ttl,
            compact=given["compact"],
        )
    except StartError as error:
        raise _Stop(str(error)) from None
    click.echo(text)
    if sys.stderr.isatty():
        until = datetime.fromtimestamp(int(now) + ttl, UTC).isoformat(sep=" ").removesuffix("+00:00")
        click.echo(f"jti {token_id}, valid until {until} UTC", err=True)


def _ttl(given: str | None, settings: Settings) -> int:
    """The life asked for; by default an hour, or the longest that is accepted when that is less."""
    if given is not None:
        return parse_ttl(given)
    return DEFAULT_TTL if settings.jwt_max_ttl is None else max(1, min(DEFAULT_TTL, int(settings.jwt_max_ttl)))


@token.command()
@click.argument("jti")
@click.option(
    "--state-dir",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="State directory of the service.  [default: MCP_PROXY_STATE_DIR, or .mcp-proxy]",
)
def revoke(jti: str, state_dir: Path | None) -> None:
    """Revoke the token with the id JTI: refused within a second by every service with this state directory."""
    try:
        directory = state_dir or load_settings().settings.state_dir
        added = revoke_token(directory, jti, time.time())
    except (StartError, RevocationError) as error:
        raise _Stop(str(error)) from None
    click.echo(f"{jti} {'is now revoked' if added else 'was revoked before'} (in {directory})", err=True)
