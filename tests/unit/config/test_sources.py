"""All sources together: at the start, and when they change."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mcp_proxy.base.errors import StartError
from mcp_proxy.config.model import Transport
from mcp_proxy.config.sources import Configured, Origin, Problem, Sources
from mcp_proxy.config.state import State
from mcp_proxy.settings import Settings


class Place:
    """A --config file ``one``, a second ``two`` and a --config-dir ``data``, and the sources made of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.one, self.two, self.data = root / "one.json", root / "two.json", root / "data"
        self.state_file = root / "state" / "servers.json"
        self.data.mkdir()
        self.write(self.one)
        self.write(self.two)

    def write(self, path: Path, **servers: str) -> None:
        """A file with these servers and their commands."""
        path.write_text(json.dumps({"mcpServers": {name: {"command": command} for name, command in servers.items()}}))

    def provide(self, provider: str, content: Any) -> Path:
        path = self.data / provider / "mcp_settings.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def sources(self, **more: Any) -> Sources:
        given = {"config": (self.one, self.two), "config_dir": self.data, "state_dir": self.state_file.parent} | more
        return Sources(Settings(**given), {"SET": "value"})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def commands(configured: Configured) -> dict[str, str | None]:
    return {spec.name: spec.command or spec.url for spec in configured.servers.specs}


def off(configured: Configured) -> set[str]:
    return {spec.name for spec in configured.servers.specs if spec.disabled}


# Start


def test_everything_adds_up_in_order_and_is_known_by_origin(place: Place) -> None:
    place.write(place.one, a="a", b="${SET}")
    place.provide("zoo", {"name": "z", "command": "z"})
    place.provide("acme", {"command": "c"})
    state = State(3, {"added": {"url": "https://h/mcp"}})
    found = place.sources(mcp_url="http://u/mcp").start(state)
    assert commands(found) == {
        "u-mcp": "http://u/mcp", "a": "a", "b": "value", "acme": "c", "z": "z", "added": "https://h/mcp"
    }  # fmt: skip
    assert found.origins == {
        "u-mcp": Origin.VARIABLE, "a": Origin.FILE, "b": Origin.FILE,
        "acme": Origin.DIRECTORY, "z": Origin.DIRECTORY, "added": Origin.STATE,
    }  # fmt: skip
    assert found.problems == ()
    sources = {spec.name: spec.source for spec in found.servers.specs}
    assert (sources["a"], sources["added"]) == (str(place.one), str(place.state_file))


def test_refused_servers_have_an_origin_too(place: Place) -> None:
    place.write(place.one, a="${NOT_SET}")
    place.provide("p", {"command": ""})
    found = place.sources().start(State(servers={"s": {"command": "x", "url": "https://h/"}}))
    assert found.origins == {"a": Origin.FILE, "p": Origin.DIRECTORY, "s": Origin.STATE}
    assert [one.name for one in found.servers.refused] == ["a", "p", "s"]


def test_a_bad_config_file_stops_the_start(place: Place) -> None:
    place.two.write_text('{\n"mcpServers": oops}')
    with pytest.raises(StartError, match=r"two\.json, line 2: is not JSON"):
        place.sources().start(State())
    place.two.unlink()
    with pytest.raises(StartError, match=r"two\.json: cannot be read: No such file"):
        place.sources().start(State())


def test_a_name_used_twice_in_variables_and_files_stops_the_start(place: Place) -> None:
    place.write(place.one, a="1")
    place.write(place.two, a="2")
    with pytest.raises(StartError, match=r"one\.json: the server 'a' is written here and in .*two\.json"):
        place.sources().start(State())
    place.write(place.two, **{"h-mcp": "2"})
    with pytest.raises(StartError, match=r"MCP_URL: the server 'h-mcp' is written here and in"):
        place.sources(mcp_url="http://h/mcp").start(State())


def test_a_config_directory_that_is_none_stops_the_start(place: Place) -> None:
    with pytest.raises(StartError, match="missing: cannot be listed: No such file"):
        place.sources(config_dir=place.root / "missing").start(State())
    with pytest.raises(StartError, match=r"one\.json: cannot be listed: Not a directory"):
        place.sources(config_dir=place.one).start(State())


def test_a_bad_file_in_the_directory_is_skipped_and_reported(place: Place) -> None:
    bad = place.provide("bad", '{\n"command": oops}')
    place.provide("good", {"command": "x"})
    found = place.sources().start(State())
    assert commands(found) == {"good": "x"}
    (problem,) = found.problems
    assert (problem.source, problem.line) == (str(bad), 2)
    assert problem.reason.startswith("is not JSON")


