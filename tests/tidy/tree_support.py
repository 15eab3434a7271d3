"""Where things are, for the tidy tests: what git tracks or would, so that caches and virtual environments never count."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "isoplane"


@cache
def files(*suffixes: str) -> tuple[Path, ...]:
    """Every file of the repository with one of the suffixes (all, when none is given), relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0:
        names = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    else:  # an unpacked archive
        skipped = {".venv", ".git", ".cache", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
        names = [p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file() and not skipped & set(p.parts)]
    return tuple(sorted(p for p in names if (ROOT / p).is_file() and (not suffixes or p.suffix in suffixes)))


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """Every module of the package: (path inside it, its syntax tree)."""
    found = [ROOT / path for path in files(".py") if path.parts[:2] == ("src", "isoplane")]
    return tuple((path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text())) for path in found)
