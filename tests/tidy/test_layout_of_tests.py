"""Where tests lie: unit tests beside the package they are about, helpers under one rule and listed, no import of what is gone."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from tree_support import ROOT

TESTS = ROOT / "tests"
PACKAGE = ROOT / "src" / "isoplane"
FILES = sorted(path for path in TESTS.rglob("*.py") if "golden" not in path.parts and "cases" not in path.parts)
HELPERS = [path for path in FILES if not path.name.startswith("test_") and path.name != "conftest.py"]


def test_unit_tests_lie_where_their_package_does() -> None:
    for path in (TESTS / "unit").rglob("test_*.py"):
        place = path.parent.relative_to(TESTS / "unit")
        assert (PACKAGE / place / "__init__.py").is_file() or place == Path(), f"{path}: there is no package {place}"
    root = {path.name for path in (TESTS / "unit").glob("test_*.py")}
    modules = {f"test_{path.name}" for path in PACKAGE.glob("*.py")}
    assert root <= modules, f"{sorted(root - modules)}: of a module of the package itself alone; others have a folder"


@pytest.mark.parametrize("path", HELPERS, ids=lambda path: path.name)
def test_helpers_are_named_by_one_rule_and_listed(path: Path) -> None:
    assert path.name == "support.py" or path.name.endswith("_support.py"), "a helper of tests is named …_support.py"
    if path.parent == TESTS:
        listed = (ROOT / "CONTRIBUTING.md").read_text()
        assert f"`{path.stem}`" in listed, f"{path.stem} is missing in CONTRIBUTING.md's list of helpers"


def test_names_of_test_files_are_unique() -> None:
    names = [path.stem for path in FILES if path.name != "conftest.py"]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})


def test_nothing_is_imported_that_is_not_there() -> None:
    """A helper that was renamed is found here, and not by whoever runs everything."""
    ours = {path.stem for path in FILES}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - ours - set(sys.stdlib_module_names):
                known = importlib.util.find_spec(name) is not None and not re.fullmatch(r"tests|unit", name)
                assert known, f"{path.relative_to(ROOT)} imports {name}: is it {name}_support by now?"
