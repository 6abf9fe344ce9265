"""Static settings: flags over environment over ``.env``, checked once at the start, frozen afterwards.

Every setting says here what it is; the command line, ``.env.example`` and ``check`` are made from this table.
Servers are not settings: see `config`.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from mcp_proxy.base.errors import StartError
from mcp_proxy.base.quote import quote

MIB = 1024 * 1024
DOORS = ("rest", "mcp", "sse", "llm", "ws")
"""The ways in over HTTP, as the setting, the log and ``GET /`` name them."""

_NOT_OURS = frozenset({"MCP_PROXY_TOKEN"})
"""Read by ``tools`` and ``call``, not by the service: the token that they send."""
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
_URL = re.compile(r"https?://[^\s/?#@\"\\<>]+(/[^\s?#\"\\<>]*)?", re.ASCII)
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)
_KUBERNETES = re.compile(
    r"MCP_PROXY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _split_commands(value: object) -> object:
    return tuple(part.strip() for part in value.split(";") if part.strip()) if isinstance(value, str) else value


def _switch(value: object) -> object:
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    return value


def _as_browsers_write(origin: str) -> str:
    """RFC 6454 §6.2: lower case, and a port only where it is not the scheme's own. "" for what is no web page's origin."""
    found = _ORIGIN.fullmatch(origin.lower())
    if found is None:
        return ""
    scheme, host, port = (
        found["scheme"],
        found["host"],
        int(found["port"] or {"http": 80, "https": 443}[found["scheme"]]),
    )
    try:
        host = f"[{IPv6Address(host[1:-1]).compressed}]" if host.startswith("[") else host
    except ValueError:
        return ""
    if not 0 < port < 65536:
        return ""
    return f"{scheme}://{host}" if (scheme, port) in (("http", 80), ("https", 443)) else f"{scheme}://{host}:{port}"


def _port(value: object) -> object:
    """``auto`` is 0, which is the system's own word for any free port."""
    return 0 if isinstance(value, str) and value.strip().lower() == "auto" else value


def _patience(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("none", "0", "inf", "infinite") else value


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
CommandLines = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commands)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, BeforeValidator(_port), Field(ge=0, le=65_535)]
Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "OFF"], BeforeValidator(_upper)]


def _setting(default: Any, env: str, help: str, *, flag: str | None = None, group: str = "Serving") -> Any:
    """One row of the table: environment name, meaning, and the flag of ``serve`` where there is one."""
    return Field(default, validation_alias=env, description=help, json_schema_extra={"flag": flag, "group": group})


_ACCEPTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "on or off",
}
"""What the library says less plainly."""


