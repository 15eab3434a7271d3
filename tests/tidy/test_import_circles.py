"""No module needs itself: not through others, not later inside a function, not for its types alone.

Whatever stands in a circle cannot be read, tested or moved alone.  Import layers (``make layers``) speak of packages; this speaks
of modules, within a package too.  A submodule does not need its package: it could not be imported otherwise.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set

from tree_support import modules


def names() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path, tree in modules():
        parts = ["isoplane", *path.removesuffix(".py").split("/")]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = tree
    return found


def imported(tree: ast.Module, known: Set[str]) -> Iterator[str]:
    """The modules of ours that ``tree`` imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                if below in known:
                    yield below
                elif node.module in known:
                    yield str(node.module)


def circles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node, or of one that needs itself (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in graph[node]:
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            members = [stack.pop()]
            while members[-1] != node:
                members.append(stack.pop())
            if len(members) > 1 or node in graph[node]:
                found.append(sorted(members))

    for node in graph:
        if node not in order:
            visit(node)
    return found


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"f"}}
    assert sorted(circles(graph)) == [["a", "b", "c"], ["f"]]


def test_an_import_inside_a_function_counts() -> None:
    tree = ast.parse(
        "import os\ndef f():\n    from p.q import r\n    from p import s\nif TYPE_CHECKING:\n    import p.t"
    )
    assert sorted(imported(tree, {"p", "p.q", "p.s", "p.t"})) == ["p.q", "p.s", "p.t"]


def test_no_module_stands_in_an_import_circle() -> None:
    trees = names()
    graph = {name: set(imported(tree, trees.keys())) for name, tree in trees.items()}
    found = circles(graph)
    assert not found, "move what both sides need into a module of its own: " + "; ".join(" ↔ ".join(c) for c in found)
