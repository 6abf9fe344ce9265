"""What is installed for the tests comes from the public registries, in the versions and with the digests written down."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.harness import ROOT

LOCKS = sorted((ROOT / "tests").glob("*/npm/package-lock.json"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.parent.parent.name)
def test_npm_packages_are_pinned_by_digest_and_by_no_private_registry(lock: Path) -> None:
    packages = {name: package for name, package in json.loads(lock.read_text())["packages"].items() if name}
    assert packages
    assert [name for name, package in packages.items() if not package.get("integrity")] == []
    origins = {package["resolved"] for package in packages.values() if "resolved" in package}
    assert [origin for origin in origins if not origin.startswith("https://registry.npmjs.org/")] == []


@pytest.mark.parametrize("name", ["tests/clients/npm", "tests/servers/npm"])
def test_npm_manifests_name_exact_versions(name: str) -> None:
    wanted = json.loads((ROOT / name / "package.json").read_text())["dependencies"]
    assert wanted
    assert [version for version in wanted.values() if not re.fullmatch(r"\d+\.\d+\.\d+(-[\w.]+)?", version)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*/requirements-*.txt")), ids=lambda path: path.name)
def test_python_packages_are_pinned_and_no_index_is_named(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [line for line in lines if not re.match(r"[\w.-]+==[\w.]+|    --hash=sha256:[0-9a-f]{64}", line)] == []
    assert "://" not in path.read_text()
