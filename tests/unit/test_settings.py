from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import ValidationError

from mcp_proxy.base.errors import StartError
from mcp_proxy.cli.check import env_file
from mcp_proxy.cli.options import default_text, setting_options
from mcp_proxy.settings import Loaded, SettingInfo, Settings, load_settings, setting_table

ROOT = Path(__file__).parents[2]
SECRET = "s" * 40


def load(
    environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None, file: Path | None = None
) -> Loaded:
    return load_settings(flags, environ or {}, file)


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(StartError) as raised:
        load(environ)
    return str(raised.value)


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load().settings
    assert (settings.host, settings.port) == ("127.0.0.1", 5000)
    assert settings.jwt_algorithm == "HS256"
    assert settings.max_body == 4 * 1024 * 1024
    assert settings.max_result == 32 * 1024 * 1024
    assert (settings.call_timeout, settings.connect_timeout, settings.drain_timeout) == (60, 5, 30)
    assert (settings.max_inflight, settings.max_inflight_per_upstream) == (4096, 1024)
    assert (settings.naming, settings.separator) == ("auto", ".")
    assert (settings.meta_tools, settings.allow_instance_management) == ("off", False)
    assert (settings.max_sessions, settings.session_idle, settings.max_streams) == (10_000, 600, 4096)
    assert (settings.max_parked, settings.park_timeout) == (1000, 300)
    assert str(settings.state_dir) == ".mcp-proxy"
    assert (settings.no_auth, settings.debug, settings.log_bodies) == (False, False, False)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("HOST=file\nPORT=1\nLOG_LEVEL=ERROR\n")
    settings = load({"HOST": "env", "PORT": "2"}, {"host": "flag"}, file).settings
    assert (settings.host, settings.port, settings.log_level) == ("flag", 2, "ERROR")


@pytest.mark.parametrize("absent", [None, ()])
def test_a_flag_that_was_not_given_hides_nothing(absent: object) -> None:
    assert load({"HOST": "env"}, {"host": absent}).settings.host == "env"


def test_the_environment_is_kept_with_the_file_beneath_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("TOKEN=file\nHOME=file\n")
    environ = load({"HOME": "/root"}, None, file).environ
    assert (environ["TOKEN"], environ["HOME"]) == ("file", "/root")


def test_a_file_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert load(None, None, tmp_path / ".env").settings.port == 5000


def test_a_file_that_cannot_be_read_stops_the_start_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"HOST=\xe4\n")
    with pytest.raises(StartError, match=r"\.env is not UTF-8"):
        load(None, None, file)


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_counts_as_not_set(empty: str) -> None:
    assert load({"PORT": empty, "MCP_PROXY_MAX_BODY": empty}).settings.port == 5000


