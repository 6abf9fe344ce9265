"""Variables and files as sources of servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.base.errors import StartError
from mcp_proxy.config.loader import load_servers, read_document
from mcp_proxy.config.model import ConfigError, Servers, Transport
from mcp_proxy.config.syntax import parse_json, parse_toml
from mcp_proxy.settings import Settings


def load(environ: dict[str, str] | None = None, **settings: Any) -> Servers:
    return load_servers(Settings(**settings), environ or {})


def failure(**settings: Any) -> str:
    with pytest.raises(StartError) as caught:
        load(**settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_nothing_configured_is_no_servers() -> None:
    assert load() == Servers()


def test_mcp_url_is_one_server_named_by_its_address() -> None:
    (spec,) = load(mcp_url="http://10.0.0.5:8999/sse").specs
    assert (spec.name, spec.transport, spec.source) == ("10-0-0-5-8999-sse", Transport.SSE, "MCP_URL")
    assert (spec.url, spec.replica_set) == ("http://10.0.0.5:8999/sse", None)


def test_mcp_urls_replaces_mcp_url_and_makes_replicas() -> None:
    servers = load(mcp_url="http://a/mcp", mcp_urls="http://b:1/mcp, http://c/sse")
    assert [(s.name, s.transport, s.source, s.replica_set) for s in servers.specs] == [
        ("b-1-mcp", Transport.AUTO, "MCP_URLS", "MCP_URLS"),
        ("c-sse", Transport.SSE, "MCP_URLS", "MCP_URLS"),
    ]


def test_variables_in_mcp_url_are_not_expanded() -> None:
    assert load({"A": "b"}, mcp_url="http://h/${A}").specs[0].url == "http://h/${A}"


@pytest.mark.parametrize("variable", ["mcp_url", "mcp_urls"])
@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("ftp://h/x?key=s3cret", "'ftp://h/x?key="),
        (r"größe\mcp", r"'größe\mcp' must begin with http:// or https://"),
        ("h:80", "'h:80' must begin with http:// or https://"),
        ("http://me:s3cret@h/", "user name or password"),
        ("http://h:99999", "is not a URL"),
        ("http://[s3cret", "is not a URL"),
    ],
)
def test_an_unusable_url_stops_the_start_naming_the_variable(variable: str, url: str, part: str) -> None:
    said = failure(**{variable: url})
    assert said.startswith(f"{variable.upper()}: ")
    assert part in said
    assert "accepted: http://" in said
    assert "s3cret" not in said


def test_an_unusable_url_of_several_is_told_by_its_position() -> None:
    said = failure(mcp_urls="http://a/sse, https://user:s3cret@b")
    assert said.startswith("MCP_URLS: entry 2, ")
    assert "s3cret" not in said


def test_two_urls_that_would_have_one_name_stop_the_start_naming_both() -> None:
    assert "entries 1 and 3 would both be called 'h-mcp'" in failure(mcp_urls="http://h/mcp,http://i,https://h/mcp")


def test_variables_and_files_add_up_in_order(tmp_path: Path) -> None:
    one = write(tmp_path, "one.json", '{"mcpServers": {"a": {"command": "${X}"}, "b": {"command": "${NOPE}"}}}')
    two = write(tmp_path, "two.toml", '[mcp_servers.c]\ncommand = "c"\n')
    servers = load({"X": "x"}, mcp_url="http://h/sse", config=(one, two))
    assert [(s.name, s.source) for s in servers.specs] == [("h-sse", "MCP_URL"), ("a", str(one)), ("c", str(two))]
    assert [(r.name, r.source, r.reason) for r in servers.refused] == [
        ("b", str(one), "command: the variable NOPE is not set")
    ]


def test_variables_in_a_file_are_filled_and_an_unset_one_refuses_its_server_only(tmp_path: Path) -> None:
    text = '{"a": {"command": "x", "env": {"K": "${TOKEN}"}}, "b": {"command": "${NOPE}"}, "c": {"command": "y"}}'
    servers = load({"TOKEN": "s3cret"}, config=(write(tmp_path, "a.json", text),))
    assert [spec.name for spec in servers.specs] == ["a", "c"]
    assert servers.specs[0].env == {"K": "s3cret"}
    assert [refused.name for refused in servers.refused] == ["b"]


def test_a_single_entry_is_called_like_its_file(tmp_path: Path) -> None:
    assert load(config=(write(tmp_path, "weather.json", '{"command": "x"}'),)).specs[0].name == "weather"


@pytest.mark.parametrize(("first", "second"), [("x", "x"), ("x", "${NOPE}"), ("${NOPE}", "x")])
def test_one_name_in_two_files_stops_the_start_naming_both_places(tmp_path: Path, first: str, second: str) -> None:
    one = write(tmp_path, "one.json", json.dumps({"mcpServers": {"a": {"command": first}}}))
    two = write(tmp_path, "two.json", json.dumps({"servers": {"a": {"command": second}}}))
    said = failure(config=(one, two))
    assert str(one) in said
    assert str(two) in said
    assert "'a'" in said


def test_one_name_in_a_variable_and_a_file_stops_the_start_naming_both_places(tmp_path: Path) -> None:
    file = write(tmp_path, "a.json", '{"a-sse": {"command": "x"}}')
    said = failure(config=(file,), mcp_url="http://a/sse")
    assert str(file) in said
    assert "MCP_URL" in said


@pytest.mark.parametrize("turned", [False, True])
def test_a_group_called_like_a_server_of_another_file_refuses_its_member(tmp_path: Path, turned: bool) -> None:
    one = write(tmp_path, "one.json", '{"mcpServers": {"a": {"command": "x", "group": "b"}}}')
    two = write(tmp_path, "two.json", '{"mcpServers": {"b": {"command": "x"}}}')
    servers = load(config=(two, one) if turned else (one, two))
    assert [s.name for s in servers.specs] == ["b"]
    assert [(r.name, r.reason) for r in servers.refused] == [("a", "group is 'b', which is the name of a server")]


@pytest.mark.parametrize("text", ["{}", "[]", '{"mcpServers": {}}', '\ufeff{"mcpServers": {}}', "// nothing\n{}"])
def test_a_file_without_servers_is_fine(tmp_path: Path, text: str) -> None:
    assert load(config=(write(tmp_path, "a.json", text),)) == Servers()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "", ": is empty"),
        ("a.json", '{"mcpServers": {\n "a": {"command": "x"}\n "b": {}}}', ", line 3: is not JSON"),
        ("a.json", '{\n// fine\n"mcpServers": {\n "a": oops}}', ", line 4: is not JSON"),
        ("a.json", '{"a": 1', ", line 1: is not JSON"),
        ("a.json", b'{\n"a": "\xff"}', ", line 2: is not UTF-8"),
        ("a.json", "[" * 100_000, ": is nested too deeply"),
        ("a.json", '{"a": %s}' % ("9" * 5000), ": is not JSON: a number is too long"),
        ("a.json", '{"ui": {"theme": "dark"}}', ": no servers in a known form"),
        ("a.json", '{"name": "my-package", "type": "module"}', ": no servers in a known form"),
        ("a.json", "5", ": no servers in a known form"),
        ("a.json", '{"mcpServers": {\n"x": {},\n"x": {}}}', ", line 3: the key 'x' stands twice"),
        ("a.json", '{mcpServers: {\n"x": {},\nx: {}}}', ", line 3: the key 'x' stands twice"),
        ("a.json", '{"mcpServers": 5}', ": mcpServers must be an object or a list"),
        ("a.toml", '[mcp_servers.a]\ncommand = "x"\ncommand = "y"\n', ", line 3: is not TOML"),
        ("a.toml", "a = \n", ", line 1: is not TOML"),
        ("a.toml", "\na = = 1", ", line 2: is not TOML"),
        ("a.toml", "[a]\n[a]", ", line 2: is not TOML: Cannot declare a twice"),
        ("a.toml", '[a."b c"]\n[a."b c"]', ", line 2: is not TOML: Cannot declare a.'b c' twice"),
        ("a.toml", "a = {b = 1}\na.c = 2", ", line 2: is not TOML: Cannot mutate immutable namespace a"),
        ("a.toml", "a = [\n1,\n", ", line 3: is not TOML"),
        ("a.toml", '{"mcpServers": {}}', ", line 1: is not TOML"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start_with_file_line_and_reason(
    tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    path = write(tmp_path, name, text)
    assert failure(config=(path,)).startswith(f"{path}{said}")


def test_a_file_that_is_missing_or_a_folder_stops_the_start(tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    assert failure(config=(missing,)) == f"{missing}: cannot be read: No such file or directory"
    assert failure(config=(tmp_path,)) == f"{tmp_path}: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.json", '{"mcpServers": {"x": {"command": "y", "args": ["a//b", "c,]"]}}}'),
        ("comments.json", '// c\n{"mcpServers": {/* c */ "x": {"command": "y", "args": ["a//b", "c,]",],},},}'),
        ("five.json5", "{mcpServers: {x: {command: 'y', args: ['a//b', 'c,]']}}}"),
        ("bom.json", b'\xef\xbb\xbf{"x": {"command": "y", "args": ["a//b", "c,]"]}}'),
        ("codex.TOML", '[mcp_servers.x]\ncommand = "y"\nargs = ["a//b", "c,]"]'),
    ],
)
def test_the_syntaxes_of_all_clients_are_read(tmp_path: Path, name: str, text: str | bytes) -> None:
    path = write(tmp_path, name, text)
    (spec,) = load(config=(path,)).specs
    assert (spec.name, spec.args, spec.source) == ("x", ("a//b", "c,]"), str(path))


JSONC = """\ufeff// servers
{
  /* two
     lines */
  "mcpServers": {
    "a": {"url": "https://h/x//y", "description": "no /* comment */, }",}, // trailing
  },
}
"""
JSON5 = "{mcpServers: {'a': {url: 'https://h/x//y', description: \"no /* comment */, }\"}}}"


def test_a_document_is_read_apart_from_its_meaning(tmp_path: Path) -> None:
    assert read_document(write(tmp_path, "a.json", "[1, 2]")) == [1, 2]
    with pytest.raises(ConfigError) as caught:
        read_document(write(tmp_path, "b.json", "[1,\n2"))
    assert caught.value.line == 2


@pytest.mark.parametrize("text", [JSONC, JSON5])
def test_comments_trailing_commas_and_bare_keys_are_read(tmp_path: Path, text: str) -> None:
    assert read_document(write(tmp_path, "a.jsonc", text)) == {
        "mcpServers": {"a": {"url": "https://h/x//y", "description": "no /* comment */, }"}}
    }


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ('{"mcpServers": {\n"a": {"command": "x"},\n"b": {"command": "x"},\n"a": {}}}', "a", (2, 4)),
        ('{"mcpServers": {"a": {\n"command": "x",\n"command": "y"}}}', "command", (2, 3)),
        ('// note "a": "a":\n{"m": [{"a": 1}, {\n"a": 1,\n"\\u0061": 2}]}', "a", (3, 4)),
        ("{m: {'a': 1,\n a: 2}}", "a", (1, 2)),
        ("{m: {\n'a': 1, /* 'a': 1 */\n a: 2,}}", "a", (2, 3)),
        ('{"größe": 1,\n"größe": 2}', "größe", (1, 2)),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str, key: str, lines: tuple[int, int]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_json(text, "f.json")
    first, second = lines
    assert str(caught.value) == (
        f"f.json, line {second}: the key '{key}' stands twice in one object, in lines {first} and {second}"
    )


def test_a_key_that_stands_twice_in_one_line_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_json('{"a": 1, "a": 2}', "f.json")
    assert (caught.value.line, caught.value.reason) == (1, "the key 'a' stands twice in one object, in line 1")


SYNTAX = st.lists(
    st.sampled_from(["{", "}", "[", "]", ":", ",", '"a"', "'a'", "a", "//", "/*", "*/", "\n", "\\", '"', "1", "="])
).map("".join)


@pytest.mark.parametrize("parse", [parse_json, parse_toml])
@settings(deadline=None)
@given(text=SYNTAX | st.text())
def test_no_text_raises_anything_but_the_documented_error(parse: Any, text: str) -> None:
    try:
        parse(text, "f")
    except ConfigError as error:
        said = str(error)
    else:
        said = "f"
    assert said.startswith("f")
    assert len(said.splitlines()) == 1


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_means_the_same_with_a_comment_and_without(document: Any) -> None:

    text = json.dumps(document, indent=1)
    assert parse_json(text, "f") == document
    assert parse_json(f"// comment\n{text} /* end */", "f") == document


def test_a_bad_file_in_the_directory_of_providers_is_a_finding(tmp_path: Path) -> None:
    for provider, text in (("good", '{"command": "x"}'), ("bad", "{\n oops}"), ("worse", "[")):
        (tmp_path / provider).mkdir()
        write(tmp_path / provider, "mcp_settings.json", text)
    servers = load(config_dir=tmp_path)
    assert [spec.name for spec in servers.specs] == ["good"]
    assert [(one.source, one.field, one.grade) for one in servers.findings] == [
        (str(tmp_path / "bad" / "mcp_settings.json"), "line 2", "unsupported"),
        (str(tmp_path / "worse" / "mcp_settings.json"), "line 1", "unsupported"),
    ]
