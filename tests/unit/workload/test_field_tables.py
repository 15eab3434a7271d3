"""Each leaf of the schemas of Pods and machines stands in a table: honoured by a test that exists, warned of, or refused."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.objects.schema.structure import Node
from isoplane.workload.fields import machine, pod
from isoplane.workload.fields.table import Honoured, Rule, Table, expand, steps

TESTS = Path(__file__).parents[2]
KINDS = [
    pytest.param(PODS, pod.HONOURED, (pod.WARNED, pod.REFUSED), id="Pod"),
    pytest.param(
        VIRTUALMACHINEINSTANCES, machine.HONOURED, (machine.WARNED, machine.REFUSED), id="VirtualMachineInstance"
    ),
    pytest.param(
        VIRTUALMACHINES, machine.MAKER_HONOURED, (machine.MAKER_WARNED, machine.MAKER_REFUSED), id="VirtualMachine"
    ),
]


def leaves(node: Node, path: str) -> Iterator[str]:
    """Every path below a node that has nothing below it; items of lists and values of maps are ``[]``."""
    if node.fields:
        for name in node.fields:
            child = node.child(name)
            assert child is not None
            yield from leaves(child, f"{path}.{name}")
    elif node.element is not None:
        yield from leaves(node.element, f"{path}[]")
    else:
        yield path


@cache
def leaves_of(resource: Resource) -> tuple[str, ...]:
    """Of a kind's spec. A VirtualMachine's template is an instance's spec, and its metadata are nobody's field."""
    spec = resource.schema.root.child("spec")
    assert spec is not None
    return tuple(path for path in leaves(spec, "spec") if not path.startswith("spec.template."))


def covers(pattern: str, leaf: str) -> bool:
    return leaf == pattern or leaf.startswith((f"{pattern}.", f"{pattern}["))


def paths(rules: Iterable[Rule]) -> list[str]:
    return [path for rule in rules for path in expand(rule.paths)]


def rules(tables: tuple[Table, ...]) -> list[Rule]:
    return [rule for table in tables for rule in table.rules]


def silent(resource: Resource, honoured: Honoured, tables: tuple[Table, ...]) -> list[str]:
    """Leaves of which some value would be ignored without a word.

    A rule with ``only`` tells of some values, so that somebody must honour the others.  One with ``unless`` tells of all but
    those that ask for what is there anyway.
    """
    named = set(paths_of(honoured))
    told = paths(rule for rule in rules(tables) if not rule.only)
    return [leaf for leaf in leaves_of(resource) if leaf not in named and not any(covers(one, leaf) for one in told)]


def paths_of(honoured: Honoured) -> list[str]:
    return [path for patterns in honoured.values() for path in expand(patterns)]


@pytest.mark.parametrize(("resource", "honoured", "tables"), KINDS)
def test_every_leaf_is_in_a_table(resource: Resource, honoured: Honoured, tables: tuple[Table, ...]) -> None:
    assert silent(resource, honoured, tables) == []


@pytest.mark.parametrize(("resource", "honoured", "tables"), KINDS)
def test_every_entry_is_a_field(resource: Resource, honoured: Honoured, tables: tuple[Table, ...]) -> None:
    """By the schema that writes are checked against: a field that upstream renames must not be forgotten here."""
    known = leaves_of(resource)
    assert [path for path in paths_of(honoured) if path not in known] == []
    assert [path for path in paths(rules(tables)) if not exists(resource, path)] == []


def exists(resource: Resource, path: str) -> bool:
    node: Node | None = resource.schema.root
    for name in steps(path):
        node = None if node is None else node.element if name == "[]" else node.child(name)
    return node is not None


@pytest.mark.parametrize(("resource", "honoured", "tables"), KINDS)
def test_no_field_is_both_honoured_and_told_of(
    resource: Resource, honoured: Honoured, tables: tuple[Table, ...]
) -> None:
    told = paths(rule for rule in rules(tables) if not rule.conditional)
    assert [path for path in paths_of(honoured) if any(covers(one, path) for one in told)] == []


@pytest.mark.parametrize(("resource", "honoured", "tables"), KINDS)
def test_every_named_test_exists(resource: Resource, honoured: Honoured, tables: tuple[Table, ...]) -> None:
    assert [name for name in honoured if name.partition("::")[2] not in functions(name.partition("::")[0])] == []


@cache
def functions(path: str) -> set[str]:
    tree = ast.parse((TESTS / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_checks_can_fail() -> None:
    """A field in no table, one that is told for some values only, one that does not exist, a name that is no test."""
    fewer = {name: patterns for name, patterns in pod.HONOURED.items() if "spec.hostname" not in expand(patterns)}
    assert "spec.hostname" in silent(PODS, fewer, (pod.WARNED, pod.REFUSED))
    assert "spec.os.name" in silent(PODS, {}, (pod.WARNED, pod.REFUSED))
    assert not exists(PODS, "spec.nodeNames")
    assert "test_nothing" not in functions("unit/workload/test_field_tables.py")
    assert len(leaves_of(PODS)) > 800
    assert len(leaves_of(VIRTUALMACHINEINSTANCES)) > 350


@pytest.mark.parametrize(
    ("table", "spec"),
    [
        (pod.REFUSED, {"os": {"name": "linux"}, "hostUsers": True, "shareProcessNamespace": False}),
        (pod.REFUSED, {"containers": [{"securityContext": {"procMount": "Default"}}]}),
        (pod.REFUSED, {"volumes": [{"name": "a", "emptyDir": {"medium": "Memory"}}, {"name": "b", "emptyDir": {}}]}),
        (pod.WARNED, {"securityContext": {"fsGroupChangePolicy": "Always", "supplementalGroupsPolicy": "Merge"}}),
        (machine.REFUSED, {"architecture": "amd64", "domain": {"devices": {"tpm": {"enabled": False}}}}),
        (machine.WARNED, {"domain": {"features": {"acpi": {"enabled": False}, "apic": {"enabled": True}}}}),
        (machine.WARNED, {"domain": {"devices": {"disks": [{"cdrom": {"readonly": True, "tray": "closed"}}]}}}),
        (
            machine.WARNED,
            {
                "domain": {
                    "devices": {
                        "autoattachGraphicsDevice": False,
                        "autoattachSerialConsole": True,
                        "logSerialConsole": True,
                    }
                }
            },
        ),
        (machine.MAKER_WARNED, {"updateVolumesStrategy": "Replacement"}),
    ],
)
def test_values_that_are_fine_are_not_told(table: Table, spec: dict[str, Any]) -> None:
    assert table.found({"spec": spec}) == []


@pytest.mark.parametrize(
    ("table", "spec", "path"),
    [
        (pod.REFUSED, {"os": {"name": "windows"}}, "spec.os.name"),
        (pod.REFUSED, {"hostUsers": False}, "spec.hostUsers"),
        (pod.REFUSED, {"shareProcessNamespace": True}, "spec.shareProcessNamespace"),
        (
            pod.REFUSED,
            {"initContainers": [{"securityContext": {"procMount": "Unmasked"}}]},
            "spec.initContainers[0].securityContext.procMount",
        ),
        (
            pod.REFUSED,
            {"containers": [{}, {"volumeDevices": [{"name": "v", "devicePath": "/d"}]}]},
            "spec.containers[1].volumeDevices",
        ),
        (
            pod.REFUSED,
            {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
            "spec.volumes[0].persistentVolumeClaim",
        ),
        (
            pod.REFUSED,
            {"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages-2Mi"}}]},
            "spec.volumes[0].emptyDir.medium",
        ),
        (
            pod.REFUSED,
            {"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
            "spec.volumes[0].projected.sources[0].serviceAccountToken",
        ),
        (pod.WARNED, {"initContainers": [{"resizePolicy": [{}]}]}, "spec.initContainers[0].resizePolicy"),
        (machine.WARNED, {"domain": {"features": {"apic": {"enabled": False}}}}, "spec.domain.features.apic.enabled"),
        (machine.WARNED, {"domain": {"features": {"hyperv": {"relaxed": {}}}}}, "spec.domain.features.hyperv"),
        (
            machine.WARNED,
            {"domain": {"features": {"pvspinlock": {"enabled": False}}}},
            "spec.domain.features.pvspinlock.enabled",
        ),
        (machine.REFUSED, {"architecture": "arm64"}, "spec.architecture"),
        (machine.REFUSED, {"domain": {"devices": {"tpm": {}}}}, "spec.domain.devices.tpm"),
    ],
)  # fmt: skip
def test_values_that_change_something_are_told(table: Table, spec: dict[str, Any], path: str) -> None:
    assert [where for where, _ in table.found({"spec": spec})] == [path]


def test_an_annotation_is_a_field_too() -> None:
    obj = {"metadata": {"annotations": {machine.HOOKS: "[]", "a": "b"}}, "spec": {}}
    assert [where for where, _ in machine.WARNED.found(obj)] == [f"metadata.annotations[{machine.HOOKS}]"]
