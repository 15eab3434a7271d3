"""An object is the same endpoint wherever it is read: by the live view, by the readers of manifests, in the whole workload."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, Resource
from isoplane.policy import endpoints, snapshot
from isoplane.policy.endpoints import endpoint_of
from isoplane.policy.model import NamedPort
from isoplane.workload.registry import adapter_for

NAMES = st.sampled_from(["web", "db", "a1"])
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y", ""]), max_size=2)
IPS = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1", "10.9.0.1"])
PHASES = st.sampled_from(["Pending", "Running", "Succeeded", "Failed", ""])


def optional(required: dict[str, Any], **more: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=more)


def ports(number: str) -> Any:
    declared = optional(
        {number: st.integers(1, 9)},
        name=st.sampled_from(["http", "dns"]),
        protocol=st.sampled_from(["TCP", "UDP", "SCTP"]),
    )
    return st.lists(declared, max_size=3)


META = optional({"name": NAMES, "namespace": st.sampled_from(["a", "b"])}, labels=LABELS, uid=st.just("u"))
CONTAINERS = optional({"name": st.just("c")}, ports=ports("containerPort"))
INITS = optional({"name": st.just("i")}, ports=ports("containerPort"), restartPolicy=st.just("Always"))
POD = optional(
    {
        "kind": st.just("Pod"),
        "apiVersion": st.just("v1"),
        "metadata": META,
        "spec": optional(
            {"containers": st.lists(CONTAINERS, min_size=1, max_size=2)},
            initContainers=st.lists(INITS, max_size=2),
            hostNetwork=st.booleans(),
            nodeName=st.sampled_from(["", "n1"]),
        ),
    },
    status=optional({}, phase=PHASES, podIP=IPS, podIPs=st.lists(st.fixed_dictionaries({"ip": IPS}), max_size=2)),
)
CARD = optional(
    {"name": st.sampled_from(["default", "second"])}, ports=ports("port"), masquerade=st.just({}), bridge=st.just({})
)
NETWORK = st.sampled_from(
    [{"name": "default", "pod": {}}, {"name": "second", "multus": {"networkName": "x"}}, {"name": "second", "pod": {}}]
)
TOLD = optional({}, name=st.sampled_from(["default", "second"]), ipAddress=IPS, ipAddresses=st.lists(IPS, max_size=2))
MACHINE = optional(
    {
        "kind": st.just("VirtualMachineInstance"),
        "apiVersion": st.just("kubevirt.io/v1"),
        "metadata": META,
        "spec": optional(
            {
                "domain": st.fixed_dictionaries(
                    {
                        "devices": optional({}, interfaces=st.lists(CARD, max_size=2)),
                        "memory": st.just({"guest": "64Mi"}),
                    }
                )
            },
            networks=st.lists(NETWORK, max_size=2),
        ),
    },
    status=optional({}, phase=PHASES, nodeName=st.sampled_from(["", "n1"]), interfaces=st.lists(TOLD, max_size=3)),
)
KINDS = {"Pod": (PODS, endpoints.pod), "VirtualMachineInstance": (VIRTUALMACHINEINSTANCES, endpoints.machine)}


@given(st.one_of(POD, MACHINE))
def test_live_and_offline_are_one(obj: dict[str, Any]) -> None:
    resource, offline = KINDS[obj["kind"]]
    adapter = adapter_for(resource)
    assert adapter is not None
    live = endpoint_of(adapter.networked(obj))
    assert snapshot.each(obj, offline) == live
    assert list(snapshot.from_objects([obj]).endpoints) == [live]
    whole = adapter.project(obj)
    seen = (
        whole.labels,
        whole.addresses,
        whole.exposed,
        whole.node,
        whole.finished,
        not whole.interface.own,
    )
    assert seen == (live.labels, live.ips, live.exposed, live.node, live.finished, live.host_network)
    assert tuple(NamedPort(p.name, p.protocol, p.number) for p in whole.ports) == live.ports
    assert whole.id == live.id


def test_a_plain_init_container_serves_nothing() -> None:
    """It has ended before anything answers; a sidecar has not."""
    pod = yaml.safe_load("""
        {kind: Pod, apiVersion: v1, metadata: {name: p, namespace: a}, spec: {
          initContainers: [{name: i, ports: [{name: early, containerPort: 1}]},
                           {name: s, restartPolicy: Always, ports: [{name: side, containerPort: 2}]}],
          containers: [{name: c, ports: [{name: main, containerPort: 3}]}]}}
    """)
    assert {port.name for port in _live(PODS, pod).ports} == {"side", "main"}


def test_only_the_pod_network_is_told() -> None:
    machine = yaml.safe_load("""
        {kind: VirtualMachineInstance, apiVersion: kubevirt.io/v1, metadata: {name: m, namespace: a},
         spec: {networks: [{name: lan, multus: {networkName: x}}, {name: default, pod: {}}], domain: {}},
         status: {interfaces: [{name: lan, ipAddress: 192.168.0.9}, {name: default, ipAddress: 10.0.0.1}]}}
    """)
    assert _live(VIRTUALMACHINEINSTANCES, machine).ips == ("10.0.0.1",)


def _live(resource: Resource, obj: dict[str, Any]) -> Any:
    adapter = adapter_for(resource)
    assert adapter is not None
    return endpoint_of(adapter.networked(obj))
