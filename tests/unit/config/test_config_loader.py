"""Sources of servers: the variables, files, and what stops the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_proxy.base.errors import StartError
from mcp_proxy.config.loader import load_servers, read_document
from mcp_proxy.config.model import ConfigError, Servers
from mcp_proxy.settings import Settings


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(*files: Path, url: str | None = None, urls: tuple[str, ...] = ()) -> Servers:
    return load_servers(Settings(config=files, mcp_url=url, mcp_urls=urls), {"TOKEN": "s3cret"})


def start_error(*files: Path, url: str | None = None, urls: tuple[str, ...] = ()) -> str:
    with pytest.raises(StartError) as caught:
        load(*files, url=url, urls=urls)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_urls_of_the_variable_are_replicas_named_by_address() -> None:
    specs = load(urls=("http://10.1.1.5:8999/sse", "http://b.example/mcp")).specs
    assert [(s.name, s.transport, s.replica_set, s.source) for s in specs] == [
        ("10-1-1-5-8999-sse", "sse", "MCP_URLS", "MCP_URLS"),
        ("b-example-mcp", "auto", "MCP_URLS", "MCP_URLS"),
    ]


def test_the_list_of_urls_replaces_the_single_one() -> None:
    assert [spec.name for spec in load(url="http://one/sse", urls=("http://two/sse",)).specs] == ["two-sse"]
    (spec,) = load(url="http://one/sse").specs
    assert (spec.name, spec.replica_set, spec.source) == ("one-sse", None, "MCP_URL")


def test_no_source_means_no_servers() -> None:
    assert load() == Servers()


def test_a_malformed_url_is_told_by_variable_and_position_without_its_secrets() -> None:
    said = start_error(urls=("http://a/sse", "https://user:s3cret@b"))
    assert said.startswith("MCP_URLS: entry 2, ")
    assert "s3cret" not in said
    said = start_error(url="ftp://h/x?token=s3cret")
    assert said.startswith("MCP_URL: ")
    assert "s3cret" not in said


def test_two_urls_that_make_one_name_are_told_by_position() -> None:
    assert "entries 1 and 3" in start_error(urls=("http://a/sse", "http://b/sse", "http://a/sse"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.json", '{"mcpServers": {"x": {"command": "y", "args": ["a//b", "c,]"]}}}'),
        ("comments.json", '// c\n{"mcpServers": {/* c */ "x": {"command": "y", "args": ["a//b", "c,]",],},},}'),
        ("five.json5", "{mcpServers: {x: {command: 'y', args: ['a//b', 'c,]']}}}"),
        ("bom.json", b'\xef\xbb\xbf{"x": {"command": "y", "args": ["a//b", "c,]"]}}'),
        ("codex.TOML", '[mcp_servers.x]\ncommand = "y"\nargs = ["a//b", "c,]"]'),
    ],
)
def test_the_syntaxes_of_all_clients_are_read(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = write(tmp_path, name, content)
    (spec,) = load(path).specs
    assert (spec.name, spec.args, spec.source) == ("x", ("a//b", "c,]"), str(path))


def test_variables_in_a_file_are_filled_and_an_unset_one_refuses_its_server_only(tmp_path: Path) -> None:
    text = '{"a": {"command": "x", "env": {"K": "${TOKEN}"}}, "b": {"command": "${NOPE}"}, "c": {"command": "y"}}'
    servers = load(write(tmp_path, "f.json", text))
    assert [spec.name for spec in servers.specs] == ["a", "c"]
    assert servers.specs[0].env == {"K": "s3cret"}
    assert "the variable NOPE is not set" in servers.refused[0].reason


def test_a_file_with_one_server_may_name_it(tmp_path: Path) -> None:
    assert load(write(tmp_path, "calc.json", '{"command": "x"}')).specs[0].name == "calc"


def test_a_file_without_servers_is_fine(tmp_path: Path) -> None:
    assert load(write(tmp_path, "f.json", '{"mcpServers": {}}')) == Servers()


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("f.json", "", "is empty"),
        ("f.json", '{\n"a": 1\n"b": 2}', ", line 3: is not JSON"),
        ("f.json", '{\n"a": \xff}'.encode("latin-1"), ", line 2: is not UTF-8"),
        ("f.json", '{"mcpServers": {\n"x": {},\n"x": {}}}', ", line 3: the key 'x' stands twice"),
        ("f.json", '{mcpServers: {\n"x": {},\nx: {}}}', ", line 3: the key 'x' stands twice"),
        ("f.json", "[" * 100_000, "nested too deeply"),
        ("f.json", '{"a": ' + "1" * 5000 + "}", "a number is too long"),
        ("f.json", '{"ui": {"theme": "dark"}}', "no servers in a known form"),
        ("f.json", "5", "no servers in a known form"),
        ("f.toml", "\na = = 1", ", line 2: is not TOML"),
        ("f.toml", "[a]\n[a]", ", line 2: is not TOML"),
    ],
)
def test_a_bad_file_stops_the_start_with_file_line_and_reason(
    tmp_path: Path, name: str, content: str | bytes, part: str
) -> None:
    path = write(tmp_path, name, content)
    said = start_error(path)
    assert said.startswith(str(path))
    assert part in said


def test_a_file_that_is_missing_or_no_file_stops_the_start(tmp_path: Path) -> None:
    assert "No such file" in start_error(tmp_path / "nope.json")
    assert "Is a directory" in start_error(tmp_path)


def test_one_name_in_two_sources_is_told_with_both_places(tmp_path: Path) -> None:
    first = write(tmp_path, "1.json", '{"a-sse": {"command": "x"}}')
    second = write(tmp_path, "2.json", '{"a-sse": {"command": "y"}}')
    said = start_error(first, second)
    assert str(first) in said
    assert str(second) in said
    said = start_error(first, url="http://a/sse")
    assert str(first) in said
    assert "MCP_URL" in said


def test_a_refused_server_keeps_its_name_from_others(tmp_path: Path) -> None:
    first = write(tmp_path, "1.json", '{"a": {"command": "${NOPE}"}}')
    assert str(first) in start_error(first, write(tmp_path, "2.json", '{"a": {"command": "y"}}'))


def test_a_group_called_like_a_server_of_another_source_refuses_its_member(tmp_path: Path) -> None:
    first = write(tmp_path, "1.json", '{"a": {"command": "x"}}')
    servers = load(first, write(tmp_path, "2.json", '{"b": {"command": "y", "group": "a"}}'))
    assert [spec.name for spec in servers.specs] == ["a"]
    assert [refused.name for refused in servers.refused] == ["b"]


def test_a_document_is_read_apart_from_its_meaning(tmp_path: Path) -> None:
    assert read_document(write(tmp_path, "f.json", "[1, 2]")) == [1, 2]
    with pytest.raises(ConfigError) as caught:
        read_document(write(tmp_path, "g.json", "[1,\n2"))
    assert caught.value.line == 2
