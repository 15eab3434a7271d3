"""LimitRanges without a server: what is filled in, what is refused and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.workload.limits import fill_in, pod_violations, refusal, vmi_violations


def ranges(*items: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "limits", "namespace": "a"}, "spec": {"limits": list(items)}}


def container(name: str = "main", requests: Any = None, limits: Any = None, **more: Any) -> dict[str, Any]:
    resources = {k: v for k, v in (("requests", requests), ("limits", limits)) if v}
    return {"name": name, "image": "busybox", **({"resources": resources} if resources else {}), **more}


DEFAULTS = ranges({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}})


def test_defaults_fill_only_what_is_open() -> None:
    given = {"containers": [container(limits={"cpu": "2"})], "initContainers": [container("init")]}
    spec, told = fill_in(given, [DEFAULTS])
    assert spec["containers"][0]["resources"] == {"requests": {"cpu": "100m"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    assert spec["initContainers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    assert told == [
        "cpu request for container main",
        "memory limit for container main",
        "cpu request for init container init",
        "cpu, memory limit for init container init",
    ]
    assert given["containers"][0] == container(limits={"cpu": "2"})


def test_filling_in_twice_changes_nothing() -> None:
    once, _ = fill_in({"containers": [container()]}, [DEFAULTS])
    assert fill_in(once, [DEFAULTS]) == (once, [])
    assert fill_in({"containers": [container()]}, [ranges({"type": "Pod", "max": {"cpu": "1"}})])[1] == []


@pytest.mark.parametrize(
    ("item", "requests", "limits", "expected"),
    [
        ({"min": {"cpu": "200m"}}, {}, {}, "minimum cpu usage per Container is 200m.  No request is specified"),
        ({"min": {"cpu": "200m"}}, {"cpu": "0.1"}, {}, "minimum cpu usage per Container is 200m, but request is 0.1"),
        ({"max": {"memory": "1Gi"}}, {}, {}, "maximum memory usage per Container is 1Gi.  No limit is specified"),
        (
            {"max": {"memory": "1Gi"}},
            {"memory": "1Gi"},
            {"memory": "1025Mi"},
            "maximum memory usage per Container is 1Gi, but limit is 1025Mi",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"cpu": "1"},
            {"cpu": "3"},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {},
            {"cpu": "3"},
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
        ),
        ({"min": {"cpu": "1"}, "max": {"cpu": "1"}}, {"cpu": "1000m"}, {"cpu": "1"}, None),
        ({"maxLimitRequestRatio": {"cpu": "2"}}, {"cpu": "1"}, {"cpu": "2"}, None),
    ],
)
@pytest.mark.parametrize("where", ["containers", "initContainers"])
def test_bounds_of_containers(where: str, item: Any, requests: Any, limits: Any, expected: str | None) -> None:
    spec = {where: [container(requests=requests, limits=limits)]}
    assert pod_violations(spec, ranges({"type": "Container", **item})) == ([expected] if expected else [])


def test_a_pod_is_the_sum_of_its_containers_without_overhead() -> None:
    both = [container(n, {"memory": "600Mi"}, {"memory": "600Mi"}) for n in ("a", "b")]
    at_most = ranges({"type": "Pod", "max": {"memory": "1Gi"}})
    said = ["maximum memory usage per Pod is 1Gi, but limit is 1200Mi"]
    assert pod_violations({"containers": both}, at_most) == said
    assert pod_violations({"containers": both[:1], "overhead": {"memory": "1Gi"}}, at_most) == []
    hungry = container("init", {"memory": "2Gi"}, {"memory": "2Gi"})
    said = ["maximum memory usage per Pod is 1Gi, but limit is 2Gi"]
    assert pod_violations({"containers": both[:1], "initContainers": [hungry]}, at_most) == said


def test_several_violations_are_listed_once_each() -> None:
    twins = {"containers": [container("a"), container("b")]}
    found = pod_violations(twins, ranges({"type": "Container", "max": {"cpu": "1", "memory": "1Gi"}}))
    assert refusal(found) == (
        "[maximum cpu usage per Container is 1.  No limit is specified, "
        "maximum memory usage per Container is 1Gi.  No limit is specified]"
    )
    assert refusal(found[:1]) == found[0]


def machine(cores: int = 2, memory: str = "1Gi", **resources: Any) -> dict[str, Any]:
    return {"domain": {"cpu": {"cores": cores}, "memory": {"guest": memory}, "resources": resources, "devices": {}}}


def test_a_machine_is_held_against_what_it_can_take() -> None:
    cpu = ranges({"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "1"}})
    assert vmi_violations(machine(), cpu) == ["maximum cpu usage per Container is 1, but limit is 2"]
    assert vmi_violations(machine(limits={"cpu": "1"}), cpu) == []
    assert vmi_violations(machine(cores=1), cpu) == []
    [memory] = vmi_violations(machine(), ranges({"type": "Pod", "max": {"memory": "1Gi"}}))
    assert memory.startswith("maximum memory usage per Pod is 1Gi, but limit is ")
    assert vmi_violations(machine(), ranges({"type": "Pod", "max": {"memory": "2Gi"}})) == []
    assert vmi_violations(machine(memory="64Mi"), ranges({"type": "Pod", "min": {"memory": "4Gi"}}))


def test_ratios_and_what_machines_do_not_count_are_no_matter() -> None:
    odd = {"type": "Container", "maxLimitRequestRatio": {"cpu": "1"}, "max": {"ephemeral-storage": "1Gi"}}
    assert vmi_violations(machine(), ranges(odd)) == []
