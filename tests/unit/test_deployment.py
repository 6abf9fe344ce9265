"""Images and the compose file: what they copy exists, and what they promise stands in them.

The files are parsed; the steps of the Dockerfiles are carried out in `live.test_images`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from mcp_proxy.settings import setting_table
from tests.harness import CLEAN, ROOT, eventually, free_port

DOCKERFILES = ("Dockerfile", "Dockerfile.pip")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROXIES = {"mcp-proxy-uv": 5001, "mcp-proxy-pip": 5000}
INSTALLED = "/opt/mcp-proxy-api"


@dataclass(frozen=True)
class Step:
    """One instruction: its word, and the rest of its (joined) line."""

    word: str
    rest: str


def stages(name: str) -> list[list[Step]]:
    """The instructions of a Dockerfile, a list for each FROM; comments gone, continued lines joined."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    found: list[list[Step]] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                found.append([])
            found[-1].append(Step(word, " ".join(rest.split()) if word != "HEALTHCHECK" else rest.strip()))
    return found


def rests(steps: list[Step], word: str) -> list[str]:
    return [step.rest for step in steps if step.word == word]


def environment(steps: list[Step]) -> dict[str, str]:
    """What ENV sets."""
    return dict(pair.split("=", 1) for rest in rests(steps, "ENV") for pair in shlex.split(rest))


def copied(name: str) -> Iterator[tuple[str, str]]:
    """What is copied out of the checkout: (source, destination)."""
    for step in (step for stage in stages(name) for step in stage if step.word == "COPY"):
        *sources, destination = step.rest.split()
        if not step.rest.startswith("--from="):
            yield from ((source, destination) for source in sources)


def left_out(path: str) -> bool:
    """Whether .dockerignore keeps a path from the build: the last pattern that fits it, or a directory above it, decides."""
    parts = path.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line.startswith("#") and any(fits(one, line.strip().removeprefix("!")) for one in above):
            verdict = not line.startswith("!")
    return verdict


def fits(path: str, pattern: str) -> bool:
    """One pattern: ``*`` stops at a slash, ``**/`` in front stands for any directories."""
    if pattern.startswith("**/"):
        return fnmatchcase(path.rpartition("/")[2], pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)


# Images


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_an_image_copies_exists_and_reaches_the_build(name: str) -> None:
    sources = [source for source, _ in copied(name)]

    assert {"pyproject.toml", "README.md", "LICENSE", "mcp_proxy"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not left_out(source), source
    assert not left_out("mcp_proxy/core/auth/keys.py")


@pytest.mark.parametrize(
    "path", [".env", ".git", ".venv", ".cache", ".mcp-proxy", "tests", "mcp_proxy/core/__pycache__"]
)
def test_secrets_and_leftovers_of_a_checkout_do_not_reach_the_build(path: str) -> None:
    assert left_out(path)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_made_in_two_stages_from_a_slim_python_and_runs_as_nobody_special(name: str) -> None:
    build, final = stages(name)

    assert [rests(stage, "FROM")[0].split()[0] for stage in (build, final)] == ["python:3.13-slim"] * 2
    assert rests(final, "COPY") == [f"--from=build {INSTALLED} {INSTALLED}"]
    assert rests(final, "USER") == ["10001"]
    assert final.index(Step("USER", "10001")) > max(i for i, step in enumerate(final) if step.word == "RUN")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_serves_on_all_addresses_and_checks_its_health_without_curl(name: str) -> None:
    final = stages(name)[-1]
    env = environment(final)

    assert (env["HOST"], env["PORT"], rests(final, "EXPOSE")) == ("0.0.0.0", "5000", ["5000"])
    assert rests(final, "VOLUME") == [env["MCP_PROXY_STATE_DIR"]]
    assert json.loads(rests(final, "ENTRYPOINT")[0]) + json.loads(rests(final, "CMD")[0]) == ["mcp-proxy-api", "serve"]
    assert health_check(name)[0] == "python"
    assert "/health/live" in health_check(name)[-1]
    assert "curl" not in " ".join(rests(final, "RUN") + rests(final, "HEALTHCHECK"))


def health_check(name: str) -> list[str]:
    """The command of an image's health check."""
    command: list[str] = json.loads(rests(stages(name)[-1], "HEALTHCHECK")[0].partition("CMD ")[2])
    return command


def test_both_images_differ_in_how_they_are_built_only() -> None:
    assert stages("Dockerfile")[-1] == stages("Dockerfile.pip")[-1]


def test_images_set_nothing_that_the_program_does_not_know() -> None:
    python = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}

    assert set(environment(stages("Dockerfile")[-1])) - python <= {row.env for row in setting_table()}


def test_the_uv_image_installs_what_the_lock_says_with_the_uv_of_the_scripts() -> None:
    build = stages("Dockerfile")[0]
    wanted = re.search(r"^uv_range='(.*?)'", (ROOT / "scripts/lib.sh").read_text(), re.MULTILINE)

    assert "uv sync --frozen --no-default-groups --no-editable" in rests(build, "RUN")
    assert wanted is not None
    assert any(f'"{wanted[1]}"' in run for run in rests(build, "RUN"))


