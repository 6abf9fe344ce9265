"""The steps of each image's build, carried out in a directory: they install a program that works.

No container engine is needed. What stands in the files is looked at in `unit.test_deployment`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT, free_port
from tests.unit.test_deployment import (
    DOCKERFILES,
    INSTALLED,
    clean_environment,
    environment,
    health_check,
    left_out,
    running,
    stages,
)

pytestmark = [pytest.mark.anyio, pytest.mark.live]


@pytest.mark.parametrize("name", DOCKERFILES)
async def test_the_steps_of_an_image_install_a_program_whose_printed_curl_works(name: str, tmp_path: Path) -> None:
    installed = await asyncio.to_thread(carry_out, name, tmp_path)
    port = free_port()
    env = clean_environment() | {"PORT": str(port), "PATH": f"{installed}/bin{os.pathsep}{os.environ['PATH']}"}
    work = tmp_path / "work"
    work.mkdir()

    async with running([f"{installed}/bin/mcp-proxy-api", "serve"], work, env) as process:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        assert line.startswith("curl ")
        answer = json.loads(await asyncio.to_thread(output_of, ["sh", "-c", line], work, env))
        check = health_check(name)
        await asyncio.to_thread(output_of, check, work, env)

    assert answer["structuredContent"] == {"result": 5}
    where = output_of(["python", "-c", "import mcp_proxy; print(mcp_proxy.__file__)"], work, env)
    assert Path(where.strip()).is_relative_to(installed)
    assert not list(installed.glob("lib/python*/site-packages/pytest")), "an image holds what serving needs, no more"


def carry_out(name: str, directory: Path) -> Path:
    """Do what the build stage does, with directories of ours for the image's. Returns where the program is."""
    build, installed, bootstrap = directory / "build", directory / "installed", directory / "bootstrap"
    build.mkdir()
    subprocess.run([sys.executable, "-m", "venv", bootstrap], check=True, timeout=120)
    env = clean_environment() | {"PATH": f"{bootstrap}/bin{os.pathsep}{os.environ['PATH']}"}
    for step in stages(name)[0]:
        if step.word == "ENV":
            env |= {key: value.replace(INSTALLED, str(installed)) for key, value in environment([step]).items()}
        elif step.word == "COPY":
            *sources, _ = step.rest.split()
            for source in sources:
                copy_into(build, source)
        elif step.word == "RUN":
            output_of(["sh", "-c", step.rest.replace(INSTALLED, str(installed))], build, env, timeout=600)
    return installed


def copy_into(build: Path, source: str) -> None:
    """COPY, as far as .dockerignore lets it."""

    def ignored(directory: str, names: list[str]) -> set[str]:
        return {name for name in names if left_out((Path(directory) / name).relative_to(ROOT).as_posix())}

    if (ROOT / source).is_dir():
        shutil.copytree(ROOT / source, build / source, ignore=ignored)
    else:
        shutil.copy2(ROOT / source, build / source)


def output_of(command: list[str], directory: Path, env: dict[str, str], timeout: float = 60) -> str:
    """What a command prints; its complaints are the failure's text."""
    done = subprocess.run(command, cwd=directory, env=env, timeout=timeout, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