def test_a_name_that_an_earlier_source_has_leaves_out_the_later_file_of_the_directory(place: Place) -> None:
    place.write(place.one, a="1")
    clash = place.provide("p", {"mcpServers": {"a": {"command": "2"}, "b": {"command": "3"}}})
    first = place.provide("q", {"name": "same", "command": "4"})
    second = place.provide("r", {"name": "same", "command": "5"})
    found = place.sources().start(State())
    assert commands(found) == {"a": "1", "same": "4"}
    assert found.problems == (
        Problem(str(clash), f"the server 'a' is already written in {place.one}"),
        Problem(str(second), f"the server 'same' is already written in {first}"),
    )


# The router's files


def test_the_routers_file_is_read_with_all_its_keys(place: Place) -> None:
    place.provide(
        "example",
        {
            "provider": "other", "isActive": False, "name": "example_instance", "type": "stdio",
            "command": "python", "args": ["-m", "x"], "env": {"K": "${SET}"},
        },
    )  # fmt: skip
    (spec,) = place.sources().start(State()).servers.specs
    assert (spec.name, spec.provider, spec.disabled) == ("example_instance", "other", True)
    assert (spec.command, spec.args, dict(spec.env)) == ("python", ("-m", "x"), {"K": "value"})
    assert "provider" not in spec.extra


@pytest.mark.parametrize(("word", "transport"), [("http", Transport.STREAMABLE_HTTP), ("sse", Transport.SSE)])
def test_a_url_may_stand_in_command(place: Place, word: str, transport: Transport) -> None:
    place.provide("p", {"isActive": True, "type": word, "command": "https://h/x", "args": [], "env": {}})
    (spec,) = place.sources().start(State()).servers.specs
    assert (spec.name, spec.url, spec.command, spec.transport) == ("p", "https://h/x", None, transport)


def test_the_directory_names_provider_and_server_where_the_file_does_not(place: Place) -> None:
    place.provide("my corp", {"command": "x"})
    place.provide("zoo", {"mcpServers": {"a": {"command": "x"}, "b": {"command": "x", "provider": "own"}}})
    specs = place.sources().start(State()).servers.specs
    assert [(spec.name, spec.provider) for spec in specs] == [("my-corp", "my corp"), ("a", "zoo"), ("b", "own")]


def test_a_file_outside_the_directory_has_the_provider_that_it_names(place: Place) -> None:
    place.one.write_text('{"mcpServers": {"a": {"command": "x", "provider": " p "}, "b": {"command": "x"}}}')
    assert [spec.provider for spec in place.sources().start(State()).servers.specs] == ["p", None]


def test_hidden_directories_and_other_files_are_not_read(place: Place) -> None:
    place.provide(".hidden", {"command": "x"})
    (place.data / "mcp_settings.json").write_text('{"command": "x"}')
    (place.data / "empty").mkdir()
    (place.data / "empty" / "other.json").write_text('{"command": "x"}')
    found = place.sources().start(State())
    assert (commands(found), found.problems) == ({}, ())


def test_a_directory_whose_name_is_no_utf_8_can_still_be_spoken_of(place: Place) -> None:
    os.makedirs(os.fsencode(place.data) + b"/caf\xe9")
    with open(os.fsencode(place.data) + b"/caf\xe9/mcp_settings.json", "w") as file:
        file.write('{"command": "x"}')
    (spec,) = place.sources().start(State()).servers.specs
    assert (spec.name, spec.provider) == ("caf-", "caf?")
    assert spec.source.encode().endswith(b"/caf?/mcp_settings.json")


# Limits


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b" " * 10_000_001, "is larger than 10 MB"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "is nested too deeply; 64 levels are accepted"),
        (b"[" * 1_000_000, "is nested too deeply; 64 levels are accepted"),
    ],
)
def test_what_is_too_large_or_too_deep_is_refused(place: Place, content: bytes, said: str) -> None:
    path = place.provide("p", "")
    path.write_bytes(content)
    assert place.sources().start(State()).problems == (Problem(str(path), said),)
    place.one.write_bytes(content)
    with pytest.raises(StartError, match=said):
        place.sources().start(State())


def test_64_levels_are_accepted(place: Place) -> None:
    nested = {"a": {"command": "x", "more": json.loads("[" * 61 + "]" * 61)}}
    place.one.write_text(json.dumps({"mcpServers": nested}))
    assert commands(place.sources().start(State())) == {"a": "x"}