class Settings(BaseSettings):
    """Everything the program can be told, apart from its servers."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", case_sensitive=True, env_ignore_empty=True, populate_by_name=True,
        validate_default=False, hide_input_in_errors=True,
    )  # fmt: skip

    # Tokens
    jwt_secret: SecretStr | None = _setting(
        None,
        "JWT_SECRET",
        "secret that HS256/384/512 tokens are signed with; at least 32, 48 or 64 bytes",
        group="Tokens",
    )
    jwt_algorithm: Algorithm = _setting(
        "HS256", "JWT_ALGORITHM", "the one signature algorithm accepted", group="Tokens"
    )
    jwt_public_key: str | None = _setting(
        None, "MCP_PROXY_JWT_PUBLIC_KEY", "PEM public key, or a path to one, for RS/PS/ES/EdDSA tokens", group="Tokens"
    )
    jwks: str | None = _setting(
        None, "MCP_PROXY_JWKS", "path or https URL of a JWKS with the public keys, chosen by `kid`", group="Tokens"
    )
    jwt_issuer: str | None = _setting(None, "MCP_PROXY_JWT_ISSUER", "required `iss`, checked when set", group="Tokens")
    jwt_audience: str | None = _setting(
        None, "MCP_PROXY_JWT_AUDIENCE", "required `aud`, checked when set", group="Tokens"
    )
    jwt_max_ttl: Seconds | None = _setting(
        None, "MCP_PROXY_JWT_MAX_TTL", "longest accepted life of a token in seconds (`exp` minus `iat`)", group="Tokens"
    )
    authorization_servers: Words = _setting(
        (), "MCP_PROXY_AUTHORIZATION_SERVERS",
        "https URLs of the issuers that MCP clients can get tokens from; else the JWT issuer, if it is one",
        group="Tokens",
    )  # fmt: skip
    api_tokens: SecretStr | None = _setting(
        None, "MCP_PROXY_API_TOKENS", "static tokens: name:secret:scope+scope,…; secrets of 32 characters or more",
        group="Tokens",
    )  # fmt: skip
    no_auth: Switch = _setting(
        False, "MCP_PROXY_NO_AUTH", "no tokens at all; loopback binds only", flag="--no-auth", group="Tokens"
    )

    # Servers
    mcp_url: str | None = _setting(None, "MCP_URL", "one upstream server's URL", group="Servers")
    mcp_urls: Words = _setting(
        (), "MCP_URLS", "several upstream URLs, comma separated; replaces MCP_URL", group="Servers"
    )
    config: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)] = _setting(
        (),
        "MCP_PROXY_CONFIG",
        "file with servers, in any client's dialect (repeatable)",
        flag="--config",
        group="Servers",
    )
    config_dir: Path | None = _setting(
        None,
        "MCP_PROXY_CONFIG_DIR",
        "directory with servers, one `{provider}/mcp_settings.json` for each provider",
        flag="--config-dir",
        group="Servers",
    )
    state_dir: Path = _setting(
        Path(".mcp-proxy"),
        "MCP_PROXY_STATE_DIR",
        "where state is kept (revoked tokens, servers that the API added)",
        flag="--state-dir",
        group="Servers",
    )
    naming: Literal["auto", "always", "on-conflict", "never"] = _setting(
        "auto", "MCP_PROXY_NAMING", "when tool names carry their server: auto is bare with exactly one server",
        flag="--naming", group="Servers",
    )  # fmt: skip
    separator: Literal[".", "__"] = _setting(
        ".", "MCP_PROXY_SEPARATOR", "between server and tool in names; `__` for strict clients", flag="--separator",
        group="Servers",
    )  # fmt: skip
    meta_tools: Literal["off", "on", "only"] = _setting(
        "off", "MCP_PROXY_META_TOOLS", "tools for finding tools (mcp.router.*) for MCP clients: only lists no others",
        flag="--meta-tools", group="Servers",
    )  # fmt: skip
    allow_instance_management: Switch = _setting(
        False, "MCP_PROXY_ALLOW_INSTANCE_MANAGEMENT",
        "let MCP clients whose token has servers:write add, remove and switch servers (mcp.router.add, …)",
        flag="--allow-instance-management", group="Servers",
    )  # fmt: skip
    allow_network: Words = _setting(
        (), "MCP_PROXY_ALLOW_NETWORK",
        "CIDR that servers added over the API may be in although it is not public (repeatable)",
        flag="--allow-network", group="Servers",
    )  # fmt: skip
    api_commands: CommandLines = _setting(
        (), "MCP_PROXY_API_COMMANDS",
        "command lines that may be added over the API, separated by `;`; {name} stands for one argument",
        group="Servers",
    )  # fmt: skip

    pin_tools: Switch = _setting(
        False, "MCP_PROXY_PIN_TOOLS", "hold back tools whose definition changes, until that is approved",
        flag="--pin-tools", group="Servers",
    )  # fmt: skip

    # Serving
    host: str = _setting("127.0.0.1", "HOST", "address to listen on", flag="--host")
    port: Port = _setting(5000, "PORT", "port to listen on; auto, or 0: any that is free", flag="--port")
    auto_port: Switch = _setting(
        False, "MCP_PROXY_AUTO_PORT", "take the next free port, of 100, where one is in use", flag="--auto-port"
    )
    admin_port: Port | None = _setting(
        None, "MCP_PROXY_ADMIN_PORT", "port, of the same host, that alone serves management", flag="--admin-port"
    )
    server: Literal["hypercorn", "uvicorn"] = _setting(
        "hypercorn", "MCP_PROXY_SERVER",
        "what serves HTTP: hypercorn (HTTP/1.1 by httptools, HTTP/2 by Hypercorn), or uvicorn (HTTP/1.1 alone)", flag="--server",
    )  # fmt: skip
    workers: Annotated[int, Field(ge=1)] = _setting(
        1, "MCP_PROXY_WORKERS", "processes that speak HTTP; with 1 it is the service's own, without others",
        flag="--workers",
    )  # fmt: skip
    doors: Words = _setting(
        DOORS, "MCP_PROXY_DOORS", "ways in over HTTP that are open, comma separated", flag="--doors"
    )
    allow_host: Words = _setting(
        (), "MCP_PROXY_ALLOW_HOST", "accepted Host names beyond loopback (repeatable)", flag="--allow-host"
    )
    cors_origin: Words = _setting(
        (), "MCP_PROXY_CORS_ORIGIN", "origins of web pages that may call besides our own (repeatable)",
        flag="--cors-origin",
    )  # fmt: skip
    public_url: str | None = _setting(
        None, "MCP_PROXY_PUBLIC_URL", "base URL that clients use, where a TLS terminator or a proxy stands in front"
    )
    certfile: Path | None = _setting(None, "MCP_PROXY_CERTFILE", "PEM certificate chain: serve TLS", flag="--certfile")
    keyfile: Path | None = _setting(None, "MCP_PROXY_KEYFILE", "PEM private key of the certificate", flag="--keyfile")
    drain_delay: Annotated[float, Field(ge=0, le=600)] = _setting(
        0, "MCP_PROXY_DRAIN_DELAY", "seconds to go on serving, not ready, before a stop begins", flag="--drain-delay"
    )
    drain_timeout: Seconds = _setting(
        30, "MCP_PROXY_DRAIN_TIMEOUT", "seconds that calls in flight get to finish at a stop", flag="--drain-timeout"
    )

    # Completions
    llm: Switch = _setting(
        False, "MCP_PROXY_LLM", "serve OpenAI's and Anthropic's APIs under /v1, answered by MCP clients that call hook",
        flag="--llm", group="Completions",
    )  # fmt: skip
    llm_demo: Switch = _setting(
        False, "MCP_PROXY_LLM_DEMO", "the same, with a scripted model to try it with", flag="--llm-demo",
        group="Completions",
    )  # fmt: skip
    llm_ambient: Switch = _setting(
        False, "MCP_PROXY_LLM_AMBIENT", "ask MCP clients that offer sampling even when they do not call hook",
        flag="--llm-ambient", group="Completions",
    )  # fmt: skip
    llm_max_tokens: Annotated[int, Field(ge=1)] = _setting(
        327_680, "MCPTB_MAX_TOKENS", "tokens asked for when a request names none, and the most that any gets",
        group="Completions",
    )  # fmt: skip
    llm_timeout: Annotated[Seconds | None, BeforeValidator(_patience)] = _setting(
        300, "MCPTB_HTTP_TIMEOUT", "seconds that a model may take to answer, or be silent; none or 0: any time",
        group="Completions",
    )  # fmt: skip
    llm_intelligence: Share = _setting(
        0.5, "MCPTB_PREF_INTELLIGENCE", "how much a client is to prefer a clever model, 0 to 1", group="Completions"
    )
    llm_speed: Share = _setting(
        0.5, "MCPTB_PREF_SPEED", "how much a client is to prefer a fast model, 0 to 1", group="Completions"
    )
    llm_cost: Share = _setting(
        0.5, "MCPTB_PREF_COST", "how much a client is to prefer a cheap model, 0 to 1", group="Completions"
    )
    llm_max_body: Annotated[int, Field(ge=1024)] = _setting(
        16 * MIB, "MCP_PROXY_LLM_MAX_BODY", "largest request body under /v1 in bytes", group="Completions"
    )

    # Limits
    max_body: Annotated[int, Field(ge=1024)] = _setting(
        4 * MIB, "MCP_PROXY_MAX_BODY", "largest request body in bytes", group="Limits"
    )
    max_result: Annotated[int, Field(ge=1024)] = _setting(
        32 * MIB, "MCP_PROXY_MAX_RESULT", "largest result of an upstream in bytes", group="Limits"
    )
    call_timeout: Annotated[float, Field(gt=0, le=600)] = _setting(
        60, "MCP_PROXY_CALL_TIMEOUT", "seconds a call may take (at most 600)", group="Limits"
    )
    connect_timeout: Seconds = _setting(5, "MCP_PROXY_CONNECT_TIMEOUT", "seconds to reach an upstream", group="Limits")
    rate: Annotated[int, Field(ge=1)] | None = _setting(
        None, "MCP_PROXY_RATE", "requests a minute of each caller, over all doors", group="Limits"
    )
    rate_address: Annotated[int, Field(ge=1)] | None = _setting(
        None, "MCP_PROXY_RATE_ADDRESS", "requests a minute of each address without an accepted token", group="Limits"
    )
    max_inflight: Annotated[int, Field(ge=1)] = _setting(
        4096, "MCP_PROXY_MAX_INFLIGHT", "calls in flight or waiting, in all", group="Limits"
    )
    max_inflight_per_upstream: Annotated[int, Field(ge=1)] = _setting(
        1024, "MCP_PROXY_MAX_INFLIGHT_PER_UPSTREAM", "calls in flight or waiting, per upstream", group="Limits"
    )
    health_interval: Seconds = _setting(
        15, "MCP_PROXY_HEALTH_INTERVAL", "seconds between checks of an idle upstream", group="Limits"
    )

    # MCP clients
    max_sessions: Annotated[int, Field(ge=1)] = _setting(
        10_000, "MCP_PROXY_MAX_SESSIONS", "sessions of MCP clients of the legacy era", group="Limits"
    )
    session_idle: Seconds = _setting(
        600, "MCP_PROXY_SESSION_IDLE", "seconds after which a session that nobody uses ends", group="Limits"
    )
    max_streams: Annotated[int, Field(ge=1)] = _setting(
        4096, "MCP_PROXY_MAX_STREAMS", "event streams of MCP clients that stay open", group="Limits"
    )
    max_parked: Annotated[int, Field(ge=1)] = _setting(
        1000, "MCP_PROXY_MAX_PARKED", "calls that wait for a client's input between two requests", group="Limits"
    )
    park_timeout: Seconds = _setting(
        300, "MCP_PROXY_PARK_TIMEOUT", "seconds such a call waits for the client to come back", group="Limits"
    )

    # Logs
    log_level: Level = _setting(
        "INFO", "LOG_LEVEL", "DEBUG, INFO, WARNING, ERROR, CRITICAL or OFF", flag="--log-level", group="Logs"
    )
    debug: bool = _setting(False, "DEBUG", "console log and tracebacks in the log", group="Logs")
    log_bodies: Switch = _setting(
        False, "MCP_PROXY_LOG_BODIES", "add redacted request and response objects to the log line", group="Logs"
    )
    log_dir: Path | None = _setting(
        None, "MCP_PROXY_LOG_DIR", "also write log files here", flag="--log-dir", group="Logs"
    )

    @field_validator("debug", mode="before")
    @classmethod
    def _lenient(cls, value: object) -> object:
        """An unreadable DEBUG is only warned about (see `load_settings`): many images set it to odd words."""
        word = _switch(value)
        return word if isinstance(word, bool) else False

    @field_validator("allow_network")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(ip_network(text)) for text in value)
        except ValueError:
            raise ValueError("networks such as 10.0.0.0/8 or fd00::/8, comma separated") from None

    @field_validator("api_commands")
    @classmethod
    def _command_lines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """That quotations are closed; what the words may be is decided where they are used."""
        try:
            return tuple(text for text in value if shlex.split(text))
        except ValueError:
            raise ValueError("command lines in a shell's quoting, separated by ;") from None

    @field_validator("workers")
    @classmethod
    def _worth_their_memory(cls, value: int) -> int:
        cores = os.cpu_count() or 1
        if value > 4 * cores:
            raise ValueError(f"1 to {4 * cores}, since this machine has {cores} cores")
        return value

    @field_validator("doors")
    @classmethod
    def _known_doors(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not set(value) <= set(DOORS):
            raise ValueError(f"one or more of {', '.join(DOORS)}, comma separated")
        return tuple(door for door in DOORS if door in value)

    @field_validator("authorization_servers")
    @classmethod
    def _issuers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Issuer identifiers are compared as they are (RFC 8414 §2), so that nothing is made uniform here."""
        if not all(url.startswith("https://") and _URL.fullmatch(url) for url in value):
            raise ValueError("https URLs without query or fragment, comma separated")
        return value

    @field_validator("cors_origin")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """As browsers write them, so that an Origin header has only to be looked up."""
        if "*" in value:
            raise ValueError("origins one by one; with * any page that somebody visits could call this service")
        origins = tuple(_as_browsers_write(origin) for origin in value)
        if not all(origins):
            raise ValueError("origins one by one, such as https://app.example or http://localhost:5173")
        return origins

    @field_validator("public_url")
    @classmethod
    def _base(cls, value: str | None) -> str | None:
        if value is not None and not _URL.fullmatch(value):
            raise ValueError("an http or https URL without query or fragment")
        return value and value.rstrip("/")

    @model_validator(mode="after")
    def _tls_pair(self) -> Settings:
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("TLS needs both --certfile and --keyfile")
        return self

    @model_validator(mode="after")
    def _two_ports(self) -> Settings:
        if self.admin_port and self.admin_port == self.port:
            raise ValueError("--admin-port and --port are the same; management needs a port of its own")
        if self.admin_port is not None and not {"rest", "ws"} & set(self.doors):
            raise ValueError("--admin-port serves management, which is behind the doors rest and ws, and both are shut")
        if self.admin_port is not None and self.allow_instance_management:
            raise ValueError(
                "--admin-port keeps management off the main port, --allow-instance-management offers it there"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values arrive merged, by `load_settings`; nothing is read behind its back."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One setting, for people: what ``--help``, ``.env.example`` and ``check`` print."""

    field: str
    env: str
    flag: str | None
    group: str
    help: str
    default: Any
    secret: bool


def setting_table() -> tuple[SettingInfo, ...]:
    """All settings, in order."""
    rows = []
    for name, info in Settings.model_fields.items():
        extra = info.json_schema_extra
        assert isinstance(extra, dict)
        assert isinstance(info.validation_alias, str)
        flag, group = extra["flag"], extra["group"]
        rows.append(
            SettingInfo(
                field=name,
                env=info.validation_alias,
                flag=flag if isinstance(flag, str) else None,
                group=str(group),
                help=info.description or "",
                default=info.default,
                secret="SecretStr" in str(info.annotation),
            )
        )
    return tuple(rows)


def shown_settings(settings: Settings) -> dict[str, Any]:
    """Every setting by its environment name, as JSON values; of secrets only whether they are set."""
    shown: dict[str, Any] = {}
    for row in setting_table():
        value = getattr(settings, row.field)
        if row.secret:
            value = value is not None
        elif isinstance(value, tuple):
            value = [str(one) for one in value]
        elif isinstance(value, Path):
            value = str(value)
        shown[row.env] = value
    return shown


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and what is to be said about where they came from.

    ``environ`` is the environment with ``.env`` beneath it: what ``${VAR}`` in configuration files refers to.
    """

    settings: Settings
    warnings: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)


def load_settings(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    env_file: Path | None = Path(".env"),
) -> Loaded:
    """Merge flags (by field name; None means not given), environment and ``.env``.

    Raises `StartError` with one line a malformed value: the variable, what was given (secrets never), what is accepted.
    """
    process = dict(os.environ if environ is None else environ)
    merged = {**_read_env_file(env_file), **process}
    table = setting_table()
    values: dict[str, Any] = {row.field: merged[row.env] for row in table if merged.get(row.env, "").strip()}
    given_flags = {name: value for name, value in (flags or {}).items() if value is not None and value != ()}
    values |= given_flags
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise StartError(_explain(error, table, values, given_flags)) from None
    return Loaded(settings, tuple(_warnings(settings, merged, table)), merged)


def _read_env_file(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        return {name: value for name, value in dotenv_values(path).items() if value is not None}
    except UnicodeDecodeError:
        raise StartError(f"{path} is not UTF-8") from None
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}") from None


def _explain(
    error: ValidationError, table: Iterable[SettingInfo], values: Mapping[str, Any], flags: Mapping[str, Any]
) -> str:
    rows = {row.field: row for row in table} | {row.env: row for row in table}
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        if not problem["loc"]:
            lines.append(problem["msg"].removeprefix("Value error, "))
            continue
        row = rows[str(problem["loc"][0])]
        name = row.flag if row.field in flags and row.flag else row.env
        given = "" if row.secret else f" is {quote(_as_given(values.get(row.field)))}"
        wanted = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        wanted = _ACCEPTED.get(problem["type"], wanted)
        lines.append(f"{name}{given}; accepted: {wanted} ({row.help})")
    return "; ".join(dict.fromkeys(lines))


def _as_given(value: object) -> str:
    """Lists come from flags that were given several times; in a variable they stand with commas."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _warnings(settings: Settings, merged: Mapping[str, str], table: Iterable[SettingInfo]) -> Iterable[str]:
    if settings.mcp_urls and settings.mcp_url:
        yield "MCP_URL is ignored because MCP_URLS is set"
    if (debug := merged.get("DEBUG", "")) and not isinstance(_switch(debug), bool):
        yield "DEBUG is neither on nor off and counts as off"
    known = {row.env for row in table} | _NOT_OURS
    for name in sorted(merged):
        if not name.startswith("MCP_PROXY_") or name in known or _from_kubernetes(name, merged):
            continue
        bare = name.removeprefix("MCP_PROXY_")
        near = [bare] if bare in known else difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        yield f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "")


def _from_kubernetes(name: str, merged: Mapping[str, str]) -> bool:
    """Variables that Kubernetes injects for a service called mcp-proxy, or mcp-proxy and something."""
    return _KUBERNETES.fullmatch(name) is not None or (name.endswith("_PORT") and "://" in merged[name])
