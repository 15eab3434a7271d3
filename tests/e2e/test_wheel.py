"""The built wheel in an empty environment, used from another directory: what a checkout has must be in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from support import HOST_TOOLS, require

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


def run(*command: object, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """In an environment that leads back to no checkout."""
    environment = {**os.environ, "TMPDIR": str(cwd)}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for a build leaves its own files behind."""
    pytest.importorskip("setuptools")
    place = tmp_path_factory.mktemp("wheel")
    copy = place / "source"
    shutil.copytree(
        ROOT / "src", copy / "src", symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
    )
    shutil.copytree(ROOT / "examples", copy / "examples")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    built = run(*PIP, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", place, copy, cwd=place)
    assert built.returncode == 0, built.stderr
    (path,) = place.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``isoplane`` command of a fresh environment that has the wheel, and this one's packages behind it."""
    place = tmp_path_factory.mktemp("environment")
    assert run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place).returncode == 0
    python = place / "venv" / "bin" / "python"
    done = run(*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=place)
    assert done.returncode == 0, done.stderr
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    # A line of a .pth adds a directory but reads no .pth in it: the editable install of this checkout stays unseen.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    where = run(python, "-c", "import isoplane; print(isoplane.__file__)", cwd=place)
    assert where.stdout.startswith(str(place)), where.stdout + where.stderr
    return place / "venv" / "bin" / "isoplane"


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    source = ROOT / "src"
    wanted = {path.relative_to(source).as_posix() for path in (source / "isoplane").rglob("*") if path.is_file()}
    wanted |= {
        f"isoplane/examples/{path.relative_to(ROOT / 'examples')}" for path in (ROOT / "examples").rglob("*.yaml")
    }
    assert {name for name in wanted if "__pycache__" not in name} <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("name", ["pod-and-vm", "quota", "network"])
def test_the_demos_run_from_another_directory(installed: Path, name: str, tmp_path: Path) -> None:
    done = run(installed, "demo", name, "--runtime", "simulated", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done" in done.stdout or "Simulated workloads send no packets" in done.stdout


@pytest.mark.root
@pytest.mark.xdist_group("host")
def test_policy_verify_finds_its_example(installed: Path, tmp_path: Path) -> None:
    require(*HOST_TOOLS, root=True)
    done = run(installed, "policy", "verify", "--engines", "nftables", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