def test_a_large_file_with_a_mistake_is_refused_without_the_slow_parser(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("json5.loads")
    place.one.write_text('{\n"mcpServers": {},\n"x": "' + "x" * 200_000 + '",\n oops: 1}')
    with pytest.raises(StartError, match="line 4: is not JSON"):
        place.sources().start(State())


def test_a_pipe_in_the_directory_is_refused_and_not_waited_for(place: Place) -> None:
    path = place.provide("p", "")
    path.unlink()
    os.mkfifo(path)
    assert place.sources().start(State()).problems == (Problem(str(path), "is not a file"),)


def test_a_pipe_given_as_a_file_is_read_once(place: Place) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b'{"mcpServers": {"a": {"command": "x"}}}')
        os.close(writer)
        sources = place.sources(config=(Path(f"/dev/fd/{reader}"),))
        assert commands(sources.start(State())) == {"a": "x"}
        again = sources.reload(State())
    finally:
        os.close(reader)
    assert (commands(again), again.problems) == ({"a": "x"}, ())


# Changes


def test_a_changed_file_is_read_again(place: Place) -> None:
    place.write(place.one, a="1", b="2")
    sources = place.sources()
    sources.start(State())
    place.write(place.one, a="new", c="3")
    assert commands(sources.reload(State())) == {"a": "new", "c": "3"}


def test_a_file_that_is_the_same_gives_the_same_servers(place: Place) -> None:
    place.write(place.one, a="1")
    place.provide("p", {"command": "x"})
    sources = place.sources()
    assert sources.start(State()) == sources.reload(State())


@pytest.mark.parametrize("content", ["", "{", '{"mcpServers": 5}', '{"a": {"command": "x"}, "a": {"command": "y"}}'])
def test_a_file_that_turned_bad_keeps_what_it_said_and_is_a_problem_until_mended(place: Place, content: str) -> None:
    place.write(place.one, a="1")
    provided = place.provide("p", {"command": "2"})
    sources = place.sources()
    sources.start(State())
    place.one.write_text(content)
    provided.write_text(content)
    for _ in range(2):
        found = sources.reload(State())
        assert commands(found) == {"a": "1", "p": "2"}
        assert [problem.source for problem in found.problems] == [str(place.one), str(provided)]
    place.write(place.one, a="mended")
    place.provide("p", {"command": "too"})
    found = sources.reload(State())
    assert (commands(found), found.problems) == ({"a": "mended", "p": "too"}, ())


def test_a_config_file_that_vanished_keeps_what_it_said_and_is_a_problem(place: Place) -> None:
    place.write(place.one, a="1")
    sources = place.sources()
    sources.start(State())
    place.one.unlink()
    found = sources.reload(State())
    assert commands(found) == {"a": "1"}
    assert found.problems == (Problem(str(place.one), "cannot be read: No such file or directory"),)


def test_files_of_the_directory_come_and_go(place: Place) -> None:
    place.provide("a", {"command": "1"})
    gone = place.provide("b", {"command": "2"})
    sources = place.sources()
    sources.start(State())
    gone.unlink()
    place.provide("c", {"command": "3"})
    found = sources.reload(State())
    assert (commands(found), found.problems) == ({"a": "1", "c": "3"}, ())
    shutil.rmtree(place.data / "a")
    assert commands(sources.reload(State())) == {"c": "3"}


def test_a_file_that_came_back_bad_says_nothing(place: Place) -> None:
    path = place.provide("a", {"command": "1"})
    sources = place.sources()
    sources.start(State())
    path.unlink()
    sources.reload(State())
    path.write_text("{")
    found = sources.reload(State())
    assert (commands(found), [one.source for one in found.problems]) == ({}, [str(path)])


def test_a_link_in_the_directory_that_leads_nowhere_keeps_what_the_file_said(place: Place) -> None:
    path = place.provide("a", {"command": "1"})
    real = place.root / "real.json"
    path.rename(real)
    path.symlink_to(real)
    sources = place.sources()
    assert commands(sources.start(State())) == {"a": "1"}
    real.unlink()
    found = sources.reload(State())
    assert (commands(found), [one.source for one in found.problems]) == ({"a": "1"}, [str(path)])