MALFORMED = {
    "JWT_ALGORITHM": "none", "MCP_PROXY_JWT_MAX_TTL": "soon", "MCP_PROXY_NO_AUTH": "maybe", "MCP_PROXY_NAMING": "Auto",
    "MCP_PROXY_PIN_TOOLS": "maybe", "MCP_PROXY_CORS_ORIGIN": "*", "MCP_PROXY_RATE": "0", "MCP_PROXY_RATE_ADDRESS": "-1", "MCP_PROXY_META_TOOLS": "compact", "MCP_PROXY_ALLOW_INSTANCE_MANAGEMENT": "maybe",
    "MCP_PROXY_SERVER": "gunicorn", "MCP_PROXY_WORKERS": "0", "MCP_PROXY_AUTO_PORT": "maybe", "MCP_PROXY_ADMIN_PORT": "65536", "MCP_PROXY_DOORS": "rest,web",
    "MCP_PROXY_SEPARATOR": "/", "PORT": "http", "MCP_PROXY_DRAIN_DELAY": "-1", "MCP_PROXY_DRAIN_TIMEOUT": "0",
    "MCP_PROXY_MAX_BODY": "4MiB", "MCP_PROXY_MAX_RESULT": "1", "MCP_PROXY_CALL_TIMEOUT": "601",
    "MCP_PROXY_CONNECT_TIMEOUT": "nan", "MCP_PROXY_MAX_INFLIGHT": "0", "MCP_PROXY_MAX_INFLIGHT_PER_UPSTREAM": "1.5",
    "MCP_PROXY_HEALTH_INTERVAL": "inf", "MCP_PROXY_MAX_SESSIONS": "0", "MCP_PROXY_SESSION_IDLE": "0",
    "MCP_PROXY_MAX_STREAMS": "many", "MCP_PROXY_MAX_PARKED": "-5", "MCP_PROXY_PARK_TIMEOUT": "86401",
    "MCP_PROXY_LLM": "maybe", "MCP_PROXY_LLM_DEMO": "demo", "MCP_PROXY_LLM_AMBIENT": "ask", "MCPTB_MAX_TOKENS": "0",
    "MCPTB_HTTP_TIMEOUT": "-1", "MCPTB_PREF_INTELLIGENCE": "1.1", "MCPTB_PREF_SPEED": "fast", "MCPTB_PREF_COST": "-0.1",
    "MCP_PROXY_LLM_MAX_BODY": "16MiB",
    "LOG_LEVEL": "LOUD", "MCP_PROXY_LOG_BODIES": "2",
    "MCP_PROXY_ALLOW_NETWORK": "10.0.0.1/8", "MCP_PROXY_API_COMMANDS": "uvx 'x",
    "MCP_PROXY_AUTHORIZATION_SERVERS": "http://login.example", "MCP_PROXY_PUBLIC_URL": "tools.example",
}  # fmt: skip
FREE_TEXT = {
    "JWT_SECRET", "MCP_PROXY_JWT_PUBLIC_KEY", "MCP_PROXY_JWKS", "MCP_PROXY_JWT_ISSUER", "MCP_PROXY_JWT_AUDIENCE",
    "MCP_PROXY_API_TOKENS", "MCP_URL", "MCP_URLS", "MCP_PROXY_CONFIG", "MCP_PROXY_CONFIG_DIR",
    "MCP_PROXY_STATE_DIR", "HOST",
    "MCP_PROXY_ALLOW_HOST", "MCP_PROXY_CERTFILE", "MCP_PROXY_KEYFILE", "MCP_PROXY_LOG_DIR", "DEBUG",
}  # fmt: skip


def test_every_setting_that_can_be_malformed_is_tried() -> None:
    assert set(MALFORMED) | FREE_TEXT == {row.env for row in setting_table()}
    assert not set(MALFORMED) & FREE_TEXT


@pytest.mark.parametrize(("name", "value"), MALFORMED.items())
def test_a_malformed_value_stops_the_start_naming_variable_value_and_what_is_accepted(name: str, value: str) -> None:
    text = refusal({name: value})
    assert text.startswith(f"{name} is {value!r}; accepted: ")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("https://a.example", True), ("http://10.0.0.1:8080/proxy/", True), ("https://[::1]:5000", True),
        ("https://a.example?x", False), ("https://a.example/#x", False), ("https://user@a.example", False),
        ('https://a.example/"', False), ("https://", False), ("ftp://a.example", False), ("https://a.example/ b", False),
    ],
)  # fmt: skip
def test_a_public_url_is_what_paths_can_be_put_behind(url: str, fits: bool) -> None:
    if fits:
        assert load({"MCP_PROXY_PUBLIC_URL": url}).settings.public_url == url.rstrip("/")
    else:
        assert refusal({"MCP_PROXY_PUBLIC_URL": url}).startswith("MCP_PROXY_PUBLIC_URL is")


