"""Nothing outside the two adapters asks for the kind: what differs between a Pod and a VMI is said once.

Found are comparisons, matches and tables that mention one of the two kinds or their runtimes.  Each file that may has its
reason here; a new one needs a better reason than that the shape is missing a field.
"""

from __future__ import annotations

import ast

import pytest
from tree_support import modules

WORDS = {"Pod", "VirtualMachineInstance", "pods", "virtualmachineinstances", "pod", "vmi", "oci", "qemu"}
NAMES = {"PODS", "VIRTUALMACHINEINSTANCES", "TAP", "VETH"}
"""A type of interface is a kind in disguise: who wants to know something asks for that."""

ALLOWED = {
    "workload/pod.py": "the adapter of Pods",
    "workload/vmi.py": "the adapter of VMIs",
    "workload/bodies.py": "KubeVirt's launcher Pods and the machines whose bodies they are",
    "workload/shape.py": "what each type of interface is, as properties",
    "objects/": "the API: what each kind is, its schema, defaults, validation, columns",
    "policy/example.py": "the offline model's own example",
    "cli/policy": "names endpoints as people write them",
    "cli/quota.py": "reads manifests of every kind; a VM stands for the instance that it would make",
    "cli/scenes/": "the demonstrations count what their own manifests declare",
    "quota/charge.py": "`pods` is the name of a quota's resource, of which every kind takes one",
    "workload/limits.py": "`Pod` is a type of limit in a LimitRange; the adapters call the kinds' own halves",
    "server/actions.py": "the API's table of action subresources: pods/eviction, virtualmachineinstances/pause, …",
    "server/launcher": "the launcher pod that clients expect behind a VMI, and what may be done to it",
    "server/endpoints/logs.py": "the containers of that launcher pod",
    "node/images/sources.py": "`oci` is an image layout, not a runtime",
}


def mentioned(node: ast.AST) -> str | None:
    """The first mention of a kind inside an expression."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in NAMES:
            return part.id
        if isinstance(part, ast.Attribute) and part.attr in NAMES:
            return part.attr
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value in WORDS:
            return part.value
    return None


def questions(tree: ast.Module) -> list[tuple[int, str]]:
    """Where a module decides by the kind: (line, what it mentions)."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        said: str | None = None
        if isinstance(node, ast.Compare):
            said = mentioned(node)
        elif isinstance(node, ast.MatchValue):
            said = mentioned(node.value)
        elif isinstance(node, ast.Dict):
            keys = [key for key in node.keys if isinstance(key, ast.Name | ast.Attribute | ast.Tuple)]
            said = next((m for key in keys if (m := mentioned(key))), None)
        if said is not None:
            found.append((getattr(node, "lineno", 0), said))
    return found


def test_nothing_else_asks_for_the_kind() -> None:
    asking = [
        f"src/isoplane/{path}:{line}: asks for {what!r}"
        for path, tree in modules()
        if not path.startswith(tuple(ALLOWED))
        for line, what in questions(tree)
    ]
    assert not asking, "\n".join(asking)


@pytest.mark.parametrize("path", [path for path in ALLOWED if not path.startswith("workload/")])
def test_every_exception_is_still_needed(path: str) -> None:
    assert any(questions(tree) for name, tree in modules() if name.startswith(path)), f"{path} asks no more: drop it"


@pytest.mark.parametrize(
    "code",
    [
        'if obj["kind"] == "Pod": pass',
        "if resource is PODS: pass",
        "if resource in (PODS, kinds.VIRTUALMACHINEINSTANCES): pass",
        'match kind:\n    case "VirtualMachineInstance": pass',
        "grace = {PODS: 30, VIRTUALMACHINEINSTANCES: 60}[resource]",
        "if workload.interface is InterfaceType.TAP: pass",
        'x = 1 if workload.runtime == "qemu" else 2',
    ],
)
def test_the_search_finds_what_it_is_for(code: str) -> None:
    assert questions(ast.parse(code))