def test_a_directory_that_vanished_keeps_its_servers_and_is_a_problem_until_it_is_back(place: Place) -> None:
    place.provide("a", {"command": "1"})
    sources = place.sources()
    sources.start(State())
    place.data.rename(place.root / "away")
    found = sources.reload(State())
    assert commands(found) == {"a": "1"}
    assert Problem(str(place.data), "cannot be listed: No such file or directory") in found.problems
    (place.root / "away").rename(place.data)
    place.provide("b", {"command": "2"})
    found = sources.reload(State())
    assert (commands(found), found.problems) == ({"a": "1", "b": "2"}, ())


# A name used twice


def test_a_name_that_an_earlier_source_has_keeps_the_later_file_as_a_whole_at_what_it_said(place: Place) -> None:
    place.write(place.one, a="1")
    place.write(place.two, b="2", c="3")
    sources = place.sources()
    sources.start(State())
    place.write(place.two, a="stolen", b="changed")
    found = sources.reload(State())
    assert commands(found) == {"a": "1", "b": "2", "c": "3"}
    assert found.problems == (Problem(str(place.two), f"the server 'a' is already written in {place.one}"),)


def test_a_name_that_a_later_source_has_in_force_keeps_the_earlier_file_at_what_it_said(place: Place) -> None:
    place.write(place.one, a="1")
    place.write(place.two, b="2")
    sources = place.sources()
    sources.start(State())
    place.write(place.one, a="changed", b="stolen")
    found = sources.reload(State())
    assert commands(found) == {"a": "1", "b": "2"}
    assert found.problems == (Problem(str(place.one), f"the server 'b' is already written in {place.two}"),)


def test_a_server_can_move_from_one_file_to_another_in_two_steps_of_any_order(place: Place) -> None:
    place.write(place.one, a="1", b="2")
    sources = place.sources()
    sources.start(State())
    place.write(place.two, b="moved")
    assert commands(sources.reload(State())) == {"a": "1", "b": "2"}
    place.write(place.one, a="1")
    found = sources.reload(State())
    assert (commands(found), found.problems) == ({"a": "1", "b": "moved"}, ())


def test_servers_can_change_places_at_once(place: Place) -> None:
    place.write(place.one, a="1")
    place.write(place.two, b="2")
    sources = place.sources()
    sources.start(State())
    place.write(place.one, b="3")
    place.write(place.two, a="4")
    found = sources.reload(State())
    assert (commands(found), found.problems) == ({"b": "3", "a": "4"}, ())


def test_two_files_that_both_want_a_name_in_force_elsewhere_both_keep_what_they_said(place: Place) -> None:
    place.write(place.one, a="1")
    place.write(place.two, b="2")
    place.provide("c", {"command": "3"})
    sources = place.sources()
    sources.start(State())
    place.write(place.one, a="new", c="x")
    place.write(place.two, b="new", c="y")
    found = sources.reload(State())
    assert commands(found) == {"a": "1", "b": "2", "c": "3"}
    assert {problem.source for problem in found.problems} == {str(place.one), str(place.two)}


def test_a_refused_server_holds_its_name_too(place: Place) -> None:
    place.write(place.one, a="${NOT_SET}")
    sources = place.sources()
    sources.start(State())
    path = place.provide("p", {"name": "a", "command": "x"})
    assert [problem.source for problem in sources.reload(State()).problems] == [str(path)]


# What the API changed


def test_a_name_of_the_api_that_is_written_elsewhere_leaves_out_that_server_alone(place: Place) -> None:
    place.write(place.one, a="1")
    state = State(1, {"a": {"command": "mine"}, "b": {"command": "2"}})
    sources = place.sources()
    found = sources.start(state)
    assert commands(found) == {"a": "1", "b": "2"}
    assert found.problems == (Problem(str(place.state_file), f"the server 'a' is already written in {place.one}"),)
    place.write(place.one)
    found = sources.reload(state)
    assert (commands(found), found.problems) == ({"a": "mine", "b": "2"}, ())


def test_a_bad_entry_of_the_api_is_no_other_entrys_business(place: Place) -> None:
    entries = {"b": {"command": ""}, "c": {"command": "3"}, "d d": {"command": "4"}, "d-d": {"command": "5"}}
    found = place.sources().start(State(1, entries))
    assert commands(found) == {"c": "3", "d-d": "4"}
    assert [one.name for one in found.servers.refused] == ["b"]
    assert [one.source for one in found.problems] == [str(place.state_file)]


def test_variables_in_entries_of_the_api_stay_as_they_are(place: Place) -> None:
    found = place.sources().start(State(1, {"a": {"command": "${SET}"}}))
    assert commands(found) == {"a": "${SET}"}


