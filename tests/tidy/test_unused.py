"""Names of the package that nothing uses: what only a definition and its tests know is no part of the product.

A name counts as used where it is read, anywhere in src, tools or bench; two things of one name cover for each other, so
this finds too little rather than too much.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

import pytest
from tree_support import ROOT, files, modules

ALLOWED = {
    "objects/validation.py: unknown_fields": "what the tests of schemas ask",
    "node/network/verify/lab.py: with_addresses": "the lab is the tests' and `policy verify`'s: a workload that comes late",
    "node/network/verify/guest.py: plugged": "likewise: what a failed test tells of its guest",
    "node/runtime/oci/projects.py: limit_of": "tests read back from the kernel what was set",
    "cli/terminal.py: format_commands": "the command line's library calls it",
    "workload/fields/machine.py: MAKER_HONOURED": "every leaf of the schemas stands in a table: tests walk them",
    "operator/ledger.py: retracted": "decided here and replayed by tests; the shell that carries it out is being written",
}
_COMMAND = re.compile(r"app\.(command|callback)")
_WORD = re.compile(r"\w+")


def defined(tree: ast.Module) -> Iterator[str]:
    """Functions, classes and names that a module or a class body sets; not what a framework or an enumeration reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not any(
            _COMMAND.search(ast.unparse(decorator)) for decorator in node.decorator_list
        ):
            yield node.name
        if isinstance(node, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in node.bases):
            continue
        for statement in node.body if isinstance(node, ast.Module | ast.ClassDef) else ():
            targets = statement.targets if isinstance(statement, ast.Assign) else ()
            if isinstance(statement, ast.AnnAssign):
                targets = (statement.target,)
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def used(tree: ast.Module) -> Iterator[str]:
    """Names that are read, imported, or written as text (fields by name, tables of names)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _WORD.fullmatch(node.value):
            yield node.value


def unused(package: Iterable[tuple[str, ast.Module]], others: Iterable[ast.Module] = ()) -> list[str]:
    package = list(package)
    uses = Counter(name for tree in (*(tree for _, tree in package), *others) for name in used(tree))
    return sorted(
        f"{path}: {name}"
        for path, tree in package
        for name in dict.fromkeys(defined(tree))
        if not uses[name] and not (name.startswith("__") and name.endswith("__"))
    )


@cache
def found() -> tuple[str, ...]:
    others = [path for path in files(".py") if path.parts[0] in ("tools", "bench")]
    return tuple(unused(modules(), (ast.parse((ROOT / path).read_text()) for path in others)))


def test_nothing_is_there_that_nothing_uses() -> None:
    assert [name for name in found() if name not in ALLOWED] == []


@pytest.mark.parametrize("name", ALLOWED)
def test_every_exception_is_still_needed(name: str) -> None:
    assert name in found(), f"{name} is used, or gone: drop it from the list"


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("def f(): pass", ["f"]),
        ("def f(): pass\nf()", []),
        ("class C:\n    x: int = 0\n    def m(self): pass", ["C", "m", "x"]),
        ("class C(StrEnum):\n    X = 'x'\nC", []),
        ("LIMIT = 3", ["LIMIT"]),
        ("LIMIT = 3\nprint(LIMIT)", []),
        ("@app.command()\ndef f(): pass", []),
        ("class C:\n    x: int\ngetattr(C, 'x')", []),
    ],
)
def test_the_search_finds_what_it_is_for(code: str, names: list[str]) -> None:
    assert unused([("m.py", ast.parse(code))]) == [f"m.py: {name}" for name in names]
