"""The log as a reader sees it: bytes on a stream and in files."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.log_files import LogFiles
from mcp_proxy.telemetry.log_stream import LogStream
from mcp_proxy.telemetry.logs import FOREIGN, Logger, configure

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"


class FixedClock:
    """2026-11-20T10:15:00.250Z, until told otherwise."""

    def __init__(self) -> None:
        self.now = 1795169700.25

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def made(stream: io.StringIO, **settings: Any) -> Logger:
    return configure(Settings(**settings), stream=stream, clock=FixedClock())


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_that_begins_with_time_level_and_event() -> None:
    out = io.StringIO()
    made(out).info("request", path="/tools", status_code=200)
    assert out.getvalue() == (
        '{"timestamp":"2026-11-20T10:15:00.250Z","level":"info","event":"request","path":"/tools","status_code":200}\n'
    )


def test_lines_below_the_level_are_not_written() -> None:
    out = io.StringIO()
    log = made(out, log_level="WARNING")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert [line["event"] for line in lines(out)] == ["c", "d"]


def test_level_off_silences_everything(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = io.StringIO()
    log = made(out, log_level="OFF", log_dir=tmp_path / "logs")
    for write in (log.debug, log.info, log.warning, log.error, log.exception):
        write("a", x=1)
    logging.getLogger("hypercorn.error").error("b")
    assert (out.getvalue(), *capfd.readouterr(), list(tmp_path.iterdir())) == ("", "", "", [])


@pytest.mark.parametrize("name", [*FOREIGN, "some.library"])
def test_warnings_of_libraries_come_in_the_same_form(name: str) -> None:
    out = io.StringIO()
    made(out)
    logging.getLogger(name).info("not this")
    logging.getLogger(name).warning("token %s", JWT)
    assert lines(out) == [
        {"timestamp": "2026-11-20T10:15:00.250Z", "level": "warning", "event": "token ***", "logger": name}
    ]


def test_a_record_of_a_library_that_cannot_be_formatted_is_still_a_line() -> None:
    out = io.StringIO()
    made(out)
    record = logging.LogRecord("aiohttp", logging.ERROR, "file.py", 1, "%d", ("not a number",), None)
    logging.getLogger().handlers[-1].handle(record)
    assert lines(out)[0]["event"] == "(a log record that cannot be formatted)"


def test_configuring_again_replaces_the_route_of_foreign_records() -> None:
    first, second = io.StringIO(), io.StringIO()
    made(first)
    made(second)
    logging.getLogger("mcp").error("once")
    assert (len(lines(first)), len(lines(second))) == (0, 1)


def test_the_access_log_of_the_server_is_off() -> None:
    out = io.StringIO()
    made(out)
    logging.getLogger("hypercorn.access").error("GET /?token=abc")
    assert out.getvalue() == ""


def test_secrets_are_masked_wherever_they_stand() -> None:
    out = io.StringIO()
    log = made(out)
    log.info(f"got {JWT}", token="abc", nested={"password": "hunter2", "list": [f"Bearer {JWT}"]}, raw=JWT.encode())
    try:
        raise ValueError(f"bad token={JWT}")
    except ValueError:
        log.exception("failed")
    text = out.getvalue()
    assert not any(secret in text for secret in ("eyJ", "hunter2", "abc"))
    assert '"event":"got ***"' in text


def test_an_error_carries_its_traceback() -> None:
    out = io.StringIO()
    log = made(out)
    try:
        raise ValueError("inner")
    except ValueError:
        log.exception("failed", request_id="r1")
    line = lines(out)[0]
    assert (line["level"], line["event"], line["request_id"]) == ("error", "failed", "r1")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: inner")


@pytest.mark.parametrize(("debug", "begins"), [(False, "ValueError: inner"), (True, "Traceback")])
def test_a_warning_carries_a_traceback_only_with_debug(debug: bool, begins: str, tmp_path: Path) -> None:
    made(io.StringIO(), debug=debug, log_dir=tmp_path)
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("asyncio").warning("odd", exc_info=True)
    line = json.loads((tmp_path / "latest.jsonl").read_text())
    assert line["exception"].startswith(begins)


def test_a_long_traceback_keeps_its_end() -> None:
    out = io.StringIO()
    try:
        raise ValueError("x" * 100_000 + "the end")
    except ValueError:
        made(out).exception("failed")
    exception = lines(out)[0]["exception"]
    assert exception.endswith("the end")
    assert len(exception) < 17_000


def test_values_that_are_not_json_are_shown_as_text() -> None:
    out = io.StringIO()
    made(out).info("odd", thing=object, half="\ud800", number=10**5000, nan=float("nan"))
    line = lines(out)[0]
    assert line["thing"] == "<class 'object'>"
    assert line["half"] == "\\ud800"
    assert line["nan"] is None


def test_control_characters_cannot_forge_a_line_or_steer_a_terminal() -> None:
    evil = "a\nb\r\x1b[2Jc\x7f\x9b\u2028\u202e"
    plain, terminal = io.StringIO(), Terminal()
    made(plain).info(evil, path=evil)
    made(terminal).info(evil, path=evil, nested=[evil])
    assert plain.getvalue().isascii()
    assert len(plain.getvalue().splitlines()) == 1
    shown = re.sub(r"\x1b\[\d+m", "", terminal.getvalue())
    assert shown.count("\n") == 1
    assert shown.rstrip("\n").isprintable()


def test_people_at_a_terminal_get_a_coloured_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    made(terminal).warning("hello", path="/tools")
    assert "\x1b[" in terminal.getvalue()
    assert "hello" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_no_color_and_dumb_terminals_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.delenv("NO_COLOR", raising=False)
            patch.setenv(name, value)
            terminal = Terminal()
            made(terminal).warning("hello")
        assert "\x1b" not in terminal.getvalue()


def test_debug_shows_the_console_also_without_a_terminal_and_then_without_colours() -> None:
    out = io.StringIO()
    made(out, debug=True).info("hello", n=1)
    assert "\x1b" not in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_a_closed_stream_does_not_raise() -> None:
    out = io.StringIO()
    log = made(out)
    out.close()
    log.error("nobody reads this")
    stream = LogStream(None)
    assert not stream.write(b"x\n")
    assert stream.lost == 1


def test_a_reader_that_left_does_not_raise() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        log = configure(Settings(), stream=stream, clock=FixedClock())
        os.close(reading)
        log.error("nobody reads this")


def test_a_reader_that_stalls_costs_lines_and_is_told_how_many() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        log = configure(Settings(), stream=stream, clock=FixedClock())
        for number in range(400):
            log.info("filler", number=number, text="x" * 1000)
        os.set_blocking(reading, False)
        with os.fdopen(reading, "rb") as reader:
            reader.read()
            log.info("back")
            text = reader.read().decode()
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [event["event"] for event in events] == ["back", "log_lines_lost"]
    assert events[1]["lines"] > 100


def test_the_stream_is_stderr_unless_given(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings(), clock=FixedClock()).info("hello")
    captured = capsys.readouterr()
    assert (captured.out, json.loads(captured.err)["event"]) == ("", "hello")
    assert sys.stderr is not None


def test_files_get_json_also_when_the_console_is_for_people(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "logs"
    made(Terminal(), log_dir=directory).info("hello", token="abc")
    assert json.loads((directory / "latest.jsonl").read_text()) == {
        "timestamp": "2026-11-20T10:15:00.250Z", "level": "info", "event": "hello", "token": "***",
    }  # fmt: skip


def test_files_and_their_directory_are_for_the_owner_only(tmp_path: Path) -> None:
    made(io.StringIO(), log_dir=tmp_path / "logs").info("hello")
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "logs" / "latest.jsonl").stat().st_mode) == 0o600


def test_files_are_bounded_in_size_and_number_and_named_by_time(tmp_path: Path) -> None:
    clock = FixedClock()
    (tmp_path / "latest-notes.jsonl").write_text("mine")
    files = LogFiles(tmp_path, clock=clock, on_error=pytest.fail, max_bytes=100, max_files=3)
    for number in range(12):
        clock.now += 2
        files.write(b"%057d%02d\n" % (0, number))
    files.close()
    names = sorted(path.name for path in tmp_path.iterdir() if path.name != "latest-notes.jsonl")
    assert names == ["latest-20261120T101522Z.jsonl", "latest-20261120T101524Z.jsonl", "latest.jsonl"]
    assert (tmp_path / "latest.jsonl").read_bytes().endswith(b"11\n")
    assert all((tmp_path / name).stat().st_size <= 100 for name in names)
    assert (tmp_path / "latest-notes.jsonl").read_text() == "mine"


def test_files_closed_within_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, clock=FixedClock(), on_error=pytest.fail, max_bytes=10)
    for number in range(4):
        files.write(b"%08d\n" % number)
    files.close()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_restart_goes_on_in_the_latest_file(tmp_path: Path) -> None:
    for event in ("first", "second"):
        made(io.StringIO(), log_dir=tmp_path).info(event)
    events = [json.loads(line)["event"] for line in (tmp_path / "latest.jsonl").read_text().splitlines()]
    assert events == ["first", "second"]


def test_a_log_directory_that_cannot_be_written_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out = io.StringIO()
    log = made(out, log_dir=tmp_path / "file" / "logs")
    log.info("one")
    log.info("two")
    assert [line["event"] for line in lines(out)].count("log_file_not_written") == 1
    assert [line["event"] for line in lines(out) if line["event"] in ("one", "two")] == ["one", "two"]


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    latest = tmp_path / "latest.jsonl"
    latest.touch(mode=0o644)
    made(io.StringIO(), log_dir=tmp_path).info("hello")
    assert stat.S_IMODE(latest.stat().st_mode) == 0o600