def test_a_state_that_is_tried_out_leaves_no_trace(place: Place) -> None:
    place.write(place.one, a="1")
    sources = place.sources()
    before = sources.start(State())
    assert commands(sources.reload(State(1, {"b": {"command": "2"}}, frozenset({"a"})))) == {"a": "1", "b": "2"}
    assert sources.reload(State()) == before


def test_the_api_switches_servers_of_files_off_and_on(place: Place) -> None:
    place.write(place.one, a="1", b="2", refused="${NOT_SET}")
    place.provide("p", {"command": "3", "isActive": False})
    place.provide("q", {"command": "4", "isActive": False})
    state = State(1, {"s": {"command": "5", "disabled": True}}, frozenset({"a", "refused", "nowhere"}), frozenset("ps"))
    found = place.sources(mcp_url="http://u/mcp").start(state)
    assert off(found) == {"a", "q", "s"}
    assert [one.disabled for one in found.servers.refused] == [True]
    state = State(2, disabled=frozenset({"u-mcp", "p"}), enabled=frozenset({"p"}))
    assert off(place.sources(mcp_url="http://u/mcp").start(state)) == {"u-mcp", "p", "q"}


# What to watch


def test_directories_of_files_and_of_the_providers_are_watched(place: Place) -> None:
    place.provide("p", {"command": "1"})
    (place.data / "empty").mkdir()
    sources = place.sources()
    sources.start(State())
    assert set(sources.watched) >= {place.root, place.data, place.data / "p", place.data / "empty"}
    for name in (place.one, place.data / "p" / "mcp_settings.json", place.data / "empty" / "mcp_settings.json"):
        assert sources.concerns(name)
    assert sources.concerns(place.data / "new")
    assert not sources.concerns(place.root / "other.json")
    assert not sources.concerns(place.data / "p" / "notes.txt")


def test_directories_of_links_and_of_what_they_lead_to_are_watched(place: Place) -> None:
    # As Kubernetes mounts a ConfigMap: file -> ..data/file, ..data -> ..2026.
    mounted = place.root / "mounted"
    (mounted / "..2026").mkdir(parents=True)
    place.write(mounted / "..2026" / "mcp.json", a="1")
    (mounted / "..data").symlink_to("..2026")
    (mounted / "mcp.json").symlink_to("..data/mcp.json")
    sources = place.sources(config=(mounted / "mcp.json",), config_dir=None)
    sources.start(State())
    assert set(sources.watched) >= {mounted, mounted / "..2026"}
    for name in ("mcp.json", "..data", "..2026/mcp.json"):
        assert sources.concerns(mounted / name)
    assert not sources.concerns(mounted / "..2027")


def test_links_in_a_circle_are_a_problem_and_not_followed_for_ever(place: Place) -> None:
    path = place.provide("p", "")
    path.unlink()
    path.symlink_to(path)
    sources = place.sources()
    assert [problem.source for problem in sources.start(State()).problems] == [str(path)]
    assert path.parent in sources.watched


def test_a_look_shows_every_change_without_reading(place: Place) -> None:
    path = place.provide("p", {"command": "1"})
    sources = place.sources()
    sources.start(State())
    looks = [sources.first_look, sources.look()]
    assert looks[0] == looks[1]
    for change in (
        lambda: place.one.write_text("{} "),
        lambda: place.two.unlink(),
        lambda: path.write_text("{}"),
        lambda: place.provide("q", "{}"),
        lambda: shutil.rmtree(path.parent),
        lambda: place.data.rename(place.root / "away"),
    ):
        change()
        looks.append(sources.look())
    assert len(set(looks)) == 7


def test_a_server_that_runs_is_not_lost_to_a_mistake_in_its_entry(place: Place) -> None:
    place.one.write_text('{"mcpServers": {"a": {"command": "x"}, "bad": {"command": "${NONE}"}}}')
    sources = place.sources()
    assert [spec.name for spec in sources.start(State()).servers.specs] == ["a"]
    place.one.write_text('{"mcpServers": {"a": {"command": "${NONE}"}, "b": {"command": "x"}}}')
    spoilt = sources.reload(State())
    assert [spec.name for spec in spoilt.servers.specs] == ["a"]
    assert [(one.source, "NONE" in one.reason) for one in spoilt.problems] == [(str(place.one), True)]
    place.one.write_text('{"mcpServers": {"b": {"command": "x"}}}')
    mended = sources.reload(State())
    assert ([spec.name for spec in mended.servers.specs], mended.problems) == (["b"], ())
