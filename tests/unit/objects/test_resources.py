"""Every built-in kind's module says all that has to be said of a kind, and what it says fits together."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

import pytest

from isoplane.objects import resources
from isoplane.objects.columns.printer import AGE, PLAIN
from isoplane.objects.defaults import apply_defaults
from isoplane.objects.kinds import BUILT_IN, EVENTS, NODES, Resource
from isoplane.objects.resource import READ_VERBS, STANDARD_VERBS
from isoplane.objects.schema.sources import read_definitions
from isoplane.objects.schema.structure import Node
from isoplane.objects.tables import table

MODULES = {
    module.name: import_module(f"{resources.__name__}.{module.name}")
    for module in pkgutil.iter_modules(resources.__path__)
}
every = pytest.mark.parametrize("resource", BUILT_IN, ids=lambda resource: resource.kind)
WITH_STATUS_OF_THEIR_OWN = (NODES,)
"""Kinds whose author writes their status when they are made: a node registers itself."""


def at(resource: Resource, path: str) -> Node | None:
    node: Node | None = resource.schema.root
    for name in path.split("."):
        node = node.child(name) if node is not None else None
    return node


def test_every_module_describes_the_kind_that_it_is_named_after() -> None:
    assert {resource.singular for resource in BUILT_IN} == set(MODULES)
    for resource in BUILT_IN:
        (described,) = [v for v in vars(MODULES[resource.singular]).values() if isinstance(v, Resource)]
        assert described is resource
        assert (MODULES[resource.singular].__doc__ or "").startswith(f"{resource.kind}: ")


@every
def test_the_schema_is_there_and_described(resource: Resource) -> None:
    root = resource.schema.root
    assert read_definitions()[resource.schema.name].get("description"), "kubectl explain has nothing to say"
    if not resource.announced:
        assert {"apiVersion", "kind", "metadata"} <= set(root.fields)


@every
def test_columns_are_its_own_and_print_an_empty_object(resource: Resource) -> None:
    assert (resource.printer is PLAIN) is resource.announced, "a kind without columns of its own"
    columns = resource.printer.columns
    assert [c for c in columns if c.format == "name"], "no column is the name"
    assert len({c.name for c in columns}) == len(columns)
    assert all(c.description for c in columns)
    assert AGE in columns or resource in (EVENTS, *[r for r in BUILT_IN if r.kind in ("LimitRange", "QuotaUsage")])
    (row,) = table(resource, [{}], now=0.0)["rows"]
    assert len(row["cells"]) == len(columns)


@every
def test_selectable_fields_are_in_the_schema(resource: Resource) -> None:
    assert len({field.path for field in resource.selectable}) == len(resource.selectable)
    for field in resource.selectable:
        node = at(resource, field.at or field.path)
        assert node is not None, field.path
        assert node.form == "scalar", field.path
        boolean = _definition(resource, field.at or field.path).get("type") == "boolean"
        assert (field.absent == "false") is boolean, field.path


def _definition(resource: Resource, path: str) -> dict[str, Any]:
    parent, _, name = path.rpartition(".")
    node = at(resource, parent) if parent else resource.schema.root
    assert node is not None
    found: dict[str, Any] = node.fields[name]
    return found


@every
def test_verbs_and_life_fit_together(resource: Resource) -> None:
    strategy = resource.strategy
    assert resource.verbs == (READ_VERBS if resource.computed else STANDARD_VERBS)
    assert not resource.announced or resource.computed
    if resource.computed:
        assert strategy == type(strategy)(), "nobody writes a computed kind"
        return
    assert strategy.generation or not resource.custom, "custom resources count their changes"
    if "status" in resource.subresources:
        assert (strategy.initial_status is None) is (resource in WITH_STATUS_OF_THEIR_OWN)
        assert at(resource, "status") is not None
    else:
        assert strategy.initial_status is None
    for path in (strategy.node, strategy.own_finalizers):
        assert path is None or at(resource, ".".join(path)) is not None


@every
def test_subresources_say_what_they_take(resource: Resource) -> None:
    for name, sub in resource.subresources.items():
        assert sub.verbs, name
        assert (sub.group is None) is (not sub.version), name
        if name == "status":
            assert (sub.kind, sub.verbs) == (resource.kind, ("get", "patch", "update"))
    assert not resource.action_group or len(resource.subresources) > 1


@every
def test_defaults_and_rules_take_whatever_comes(resource: Resource) -> None:
    for obj in (
        {},
        {"metadata": None, "spec": None},
        {"metadata": [], "spec": 3, "status": "x", "data": 1, "type": None},
    ):
        apply_defaults(resource, dict(obj))


def test_names_are_taken_once() -> None:
    taken: dict[str, str] = {}
    for resource in BUILT_IN:
        for name in {resource.plural, resource.singular, *resource.short_names}:
            assert taken.setdefault(name, resource.kind) == resource.kind, name
