"""The tables that kubectl prints: the status column above all, and ages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isoplane.objects import kinds, metadata
from isoplane.objects.columns.printer import human_duration
from isoplane.objects.kinds import Resource
from isoplane.objects.tables import table

NOW = 1_800_000_000.0
BORN = metadata.rfc3339(NOW - 90)


def cells(resource: Resource, obj: dict[str, Any], wide: bool = False) -> dict[str, Any]:
    obj = {**obj, "metadata": {"name": "x", "creationTimestamp": BORN, **obj.get("metadata", {})}}
    found = table(resource, [obj], now=NOW)
    pairs = zip(found["columnDefinitions"], found["rows"][0]["cells"], strict=True)
    return {column["name"]: cell for column, cell in pairs if wide or not column["priority"]}


def waiting(reason: str) -> dict[str, Any]:
    return {"name": "a", "state": {"waiting": {"reason": reason}}}


def ended(code: int, reason: str = "", signal: int = 0) -> dict[str, Any]:
    return {"name": "a", "state": {"terminated": {"exitCode": code, "reason": reason, "signal": signal}}}


RUNNING = {"name": "a", "ready": True, "state": {"running": {}}}
NOT_READY = {"name": "a", "ready": False, "state": {"running": {}}}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}

STATUSES: list[tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # status, ready, pod status, more of the spec, more of the metadata
    ("Pending", "0/1", {"phase": "Pending"}, {}, {}),
    ("ContainerCreating", "0/1", {"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]}, {}, {}),
    ("Running", "1/1", {"phase": "Running", "containerStatuses": [RUNNING]}, {}, {}),
    ("Running", "0/1", {"phase": "Running", "containerStatuses": [NOT_READY]}, {}, {}),
    ("CrashLoopBackOff", "0/1", {"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}, {}, {}),
    ("ImagePullBackOff", "0/1", {"phase": "Pending", "containerStatuses": [waiting("ImagePullBackOff")]}, {}, {}),
    ("Completed", "0/1", {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}, {}, {}),
    ("Error", "0/1", {"phase": "Failed", "containerStatuses": [ended(1, "Error")]}, {}, {}),
    ("OOMKilled", "0/1", {"phase": "Failed", "containerStatuses": [ended(137, "OOMKilled")]}, {}, {}),
    ("ExitCode:3", "0/1", {"phase": "Failed", "containerStatuses": [ended(3)]}, {}, {}),
    ("Signal:9", "0/1", {"phase": "Failed", "containerStatuses": [ended(137, signal=9)]}, {}, {}),
    ("Evicted", "0/1", {"phase": "Failed", "reason": "Evicted"}, {}, {}),
    ("Terminating", "1/1", {"phase": "Running", "containerStatuses": [RUNNING]}, {}, {"deletionTimestamp": BORN}),
    ("Completed", "0/1", {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}, {}, {"deletionTimestamp": BORN}),
    ("Unknown", "0/1", {"phase": "Running", "reason": "NodeLost"}, {}, {"deletionTimestamp": BORN}),
    ("SchedulingGated", "0/1",
     {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}, {}, {}),
    ("Init:0/2", "0/1", {"phase": "Pending", "initContainerStatuses": [RUNNING]},
     {"initContainers": [{"name": "a"}, {"name": "b"}]}, {}),
    ("Init:1/2", "0/1", {"phase": "Pending", "initContainerStatuses": [ended(0, "Completed"), waiting("PodInitializing")]},
     {"initContainers": [{"name": "a"}, {"name": "b"}]}, {}),
    ("Init:Error", "0/1", {"phase": "Pending", "initContainerStatuses": [ended(1, "Error")]},
     {"initContainers": [{"name": "a"}]}, {}),
    ("Init:ExitCode:2", "0/1", {"phase": "Pending", "initContainerStatuses": [ended(2)]},
     {"initContainers": [{"name": "a"}]}, {}),
    ("Init:ErrImagePull", "0/1", {"phase": "Pending", "initContainerStatuses": [waiting("ErrImagePull")]},
     {"initContainers": [{"name": "a"}]}, {}),
    ("Running", "2/2",
     {"phase": "Running", "initContainerStatuses": [{**RUNNING, "name": "s", "started": True}], "containerStatuses": [RUNNING]},
     {"initContainers": [{"name": "s", "restartPolicy": "Always"}]}, {}),
    ("Running", "1/2", {"phase": "Running", **READY, "containerStatuses": [ended(0, "Completed"), {**RUNNING, "name": "b"}]},
     {"containers": [{"name": "a"}, {"name": "b"}]}, {}),
    ("NotReady", "1/2", {"phase": "Running", "containerStatuses": [ended(0, "Completed"), {**RUNNING, "name": "b"}]},
     {"containers": [{"name": "a"}, {"name": "b"}]}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "ready", "pod_status", "spec", "meta"), STATUSES)
def test_the_status_of_a_pod(status: str, ready: str, pod_status: Any, spec: Any, meta: Any) -> None:
    pod = {"metadata": meta, "spec": {"containers": [{"name": "a"}], **spec}, "status": pod_status}
    found = cells(kinds.PODS, pod)
    assert (found["Status"], found["Ready"]) == (status, ready)
    assert found["Age"] == "90s"


def test_restarts_say_when_the_last_was() -> None:
    last = {"lastState": {"terminated": {"finishedAt": metadata.rfc3339(NOW - 600)}}, "restartCount": 3}
    pod = {
        "spec": {"containers": [{"name": "a"}]},
        "status": {"phase": "Running", "containerStatuses": [{**RUNNING, **last}]},
    }
    assert cells(kinds.PODS, pod)["Restarts"] == "3 (10m ago)"
    assert cells(kinds.PODS, {})["Restarts"] == "0"


def test_wide_columns_of_a_pod() -> None:
    pod = {
        "spec": {"nodeName": "n", "readinessGates": [{"conditionType": "a/b"}, {"conditionType": "c/d"}]},
        "status": {
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "a/b", "status": "True"}],
        },
    }
    found = cells(kinds.PODS, pod, wide=True)
    assert [found[c] for c in ("IP", "Node", "Nominated Node", "Readiness Gates")] == ["10.0.0.1", "n", "<none>", "1/2"]


def test_finished_rows_are_marked() -> None:
    rows = table(kinds.PODS, [{"status": {"phase": "Succeeded"}}, {"status": {"phase": "Running"}}], now=NOW)["rows"]
    assert rows[0]["conditions"][0]["reason"] == "Succeeded"
    assert "conditions" not in rows[1]


OTHERS: list[tuple[Resource, dict[str, Any], dict[str, Any]]] = [
    (kinds.NAMESPACES, {"status": {"phase": "Active"}}, {"Name": "x", "Status": "Active", "Age": "90s"}),
    (
        kinds.NODES,
        {
            "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v1"},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            },
        },
        {"Status": "Ready,SchedulingDisabled", "Roles": "control-plane", "Version": "v1", "Internal-IP": "10.0.0.1"},
    ),
    (
        kinds.EVENTS,
        {
            "type": "Normal", "reason": "Started", "message": " hello\n", "involvedObject": {"kind": "Pod", "name": "web"},
            "lastTimestamp": BORN, "firstTimestamp": BORN, "count": 2, "source": {"component": "agent", "host": "n"},
        },
        {"Last Seen": "90s", "Object": "pod/web", "Message": "hello", "Count": 2, "Source": "agent, n"},
    ),
    (kinds.EVENTS, {"eventTime": "2027-01-15T07:58:30.000000Z"}, {"Count": 1, "Last Seen": "90s", "First Seen": "90s"}),
    (kinds.CONFIGMAPS, {"data": {"a": ""}, "binaryData": {"b": ""}}, {"Data": 2}),
    (kinds.SECRETS, {"type": "Opaque", "data": {"a": ""}}, {"Type": "Opaque", "Data": 1}),
    (kinds.SERVICEACCOUNTS, {}, {"Secrets": 0}),
    (
        kinds.RESOURCEQUOTAS,
        {"status": {"hard": {"limits.cpu": "2", "pods": "3", "cpu": "1"}, "used": {"pods": "1", "cpu": "100m"}}},
        {"Request": "cpu: 100m/1, pods: 1/3", "Limit": "limits.cpu: 0/2"},
    ),
    (kinds.LIMITRANGES, {}, {"Created At": BORN}),
    (kinds.PRIORITYCLASSES, {"value": 5, "preemptionPolicy": "Never"}, {"Value": 5, "Global-Default": False}),
    (
        kinds.NETWORKPOLICIES,
        {"spec": {"podSelector": {
            "matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["y", "x"]}],
        }}},
        {"Pod-Selector": "a=b,c in (x,y)"},
    ),
    (kinds.NETWORKPOLICIES, {"spec": {"podSelector": {}}}, {"Pod-Selector": "<none>"}),
    (kinds.PODDISRUPTIONBUDGETS, {"spec": {"minAvailable": "50%"}}, {"Min Available": "50%", "Max Unavailable": "N/A"}),
    (kinds.LEASES, {"spec": {"holderIdentity": "me"}}, {"Holder": "me"}),
    (kinds.CLUSTERNETWORKPOLICIES, {"spec": {"tier": "Admin", "priority": 3}}, {"Tier": "Admin", "Priority": 3}),
    (
        kinds.VIRTUALMACHINES,
        {"status": {"printableStatus": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
        {"Age": "90s", "Status": "Running", "Ready": "True"},
    ),
    (
        kinds.VIRTUALMACHINEINSTANCES,
        {"status": {"phase": "Running", "nodeName": "n", "interfaces": [{"ipAddress": "10.0.0.2"}]}},
        {"Phase": "Running", "IP": "10.0.0.2", "NodeName": "n", "Ready": ""},
    ),
    (kinds.QUOTAPOLICIES, {"spec": {"evictionThreshold": 0, "guaranteed": {"cpu": 2}}},
     {"Threshold": "0", "Guaranteed": "cpu: 2"}),
    (kinds.COHORTS, {"spec": {"overcommit": {"cpu": 5, "memory": "1.2"}}}, {"Overcommit": "cpu: 5, memory: 1.2"}),
    (
        kinds.QUOTAUSAGES,
        {"status": {"hard": {"cpu": "4"}, "used": {"cpu": "1", "pods": "2"}, "charges": [{}, {}]}},
        {"Used": "cpu: 1/4", "Charges": 2, "Holds": 0},
    ),
    (
        kinds.WORKLOADS,
        {
            "spec": {"kind": "Pod", "name": "web", "priority": 10, "request": {"cpu": "100m", "memory": "64Mi"}},
            "status": {
                "stage": "Running", "ready": True, "node": "n", "ip": "10.0.0.1", "policyRevision": 7,
                "transitions": [{"stage": "Accepted"}, {"stage": "Running", "seconds": 0.314}],
            },
        },
        {
            "Kind": "Pod", "Stage": "Running", "Ready": "True", "Node": "n", "IP": "10.0.0.1", "Priority": 10,
            "Request": "cpu: 100m, memory: 64Mi", "Transitions": "Running 314ms", "Policy": "7",
        },
    ),
    (kinds.WORKLOADS, {"status": {"stage": "Running", "ready": True, "reachable": False}},
     {"Stage": "Unknown", "Ready": "False"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("resource", "obj", "expected"), OTHERS, ids=lambda v: v.kind if isinstance(v, Resource) else ""
)
def test_the_cells_of_other_kinds(resource: Resource, obj: Any, expected: Any) -> None:
    found = cells(resource, obj, wide=True)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("resource", kinds.BUILT_IN, ids=lambda r: r.kind)
def test_every_kind_prints_an_empty_object(resource: Resource) -> None:
    json.dumps(table(resource, [{}, {"metadata": {"name": "x", "creationTimestamp": "bad"}}], now=NOW))


def test_what_a_row_carries() -> None:
    obj = {"kind": "Pod", "metadata": {"name": "x"}, "spec": {}}
    assert "object" not in table(kinds.PODS, [obj], now=NOW, include_object="None")["rows"][0]
    assert table(kinds.PODS, [obj], now=NOW)["rows"][0]["object"] == {
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "x"},
    }  # fmt: skip
    assert table(kinds.PODS, [obj], now=NOW, include_object="Object")["rows"][0]["object"] == obj
    page = table(kinds.PODS, [], now=NOW, resource_version="5", continue_token="t", remaining=3, headers=False)
    assert page["metadata"] == {"resourceVersion": "5", "continue": "t", "remainingItemCount": 3}
    assert page["columnDefinitions"] == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (600, "10m"), (10799, "179m"),
        (10800, "3h"), (10860, "3h1m"), (86400, "24h"), (172800, "2d"), (176400, "2d1h"), (864000, "10d"),
        (86400 * 365 * 2, "2y"), (86400 * 365 * 2 + 86400, "2y1d"), (86400 * 365 * 9, "9y"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text