def test_authorization_servers_are_kept_as_written() -> None:
    given = load({"MCP_PROXY_AUTHORIZATION_SERVERS": "https://a.example/, https://b.example/tenant"})
    assert given.settings.authorization_servers == ("https://a.example/", "https://b.example/tenant")
    assert refusal({"MCP_PROXY_AUTHORIZATION_SERVERS": "https://a.example,ours"}).startswith("MCP_PROXY_AUTH")


@pytest.mark.parametrize("name", ["PORT", "MCP_PROXY_ADMIN_PORT"])
@pytest.mark.parametrize("word", ["auto", " AUTO "])
def test_any_free_port_has_a_word(name: str, word: str) -> None:
    settings = load({name: word}).settings
    assert (settings.port if name == "PORT" else settings.admin_port) == 0


def test_management_needs_a_port_of_its_own_and_a_door_that_is_open() -> None:
    assert "--admin-port and --port are the same" in refusal({"PORT": "7000", "MCP_PROXY_ADMIN_PORT": "7000"})
    assert "rest and ws" in refusal({"MCP_PROXY_DOORS": "mcp,sse", "MCP_PROXY_ADMIN_PORT": "7000"})
    assert load({"PORT": "auto", "MCP_PROXY_ADMIN_PORT": "auto"}).settings.admin_port == 0


def test_management_is_not_moved_away_and_offered_to_models_at_the_same_time() -> None:
    both = {"MCP_PROXY_ADMIN_PORT": "7000", "MCP_PROXY_ALLOW_INSTANCE_MANAGEMENT": "on"}
    assert "--allow-instance-management offers it" in refusal(both)


def test_doors_are_all_that_exist_unless_named() -> None:
    assert load().settings.doors == ("rest", "mcp", "sse", "llm", "ws")
    assert load({"MCP_PROXY_DOORS": " mcp , rest,mcp"}).settings.doors == ("rest", "mcp")


@pytest.mark.parametrize("given", ["rest,web", "v1", "REST", ",", "rest mcp"])
def test_an_unknown_door_stops_the_start_naming_those_there_are(given: str) -> None:
    assert "one or more of rest, mcp, sse, llm, ws" in refusal({"MCP_PROXY_DOORS": given})


@pytest.mark.parametrize(("port", "fits"), [("0", True), ("65535", True), ("65536", False), ("-1", False)])
def test_a_port_is_a_port(port: str, fits: bool) -> None:
    if fits:
        assert load({"PORT": port}).settings.port == int(port)
    else:
        assert refusal({"PORT": port}).startswith("PORT is")


@pytest.mark.parametrize("row", [row for row in setting_table() if row.flag], ids=lambda row: row.flag)
def test_a_flag_takes_no_value_where_its_setting_is_a_switch(row: SettingInfo) -> None:
    command = setting_options()(click.command()(lambda **_: None))
    option = next(one for one in command.params if one.name == row.field)
    assert isinstance(option, click.Option)
    assert option.is_flag is isinstance(row.default, bool)


def test_a_malformed_flag_is_named_as_a_flag() -> None:
    with pytest.raises(StartError, match=r"^--port is 'x'"):
        load(flags={"port": "x"})


@pytest.mark.parametrize(
    ("flag", "field", "given", "shown"),
    [
        ("--allow-network", "allow_network", ("10.0.0.1/8",), "10.0.0.1/8"),
        ("--allow-network", "allow_network", ("10.0.0.0/8", "net"), "10.0.0.0/8,net"),
        ("--cors-origin", "cors_origin", ("https://a.example", "*"), "https://a.example,*"),
        ("--doors", "doors", "rest,web", "rest,web"),
    ],
)
def test_a_malformed_list_is_shown_as_it_was_given(flag: str, field: str, given: object, shown: str) -> None:
    with pytest.raises(StartError) as raised:
        load(flags={field: given})
    assert str(raised.value).startswith(f"{flag} is '{shown}'; accepted: ")
    name = next(row.env for row in setting_table() if row.field == field)
    assert refusal({name: shown}).startswith(f"{name} is '{shown}'; accepted: ")


