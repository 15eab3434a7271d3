"""The root of the repository is the first thing a newcomer sees: each file there is one that belongs there."""

from __future__ import annotations

from tree_support import files

ROOT_FILES = {
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "README.zh-CN.md",
    "SPECIFICATION.md",
    "pyproject.toml",
}
ROOT_FOLDERS = {".ci", "bench", "deploy", "docs", "examples", "requirements", "src", "tests", "tools"}


def test_the_root_holds_only_what_belongs_there() -> None:
    stray = {path.as_posix() for path in files() if len(path.parts) == 1} - ROOT_FILES
    assert not stray, f"not a file of the root: {sorted(stray)}; move it, or list it in this test with a reason"


def test_the_root_has_only_known_folders() -> None:
    stray = {path.parts[0] for path in files() if len(path.parts) > 1} - ROOT_FOLDERS
    assert not stray, f"not a folder of the root: {sorted(stray)}; move it, or list it in this test with a reason"
