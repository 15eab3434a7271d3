"""`make setup` is reproducible: everything is pinned with its hash, and a second run finds nothing to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from tree_support import ROOT

RUNTIME, DEV = ROOT / "requirements" / "runtime.txt", ROOT / "requirements" / "dev.txt"
PACKAGES = ROOT / "tools" / "debian-packages.txt"


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", path.read_text(), re.MULTILINE))


def canonical(requirement: str) -> str:
    return re.split(r"[<>=!~\[ ;]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


@pytest.mark.parametrize("path", [RUNTIME, DEV], ids=lambda path: path.name)
def test_every_requirement_has_its_hashes(path: Path) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", path.read_text())
    bare = [entry.split("==")[0] for entry in entries if "==" in entry and "--hash=sha256:" not in entry]
    assert not bare
    assert "://" not in path.read_text(), "an address in a lock file works for nobody else"


def test_the_locks_agree_and_hold_what_the_project_asks_for() -> None:
    runtime, dev = pins(RUNTIME), pins(DEV)
    assert {name: dev.get(name) for name in runtime} == runtime
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {canonical(name) for name in project["dependencies"]} <= {canonical(name) for name in runtime}
    wanted = project["optional-dependencies"]["dev"]
    assert {canonical(name) for name in wanted} <= {canonical(name) for name in dev}, "run `make lock`"


def test_debian_packages_are_listed_once_with_a_file_and_a_reason() -> None:
    rows = [line.split(None, 2) for line in PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    assert all(len(row) == 3 and row[1].startswith("/") for row in rows)
    names = [row[0] for row in rows]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("script", ["tools/setup.sh", "tools/lock.sh", "tools/kubectl.sh", ".ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_a_second_setup_finds_nothing_to_do() -> None:
    stamp = ROOT / ".venv" / ".isoplane-setup"
    if not stamp.exists():
        pytest.skip("this virtual environment was not made by `make setup`")
    if os.geteuid() == 0 and shutil.which("apt-get") is None:
        pytest.skip("no apt-get here: what is missing is told at every run")
    stamp.read_bytes()  # the first reading alone is noted by the file system
    before = stamp.stat()
    run = subprocess.run([ROOT / "tools" / "setup.sh"], capture_output=True, text=True, check=True)
    assert "installing" not in run.stdout
    assert stamp.stat() == before


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), f"make {target} says nothing about itself"


def test_kubectls_are_found_newest_first() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH")
    listed = subprocess.run([ROOT / "tools" / "kubectl.sh"], capture_output=True, text=True, check=True).stdout
    minors = [int(line.split()[0]) for line in listed.splitlines()]
    assert minors == sorted(minors, reverse=True)
    assert all(Path(line.split(None, 1)[1]).exists() for line in listed.splitlines())
