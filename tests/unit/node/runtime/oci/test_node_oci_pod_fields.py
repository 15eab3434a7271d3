"""What a Pod's spec says of its mounts, its network files and the host's namespaces arrives where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isoplane.node.runtime.oci import volumes
from isoplane.node.runtime.oci.environment import Facts
from isoplane.node.runtime.oci.spec import Container, document
from isoplane.node.runtime.protocol import Materials, NetworkInterface
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Workload


def pod(container: dict[str, Any], **spec: Any) -> Workload:
    meta = {"name": "p", "namespace": "ns", "uid": "11111111-2222-3333-4444-555555555555"}
    return PodAdapter().project(
        {"metadata": meta, "spec": {"containers": [{"name": "c", "image": "i", **container}], **spec}}
    )


def facts(workload: Workload) -> Facts:
    units = {unit.name: unit for unit in workload.units}
    materials = Materials(objects={}, network=NetworkInterface(netns="/run/netns/x"))
    return Facts(workload, materials, ("192.0.2.9",), 4000, 8 << 30, units)


def test_mounts_say_what_was_asked(tmp_path: Path) -> None:
    mounts = [
        {"name": "v", "mountPath": "/a", "readOnly": True, "recursiveReadOnly": "Enabled"},
        {"name": "v", "mountPath": "/b", "mountPropagation": "HostToContainer"},
        {"name": "v", "mountPath": "/c", "mountPropagation": "Bidirectional", "subPath": "x"},
        {"name": "v", "mountPath": "/d", "subPathExpr": "of-$(WHO)"},
    ]
    workload = pod({"volumeMounts": mounts}, volumes=[{"name": "v", "emptyDir": {}}])
    a, b, c, d = volumes.mounts_of(workload.units[0], tmp_path, facts(workload), {"WHO": "me"})
    assert (a.target, a.source, a.read_only, a.recursive_read_only) == ("/a", str(tmp_path / "v"), True, True)
    assert (b.propagation, b.read_only) == ("rslave", False)
    assert (c.propagation, c.sub_path) == ("rshared", "x")
    assert (d.propagation, d.sub_path) == ("rprivate", "of-me")


def test_the_network_files_of_a_pod(tmp_path: Path) -> None:
    workload = pod(
        {},
        hostname="h",
        subdomain="sub",
        hostAliases=[{"ip": "192.0.2.7", "hostnames": ["one", "two"]}],
        dnsPolicy="None",
        dnsConfig={
            "nameservers": ["192.0.2.53"],
            "searches": ["a.example", "b.example"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        },
    )
    volumes.write_network_files(tmp_path, facts(workload))
    hosts = (tmp_path / "hosts").read_text().splitlines()
    assert "192.0.2.9\th.sub.ns.svc.cluster.local h" in hosts
    assert "192.0.2.7\tone two" in hosts
    assert (tmp_path / "resolv.conf").read_text().splitlines() == [
        "nameserver 192.0.2.53", "search a.example b.example", "options ndots:2 edns0",
    ]  # fmt: skip


def test_namespaces_of_the_host() -> None:
    def namespaces(**host: Any) -> set[str]:
        found = document(Container(args=["x"], environment={}, cgroup="/c", hostname="h", netns="/n", **host))
        return {entry["type"] for entry in found["linux"]["namespaces"]}

    assert {"pid", "ipc"} <= namespaces()
    assert "pid" not in namespaces(host_pid=True)
    assert "ipc" not in namespaces(host_ipc=True)
