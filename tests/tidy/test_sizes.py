"""One concept a file, a function fits a screen. A ratchet: what is longer today is listed, and may only shrink."""

from __future__ import annotations

import ast
from pathlib import Path

from tree_support import ROOT, files, modules

FILE_LINES = 450
FUNCTION_LINES = 90
LONGER: dict[str, int] = {}
"""Path → lines, for sources over the limit."""
LONGER_FUNCTIONS: dict[str, int] = {}
"""``path:function`` → lines, for functions over the limit."""


def lengths() -> dict[str, int]:
    sources = [path for path in files(".py") if path.parts[0] == "src"]
    return {path.as_posix(): len((ROOT / path).read_text().splitlines()) for path in sources}


def test_no_file_is_too_long() -> None:
    over = {path: lines for path, lines in lengths().items() if lines > LONGER.get(path, FILE_LINES)}
    assert not over, f"split by concept: {over}"


def test_the_list_of_long_files_only_shrinks() -> None:
    found = lengths()
    stale = {path: lines for path, lines in LONGER.items() if found.get(path, 0) < lines}
    assert not stale, f"shorter than listed; lower or drop the entry: {stale}"


def test_functions_fit_a_screen_or_so() -> None:
    over = {}
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                name = f"{path}:{node.name}"
                if lines > LONGER_FUNCTIONS.get(name, FUNCTION_LINES):
                    over[name] = lines
    assert not over, f"split: {over}"


def test_every_module_says_what_it_is() -> None:
    silent = [path for path, tree in modules() if tree.body and ast.get_docstring(tree) is None]
    assert not silent, f"a module docstring says what it is and what it leaves to others: {silent}"


def test_test_files_have_names_of_their_own() -> None:
    """Test directories are no packages, so two files of one name would be one module."""
    seen: dict[str, Path] = {}
    for path in files(".py"):
        if path.parts[0] == "tests" and path.name != "conftest.py":
            assert path.name not in seen, f"{path} and {seen[path.name]} share a name"
            seen[path.name] = path
