"""A running cluster as the policy commands see it: its objects, manifests laid over them, and what is enforced."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from isoplane.cli.policy_foreign import foreign_policies
from isoplane.cli.terminal import find_kubeconfig
from isoplane.client.http import HttpApi
from isoplane.objects import metadata
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import (
    CLUSTERNETWORKPOLICIES,
    NAMESPACES,
    NETWORKPOLICIES,
    NODES,
    VIRTUALMACHINES,
    Resource,
)
from isoplane.objects.kinds import of as resource_of
from isoplane.objects.metadata import Object
from isoplane.policy.foreign import Unjudged, parts_of
from isoplane.workload.bodies import without_bodies
from isoplane.workload.registry import adapter_for, workload_resources

LOOKED_AT = (NAMESPACES, NODES, NETWORKPOLICIES, CLUSTERNETWORKPOLICIES, VIRTUALMACHINES)
"""What policies look at beside the workloads."""
ENFORCED, CLOSED, WAITING, EXEMPT, FINISHED = "enforced", "not enforced", "waiting", "host network", "finished"
PLUGIN, SIMULATED = "by the network plugin", "simulated"
_CONDITION = "NetworkPolicyEnforced"


def fetch(kubeconfig: Path) -> tuple[list[Object], list[Unjudged]]:
    """Everything that policies look at, and the policies of kinds that are not judged.

    Raises ApiError, KubeconfigProblem, OSError.
    """
    return asyncio.run(_fetch_all(kubeconfig))


async def _fetch_all(kubeconfig: Path) -> tuple[list[Object], list[Unjudged]]:
    async with HttpApi.from_kubeconfig(kubeconfig) as api:
        lists = await asyncio.gather(*(_list(api, r) for r in (*LOOKED_AT, *workload_resources())))
        return [obj for found in lists for obj in found], await foreign_policies(api)


async def _list(api: HttpApi, resource: Resource) -> list[Object]:
    try:
        return (await api.list(resource)).items
    except NotFound:
        return []  # A cluster without KubeVirt, or without cluster-wide policies, does not serve that kind.


def overlay(live: Iterable[Object], given: Iterable[Object]) -> list[Object]:
    """What there would be after applying the ``given`` objects; one that runs already keeps its status (and address)."""
    merged = {_key(obj): obj for obj in live}
    added: list[Object] = []
    for obj in given:
        key = _key(obj)
        known = merged.get(key)
        if known is None:
            added.append(obj)  # Twins among the given are for the reader of the snapshot to refuse.
            continue
        merged[key] = {**obj, "status": obj.get("status") or known.get("status") or {}}
    return [*merged.values(), *added]


def _key(obj: Mapping[str, Any]) -> tuple[str, str, str, str]:
    group, _, kind = parts_of(obj)
    return group, kind, metadata.namespace(obj) or "default", metadata.name(obj)


@dataclass(frozen=True, slots=True)
class Enforced:
    """One workload: ``state`` in words, the ``revision`` of its rules, ``since`` when (RFC 3339, '' when never)."""

    workload: str
    node: str
    state: str
    revision: str = ""
    since: str = ""
    reason: str = ""
    message: str = ""

    @property
    def lacking(self) -> bool:
        """Whether it has a place in the network and no rules in force."""
        return self.state == CLOSED

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "enforced": self.state == ENFORCED}


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Every workload, in order of name, and what holds for all of them where it is not this plane that enforces."""

    rows: list[Enforced]
    notice: str = ""


def enforcement(kubeconfig: Path | None) -> Enforcement:
    """What is enforced. ``kubeconfig`` None: $KUBECONFIG, else the data directory's, else ~/.kube/config.

    Raises ApiError, KubeconfigProblem, OSError.
    """
    return asyncio.run(_enforcement(find_kubeconfig(kubeconfig)))


async def _enforcement(kubeconfig: Path) -> Enforcement:
    async with HttpApi.from_kubeconfig(kubeconfig) as api:
        version = orjson.loads(await api.text("/version"))
        lists = await asyncio.gather(*(_list(api, resource) for resource in workload_resources()))
        nodes = await _list(api, NODES)
    rows = sorted(
        (_enforced(obj) for obj in without_bodies(chain.from_iterable(lists))),
        key=lambda row: row.workload,
    )
    if "+isoplane-" not in str(version.get("gitVersion")):
        told = "the cluster's network plugin (CNI) enforces NetworkPolicies here, and Kubernetes does not tell when"
        return Enforcement([_by(row, PLUGIN) for row in rows], told)
    simulated = {metadata.name(node) for node in nodes if _runtime(node).startswith("simulated://")}
    notice = "this plane is simulated: workloads have no network, and nothing is enforced here" if simulated else ""
    return Enforcement([_by(row, SIMULATED) if row.node in simulated else row for row in rows], notice)


def _runtime(node: Object) -> str:
    return str(((node.get("status") or {}).get("nodeInfo") or {}).get("containerRuntimeVersion") or "")


def _by(row: Enforced, state: str) -> Enforced:
    """The row of a workload for which no rules are loaded by anybody here."""
    return row if row.state in (FINISHED, EXEMPT) else Enforced(row.workload, row.node, state)


def _enforced(obj: Object) -> Enforced:
    adapter = adapter_for(resource_of(obj))
    assert adapter is not None
    workload = adapter.project(obj)
    condition = metadata.condition(obj, _CONDITION) or {}
    message = str(condition.get("message") or "")
    if workload.finished:
        state = FINISHED
    elif not workload.interface.own:
        state = EXEMPT
    elif condition.get("status") == "True":
        state = ENFORCED
    elif not workload.node:
        state = WAITING
    else:
        state = CLOSED
        message = message or "no rules are in force for it: its port is closed"
    return Enforced(
        workload.id,
        workload.node,
        state,
        message.removeprefix("revision ") if state == ENFORCED else "",
        str(condition.get("lastTransitionTime") or ""),
        str(condition.get("reason") or ""),
        "" if state == ENFORCED else message,
    )
