"""What is served: found by place and by kind, in one order, and heard of when it changes."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.objects.kinds import BUILT_IN, CONFIGMAPS, PODS, VIRTUALMACHINES, Resource
from isoplane.objects.scheme import Scheme


def custom(plural: str, kind: str, **more: Any) -> Resource:
    gvk = {"group": "example.com", "version": "v1", "kind": kind}
    definition = {
        "type": "object",
        "properties": {"spec": {"type": "object"}},
        "x-kubernetes-group-version-kind": [gvk],
    }
    return Resource(
        "example.com", "v1", plural, kind, custom=True, definitions={f"com.example.v1.{kind}": definition}, **more
    )


def test_built_in_kinds_are_served_core_first() -> None:
    scheme = Scheme()
    assert tuple(scheme) == BUILT_IN
    assert next(iter(scheme.groups)) == ""
    assert scheme.at("", "v1", "pods") is PODS
    assert scheme.kind("kubevirt.io/v1", "VirtualMachine") is VIRTUALMACHINES
    assert scheme.of({"apiVersion": "v1", "kind": "ConfigMap"}) is CONFIGMAPS
    with pytest.raises(LookupError, match='no matches for kind "Deployment" in version "apps/v1"'):
        scheme.of({"apiVersion": "apps/v1", "kind": "Deployment"})
    assert all(not resource.computed for resource in scheme.stored())
    assert {r.kind for r in scheme.actions["subresources.kubevirt.io", "v1"]} == {
        "VirtualMachine",
        "VirtualMachineInstance",
    }


def test_a_kind_comes_goes_and_is_replaced() -> None:
    scheme, told = Scheme((PODS,)), list[tuple[str, bool]]()
    stop = scheme.follow(lambda resource, served: told.append((resource.kind, served)))
    widgets = custom("widgets", "Widget")
    scheme.add(widgets)
    assert [r.kind for r in scheme] == ["Pod", "Widget"]
    renewed = custom("widgets", "Widget", short_names=("wg",))
    scheme.add(renewed)
    assert renewed == widgets
    assert scheme.at("example.com", "v1", "widgets") is renewed
    assert renewed in scheme
    assert widgets not in scheme
    renamed = custom("widgets", "Gadget")
    scheme.add(renamed)
    assert scheme.kind("example.com/v1", "Widget") is None
    scheme.remove(renamed)
    assert scheme.generation == 4
    assert [r.kind for r in scheme] == ["Pod"]
    assert "example.com" not in scheme.groups
    with pytest.raises(LookupError, match="is not served"):
        scheme.remove(renamed)
    stop()
    scheme.add(widgets)
    assert told == [("Pod", True), ("Widget", True), ("Widget", True), ("Gadget", True), ("Gadget", False)]


def test_who_goes_through_it_may_change_it() -> None:
    scheme = Scheme((PODS,))
    for resource in scheme:
        if resource is PODS:
            scheme.add(custom("widgets", "Widget"))
    assert len(tuple(scheme)) == 2


def test_two_schemes_know_nothing_of_each_other() -> None:
    one, other = Scheme(), Scheme()
    one.add(custom("widgets", "Widget"))
    assert other.at("example.com", "v1", "widgets") is None
    assert other.generation == 0
