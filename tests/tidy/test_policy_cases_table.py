"""The table of NetworkPolicy's corner cases: every case is in it, and every test that it names exists and is run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tree_support import ROOT, files

PAGE = ROOT / "docs" / "concepts" / "network-policy-cases.md"
ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
NAMED = re.compile(r"`(\w+\.py)::(\w+)`")


def rows() -> dict[int, tuple[str, str]]:
    """Number → (the tests without packets, those with)."""
    return {int(number): (without, with_) for number, _, without, with_ in ROW.findall(PAGE.read_text())}


def functions(path: Path) -> set[str]:
    """Tests, and cases that a test of the same file calls."""
    tree = ast.parse((ROOT / path).read_text())
    made = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {name for name in made if name.startswith("test_") or name in used}


def test_every_case_is_there_in_order() -> None:
    assert list(rows()) == list(range(1, 28))


def test_every_case_has_a_test_and_every_test_exists() -> None:
    known = {path.name: functions(path) for path in files(".py") if path.parts[0] == "tests"}
    for number, cells in rows().items():
        named = [test for cell in cells for test in NAMED.findall(cell)]
        assert named, f"case {number} has no test"
        for cell in cells:
            assert NAMED.sub("", cell).strip(", ") in ("", "-"), f"case {number}: {cell}"
        for file, function in named:
            assert function in known.get(file, set()), f"case {number}: there is no {file}::{function}"