def test_the_pip_image_takes_its_index_from_build_arguments_that_stay_in_the_build() -> None:
    build, final = stages("Dockerfile.pip")

    assert rests(build, "ARG") == ["PIP_INDEX_URL", "PIP_TRUSTED_HOST"]
    assert rests(final, "ARG") == []
    assert not any(name.startswith("PIP_") for name in environment(build) | environment(final))


# Compose


def test_a_plain_up_starts_both_proxies_and_the_demo() -> None:
    assert set(COMPOSE["services"]) == {*PROXIES, "demo"}
    assert not any("profiles" in service for service in COMPOSE["services"].values())


@pytest.mark.parametrize(("name", "port"), PROXIES.items())
def test_a_proxy_is_published_on_its_port_of_this_machine(name: str, port: int) -> None:
    service = COMPOSE["services"][name]

    assert service["ports"] == [f"127.0.0.1:{port}:5000"]
    assert (service["environment"]["HOST"], service["environment"]["PORT"]) == ("0.0.0.0", "5000")


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_does_not_start_without_a_secret(name: str) -> None:
    assert COMPOSE["services"][name]["environment"]["JWT_SECRET"].startswith("${JWT_SECRET:?")


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_is_given_settings_that_exist(name: str) -> None:
    assert set(COMPOSE["services"][name]["environment"]) <= {row.env for row in setting_table()}


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_is_built_from_a_file_that_exists(name: str) -> None:
    build = COMPOSE["services"][name]["build"]
    wanted = "Dockerfile.pip" if name == "mcp-proxy-pip" else "Dockerfile"

    assert (build["context"], build["dockerfile"]) == (".", wanted)
    assert set(build.get("args", {})) == set(rests(stages(wanted)[0], "ARG"))


def test_every_service_has_an_image_name_of_its_own() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()]

    assert len(set(images)) == len(images)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_is_hardened(name: str) -> None:
    service = COMPOSE["services"][name]

    assert service["user"] == rests(stages("Dockerfile")[-1], "USER")[0]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_keeps_its_state_in_a_volume_and_has_time_to_drain(name: str) -> None:
    service = COMPOSE["services"][name]
    state = environment(stages("Dockerfile")[-1])["MCP_PROXY_STATE_DIR"]
    drain = next(row.default for row in setting_table() if row.field == "drain_timeout")

    assert service["volumes"] == [f"state:{state}"]
    assert "state" in COMPOSE["volumes"]
    assert int(service["stop_grace_period"].removesuffix("s")) > drain


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_is_healthy_when_it_is_live(name: str) -> None:
    command = COMPOSE["services"][name]["healthcheck"]["test"]

    assert command[:3] == ["CMD", "python", "-c"]
    assert "http://127.0.0.1:5000/health/live" in command[3]
    compile(command[3], "healthcheck", "exec")


def test_the_proxies_call_the_demo_at_the_address_where_it_listens_and_nobody_else_can() -> None:
    demo = COMPOSE["services"]["demo"]

    assert demo["entrypoint"] == ["python", "-m", "mcp_proxy.demo", "--http", "8000", "--host", "0.0.0.0"]
    assert "ports" not in demo
    for name in PROXIES:
        assert "http://demo:8000/mcp" in COMPOSE["services"][name]["environment"]["MCP_URLS"]
        assert COMPOSE["services"][name]["depends_on"] == ["demo"]


@pytest.mark.anyio
async def test_the_demo_serves_over_http_as_the_compose_file_starts_it(tmp_path: Path) -> None:
    port = free_port()
    _, *arguments = COMPOSE["services"]["demo"]["entrypoint"]
    command = [sys.executable, *(str(port) if word == "8000" else word for word in arguments)]

    async with (
        running(command, tmp_path, clean_environment() | {"PYTHONPATH": str(ROOT)}),
        aiohttp.ClientSession() as web,
    ):

        async def answers() -> bool:
            headers = {"Accept": "application/json, text/event-stream", "Host": f"demo:{port}"}
            try:
                async with web.post(f"http://127.0.0.1:{port}/mcp", json=INITIALIZE, headers=headers) as answer:
                    return answer.status == 200 and '"demo"' in await answer.text()
            except aiohttp.ClientError:
                return False

        await eventually(answers, 20, what="the demo answers initialize")


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


# Processes


def clean_environment() -> dict[str, str]:
    """The machine's, without settings of ours and without the environment that the tests run in."""
    ours = (*CLEAN, "PYTHON", "VIRTUAL_ENV", "UV_PROJECT", "UV_PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@asynccontextmanager
async def running(
    command: list[str], directory: Path, env: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process, while inside; terminated after."""
    with (directory / "stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.communicate(), 20)
        except TimeoutError:
            process.kill()
            await process.communicate()
            raise
