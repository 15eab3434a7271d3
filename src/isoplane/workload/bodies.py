"""Which Pods are the bodies of machines: KubeVirt runs a VirtualMachineInstance in a virt-launcher Pod. Pure.

A machine and its body are one workload: one endpoint, one charge, one row in a list.  Whoever reads another cluster
(``--kubeconfig``, manifests, an operator) pairs them here.  The embedded plane pairs nobody: there a Pod that names a machine as
its owner is a Pod like any other, and the names of launchers are kept from everybody (``server.launcher``).

A body says three times whose it is: by its controller, by its labels, and by its name.  What else belongs to a machine is no
body: the Pod that attaches a hotplugged volume is the launcher's, an importer is its claim's; both count as the Pods they are.
While a machine migrates it has two bodies: where it runs, and where it goes.

Source: KubeVirt v1.4 to v1.9, pkg/virt-controller/services/template.go (podLabels, renderLaunchManifest) and
pkg/virt-controller/watch/migration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from isoplane.objects.phase import ENDED

Object = Mapping[str, Any]
_O = TypeVar("_O", bound=Mapping[str, Any])

POD, MACHINE, MACHINE_GROUP = "Pod", "VirtualMachineInstance", "kubevirt.io"
NAME_PREFIX = "virt-launcher-"
LAUNCHER_LABEL, LAUNCHER = "kubevirt.io", "virt-launcher"
CREATED_BY = "kubevirt.io/created-by"
"""The label with the uid of the machine."""
MIGRATION_JOB = "kubevirt.io/migrationJobUID"
"""The label of a body that was made for a migration: the migration's uid."""


@dataclass(frozen=True, slots=True)
class Bodies:
    """The bodies of one machine."""

    running: Object | None = None
    """Where it runs, or starts; None while there is none."""
    target: Object | None = None
    """Where it migrates to."""
    others: tuple[Object, ...] = ()
    """Those that have ended, and any that there should not be."""


def machine_of(pod: Object) -> str:
    """The uid of the machine whose body a Pod says it is; '' for any other Pod. Whether there is such a machine, others know."""
    meta = _mapping(pod.get("metadata"))
    uid, labels = _controller(meta), _mapping(meta.get("labels"))
    claimed = labels.get(LAUNCHER_LABEL) == LAUNCHER and labels.get(CREATED_BY) == uid
    return uid if claimed and str(meta.get("name") or "").startswith(NAME_PREFIX) else ""


def pair(pods: Iterable[Object], machines: Iterable[Object]) -> dict[str, Bodies]:
    """uid of each machine that has a body → its bodies. A Pod whose machine is not among ``machines`` is nobody's body."""
    there = {(_namespace(one), str(_mapping(one.get("metadata")).get("uid") or "")) for one in machines}
    found: dict[str, list[Object]] = {}
    for pod in pods:
        uid = machine_of(pod)
        if uid and (_namespace(pod), uid) in there:
            found.setdefault(uid, []).append(pod)
    return {uid: _told_apart(bodies) for uid, bodies in found.items()}


def without_bodies(objects: Iterable[_O]) -> list[_O]:
    """The objects, without the Pods that are bodies of machines among them."""
    listed = list(objects)
    machines = [one for one in listed if one.get("kind") == MACHINE]
    bodies = pair((one for one in listed if one.get("kind") == POD), machines)
    hidden = {id(pod) for each in bodies.values() for pod in (each.running, each.target, *each.others)}
    return [one for one in listed if id(one) not in hidden]


def _told_apart(pods: list[Object]) -> Bodies:
    """The oldest that lives is where the machine is; the next is where it goes, when it was made for a migration."""
    alive = sorted((pod for pod in pods if not _ended(pod)), key=_age)
    ended = [pod for pod in pods if _ended(pod)]
    moving = len(alive) > 1 and bool(_mapping(_mapping(alive[1].get("metadata")).get("labels")).get(MIGRATION_JOB))
    used = 2 if moving else 1
    return Bodies(
        running=alive[0] if alive else None,
        target=alive[1] if moving else None,
        others=(*alive[used:], *ended),
    )


def _controller(meta: Mapping[str, Any]) -> str:
    """The uid of the machine that is the controller; '' when something else is, or nothing."""
    owners = meta.get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if isinstance(owner, Mapping) and owner.get("controller") is True:
            group = str(owner.get("apiVersion") or "").partition("/")[0]
            ours = owner.get("kind") == MACHINE and group == MACHINE_GROUP
            return str(owner.get("uid") or "") if ours else ""
    return ""


def _namespace(obj: Object) -> str:
    return str(_mapping(obj.get("metadata")).get("namespace") or "default")


def _ended(pod: Object) -> bool:
    return _mapping(pod.get("status")).get("phase") in ENDED


def _age(pod: Object) -> tuple[str, str]:
    meta = _mapping(pod.get("metadata"))
    return str(meta.get("creationTimestamp") or ""), str(meta.get("name") or "")


def _mapping(value: Any) -> Mapping[str, Any]:
    """What a reader of manifests that nobody checked yet may look into."""
    return value if isinstance(value, Mapping) else {}
