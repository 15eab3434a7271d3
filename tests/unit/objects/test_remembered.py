"""What was found for a spec before is found again, costs little memory, and never changes an answer."""

from __future__ import annotations

import copy
import sys
from typing import Any

from isoplane.objects.defaults import apply_defaults
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES
from isoplane.objects.metadata import Object
from isoplane.objects.patch import apply_config, record_update
from isoplane.objects.patch.compare import compare
from isoplane.objects.patch.fields import of_new, whole
from isoplane.objects.remembered import LARGEST, Remembered
from isoplane.objects.validation import validate

NOW = "2026-01-01T00:00:00Z"


def pod(name: str, variable: str = "value", **spec: Any) -> Object:
    env = [{"name": f"VARIABLE-{at}", "value": variable} for at in range(20)]
    container = {"name": "the-app", "image": "example/app:1", "env": env, "ports": [{"containerPort": 80}]}
    meta = {"name": name, "namespace": "default", "labels": {"app": name}}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **spec}}
    apply_defaults(PODS, made)
    return made


def test_a_value_is_remembered_when_it_comes_for_the_second_time() -> None:
    memory: Remembered[str] = Remembered()
    key = Remembered.key("a", {"x": 1})
    for kept in (0, 1, 1):
        memory.put(key, "found")
        assert len(memory) == kept
    assert memory.get(key) == "found"
    assert memory.get(Remembered.key("b", {"x": 1})) is None
    for other in (True, 1.0, "1", None):
        assert memory.get(Remembered.key("a", {"x": other})) is None


def test_what_is_used_least_goes_and_large_values_never_come() -> None:
    memory: Remembered[int] = Remembered(budget=1000)
    keys = [Remembered.key("a", f"{at:098}") for at in range(15)]
    for at, key in enumerate(keys):
        for _ in range(2):
            memory.put(key, at)
        assert memory.get(keys[0]) == 0
    assert len(memory) == 10
    assert [at for at, key in enumerate(keys) if memory.get(key) is not None] == [0, *range(6, 15)]
    large = Remembered.key("a", "x" * LARGEST)
    for key in (large, Remembered.key("a", 2**70), Remembered.key("a", {1: 2})):
        for _ in range(3):
            memory.put(key, 1)
        assert memory.get(key) is None
    assert len(memory) == 10


def test_what_was_found_ahead_for_a_large_value_is_taken_once() -> None:
    memory: Remembered[int] = Remembered()
    keys = [Remembered.key("a", "x" * LARGEST + str(at)) for at in range(20)]
    for at, key in enumerate(keys):
        memory.ahead(key, at)
    assert [memory.get(key) for key in keys] == [None] * 12 + list(range(12, 20))
    assert [memory.get(key) for key in keys] == [None] * 20
    small = Remembered.key("a", "x")
    memory.ahead(small, 1)
    assert memory.get(small) is None


def test_objects_of_one_template_share_the_set_of_their_spec() -> None:
    sets = [of_new(pod(f"p{at}"), PODS.schema.root) for at in range(4)]
    assert all(found == compare({}, pod(f"p{at}"), PODS.schema.root)[0] for at, found in enumerate(sets))
    assert sets[2]["f:spec"] is sets[3]["f:spec"]
    other = of_new(pod("q", "value", hostname="other"), PODS.schema.root)
    assert "f:hostname" in other["f:spec"]


def test_a_shared_set_is_never_changed() -> None:
    for at in range(3):
        shared = of_new(pod(f"p{at}"), PODS.schema.root)["f:spec"]
    before = copy.deepcopy(shared)
    live = pod("live")
    record_update(PODS, None, live, manager="maker", now=NOW)
    changed = copy.deepcopy(live)
    changed["spec"]["containers"][0]["env"].pop()
    changed["spec"]["hostname"] = "h"
    record_update(PODS, live, changed, manager="maker", now=NOW)
    config = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "live"}, "spec": {"hostname": "other"}}
    apply_config(PODS, changed, config, manager="applier", force=True, now=NOW)
    assert shared == before == whole(pod("live")["spec"], PODS.schema.root.child("spec"))


def test_a_fault_is_told_each_time_and_whatever_else_the_object_holds() -> None:
    for _ in range(4):
        assert validate(PODS, pod("good")) == []
        assert [cause.field for cause in validate(PODS, pod("good", dnsPolicy="bad"))] == ["spec.dnsPolicy"]
        bad = pod("good")
        bad["metadata"]["labels"] = {"a b": "c"}
        assert [cause.field for cause in validate(PODS, bad)] == ["metadata.labels"]
    machines = VIRTUALMACHINEINSTANCES
    for _ in range(3):  # the same spec under another kind is another question
        assert validate(machines, {**pod("good"), "apiVersion": "kubevirt.io/v1", "kind": machines.kind})


def steps(obj: Object) -> int:
    count = 0

    def each(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(each)
    try:
        record_update(PODS, None, obj, manager="test", now=NOW)
        assert validate(PODS, obj) == []
    finally:
        sys.setprofile(None)
    return count


def test_the_third_pod_of_a_template_takes_a_fraction_of_the_steps_of_the_first() -> None:
    first, _, third = (steps(pod(f"s{at}", "of a template of its own")) for at in range(3))
    assert third < first / 4