@pytest.mark.parametrize(
    ("given", "shown"),
    [(r"C:\new\é", r"'C:\new\é'"), ("it's", '"it\'s"'), ("a\nb", r"'a\nb'"), ("None", "'None'"), ("()", "'()'")],
)
def test_a_malformed_value_is_shown_as_it_was_written_on_one_line(given: str, shown: str) -> None:
    assert refusal({"PORT": given}).startswith(f"PORT is {shown}; accepted: ")


def test_several_malformed_values_are_all_named() -> None:
    text = refusal({"PORT": "x", "LOG_LEVEL": "y"})
    assert "PORT is 'x'" in text
    assert "LOG_LEVEL is 'y'" in text


def test_a_long_value_is_cut_and_stays_on_one_line() -> None:
    text = refusal({"PORT": "x\n" * 500})
    assert "\n" not in text
    assert len(text) < 300


@pytest.mark.parametrize("word", ["1", "true", "YES", " on "])
def test_words_that_switch_on(word: str) -> None:
    settings = load({"MCP_PROXY_NO_AUTH": word, "DEBUG": word, "MCP_PROXY_LOG_BODIES": word}).settings
    assert (settings.no_auth, settings.debug, settings.log_bodies) == (True, True, True)


@pytest.mark.parametrize("word", ["0", "False", "no", "OFF"])
def test_words_that_switch_off(word: str) -> None:
    loaded = load({"MCP_PROXY_NO_AUTH": word, "DEBUG": word})
    assert (loaded.settings.no_auth, loaded.settings.debug, loaded.warnings) == (False, False, ())


def test_an_unreadable_debug_is_only_warned_about() -> None:
    loaded = load({"DEBUG": "*"})
    assert loaded.settings.debug is False
    assert loaded.warnings == ("DEBUG is neither on nor off and counts as off",)


def test_lists_are_comma_separated() -> None:
    settings = load({"MCP_URLS": " http://a , http://b,, ", "MCP_PROXY_CONFIG": "a.json,b.json"}).settings
    assert settings.mcp_urls == ("http://a", "http://b")
    assert settings.config == (Path("a.json"), Path("b.json"))


def test_networks_are_comma_separated_and_made_uniform() -> None:
    assert load({"MCP_PROXY_ALLOW_NETWORK": "10.0.0.7, FD00::/8"}).settings.allow_network == ("10.0.0.7/32", "fd00::/8")
    flags = {"allow_network": ("10.0.0.0/8", "fd00::/8")}
    assert load(flags=flags).settings.allow_network == flags["allow_network"]


def test_commands_are_separated_by_semicolons_and_keep_their_commas() -> None:
    given = load({"MCP_PROXY_API_COMMANDS": "uvx time --zones a,b ; npx -y @s/x@1.2.3 {dir};; "}).settings
    assert given.api_commands == ("uvx time --zones a,b", "npx -y @s/x@1.2.3 {dir}")


def test_mcp_urls_replaces_mcp_url_and_says_so() -> None:
    assert load({"MCP_URL": "http://a", "MCP_URLS": "http://b"}).warnings == (
        "MCP_URL is ignored because MCP_URLS is set",
    )
    assert load({"MCP_URL": "http://a"}).warnings == ()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("MCP_PROXY_MAX_BODDY", "MCP_PROXY_MAX_BODY"),
        ("MCP_PROXY_NOAUTH", "MCP_PROXY_NO_AUTH"),
        ("MCP_PROXY_PORT", "PORT"),
        ("MCP_PROXY_HOST", "HOST"),
        ("MCP_PROXY_JWT_SECRET", "JWT_SECRET"),
    ],
)
def test_an_unknown_name_is_warned_about_with_the_nearest_known_one(name: str, near: str) -> None:
    assert load({name: "5000"}).warnings == (f"{name} is not a setting; did you mean {near}?",)


def test_an_unknown_name_far_from_all_others_is_only_named() -> None:
    assert load({"MCP_PROXY_ZZZZZZZZZZZZZZZZZZZZZ": "1"}).warnings == (
        "MCP_PROXY_ZZZZZZZZZZZZZZZZZZZZZ is not a setting",
    )


def test_names_of_other_programs_are_not_ours() -> None:
    assert load({"MCPX": "1", "MCP": "2", "mcp_proxy_x": "3"}).warnings == ()


@pytest.mark.parametrize("service", ["MCP_PROXY", "MCP_PROXY_API", "MCP_PROXY_UV"])
def test_variables_that_kubernetes_injects_are_ignored(service: str) -> None:
    environ = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "5000",
        f"{service}_SERVICE_PORT_HTTP": "5000",
        f"{service}_PORT": "tcp://10.0.0.1:5000",
        f"{service}_PORT_5000_TCP": "tcp://10.0.0.1:5000",
        f"{service}_PORT_5000_TCP_PROTO": "tcp",
        f"{service}_PORT_5000_TCP_PORT": "5000",
        f"{service}_PORT_5000_TCP_ADDR": "10.0.0.1",
    }
    assert load(environ).warnings == ()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load().settings.port = 1


def test_secrets_are_in_no_text() -> None:
    loaded = load({"JWT_SECRET": SECRET, "MCP_PROXY_API_TOKENS": f"ci:{SECRET}:tools:call"})
    assert SECRET not in repr(loaded) + repr(loaded.settings) + str(loaded.settings)
    assert SECRET not in refusal({"JWT_SECRET": SECRET, "PORT": "x"})


def test_the_process_environment_is_not_read_behind_the_callers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "77")
    assert load().settings.port == 5000
    assert load_settings(env_file=None).settings.port == 77
    assert Settings().port == 5000


def test_every_setting_is_described_once() -> None:
    rows = setting_table()
    assert len({row.env for row in rows}) == len({row.field for row in rows}) == len(rows)
    assert all(row.help for row in rows)
    assert {row.env for row in rows if row.secret} == {"JWT_SECRET", "MCP_PROXY_API_TOKENS"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "none"),
        ((), "none"),
        (True, "on"),
        (False, "off"),
        (("a", "b"), "a,b"),
        (30.0, "30"),
        (2.5, "2.5"),
        (0, "0"),
    ],
)
def test_a_value_is_shown_as_people_write_it(value: object, shown: str) -> None:
    assert default_text(value) == shown


def test_the_example_file_is_the_one_that_check_prints() -> None:
    assert (ROOT / ".env.example").read_text() == env_file()


def test_the_example_file_as_it_stands_changes_nothing() -> None:
    loaded = load(None, None, ROOT / ".env.example")
    assert loaded.settings == Settings()
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://App.Example", "https://app.example"),
        ("https://app.example:443/", "https://app.example"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:80", "http://[::1]"),
        ("http://[0:0::1]:06274", "http://[::1]:6274"),
        ("https://a_b.xn--bcher-kva.example:80", "https://a_b.xn--bcher-kva.example:80"),
    ],
)
def test_origins_are_taken_as_browsers_write_them(given: str, origin: str) -> None:
    assert load({"MCP_PROXY_CORS_ORIGIN": given}).settings.cors_origin == (origin,)


@pytest.mark.parametrize(
    "given",
    [
        "*",
        "null",
        "app.example",
        "https://",
        "https://app.example/x",
        "ftp://x",
        "https://*.x",
        "http://x:0",
        "http://x:65536",
        "http://x:",
        "http://[:::]",
        "http://a..b",
        "http://u@x",
        "https://bücher.example",
        "https://a.example, *",
    ],
)
def test_an_origin_that_is_none_stops_the_start(given: str) -> None:
    assert "origins one by one" in refusal({"MCP_PROXY_CORS_ORIGIN": given})
