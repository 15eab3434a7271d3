"""Discovery: which groups, versions, resources and verbs there are, in the aggregated (v2) and the legacy form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isoplane.objects.kinds import PODS, SERVED, Resource
from isoplane.server import actions, reviews
from isoplane.server.endpoints.routes import ACTION_GROUPS

AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_ACTION_VERBS = {"log": ("get",), "exec": ("create", "get"), "finalize": ("update",)}
_CREATED = ("binding", "eviction")
_KINDS = {"eviction": ("policy", "v1", "Eviction")}


def _groups() -> dict[str, dict[str, list[Resource]]]:
    found: dict[str, dict[str, list[Resource]]] = {}
    for resource in SERVED:
        found.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
    return found


GROUPS = _groups()


def subresource_verbs(resource: Resource, name: str) -> Sequence[str]:
    if name == "status":
        return ("get", "patch", "update")
    if name in _ACTION_VERBS:
        return _ACTION_VERBS[name]
    return ("create",) if resource is PODS or name in _CREATED else ("update",)


def _served_subresources(resource: Resource, *, group: str) -> list[str]:
    """Subresources to announce under a group: KubeVirt's actions only in the group where its clients look."""
    in_actions = any(resource in members for members in ACTION_GROUPS.values())
    if group != resource.group:
        return [s for s in resource.subresources if actions.exists(resource, s) or s == "log"]
    return [s for s in resource.subresources if not in_actions or s in ("status",)]


# aggregated


def aggregated(*, core: bool) -> dict[str, Any]:
    """The v2 document of ``/api`` (core) or ``/apis``."""
    items = [
        {
            "metadata": {"name": group, "creationTimestamp": None},
            "versions": [
                {"version": v, "resources": [_v2(r, group) for r in resources], "freshness": "Current"}
                for v, resources in versions.items()
            ],
        }
        for group, versions in GROUPS.items()
        if (group == "") is core
    ]
    if not core:
        for (group, version), resources in ACTION_GROUPS.items():
            entry = {"version": version, "resources": [_v2(r, group) for r in resources], "freshness": "Current"}
            items.append({"metadata": {"name": group, "creationTimestamp": None}, "versions": [entry]})
        for group, versions in reviews.GROUPS.items():
            found = [
                {"version": v, "resources": [_v2_review(r) for r in asked], "freshness": "Current"}
                for v, asked in versions.items()
            ]
            items.append({"metadata": {"name": group, "creationTimestamp": None}, "versions": found})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _v2(resource: Resource, group: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs) if group == resource.group else [],
    }
    if group == resource.group:
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
    subresources = [
        {
            "subresource": name,
            "responseKind": dict(zip(("group", "version", "kind"), _kind(resource, name), strict=True)),
            "verbs": list(subresource_verbs(resource, name)),
        }
        for name in _served_subresources(resource, group=group)
    ]
    if subresources:
        entry["subresources"] = subresources
    return entry


def _v2_review(review: reviews.Review) -> dict[str, Any]:
    return {
        "resource": review.plural,
        "responseKind": {"group": review.group, "version": review.version, "kind": review.kind},
        "scope": "Cluster",
        "singularResource": review.kind.lower(),
        "verbs": ["create"],
    }


def _kind(resource: Resource, subresource: str) -> tuple[str, str, str]:
    return _KINDS.get(subresource, (resource.group, resource.version, resource.subresources[subresource]))


# legacy


def legacy_core() -> dict[str, Any]:
    return {"kind": "APIVersions", "versions": list(GROUPS[""]), "serverAddressByClientCIDRs": []}


def legacy_groups() -> dict[str, Any]:
    names = [name for name in GROUPS if name] + [group for group, _ in ACTION_GROUPS] + list(reviews.GROUPS)
    groups = [group for name in names if (group := legacy_group(name)) is not None]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def legacy_group(name: str) -> dict[str, Any] | None:
    versions = list(GROUPS.get(name, {})) if name else []
    versions += [version for group, version in ACTION_GROUPS if group == name]
    versions += reviews.GROUPS.get(name, {})
    if not versions:
        return None
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {
        "kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": entries, "preferredVersion": entries[0],
    }  # fmt: skip


def legacy_resources(group: str, version: str) -> dict[str, Any] | None:
    """The APIResourceList of one group-version; None when it is not served."""
    resources: Sequence[Resource] = GROUPS.get(group, {}).get(version, ()) or ACTION_GROUPS.get((group, version), ())
    asked = reviews.in_version(group, version)
    if not resources and not asked:
        return None
    entries: list[dict[str, Any]] = []
    for resource in resources:
        if group == resource.group:
            entry: dict[str, Any] = {
                "name": resource.plural,
                "singularName": resource.singular,
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": list(resource.verbs),
            }
            if resource.short_names:
                entry["shortNames"] = list(resource.short_names)
            if resource.categories:
                entry["categories"] = list(resource.categories)
            entries.append(entry)
        for name in _served_subresources(resource, group=group):
            kind_group, kind_version, kind = _kind(resource, name)
            entry = {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind,
                "verbs": list(subresource_verbs(resource, name)),
            }
            if (kind_group, kind_version) != (group, version):
                entry |= {"group": kind_group, "version": kind_version}
            entries.append(entry)
    for review in asked:
        entries.append({
            "name": review.plural, "singularName": review.kind.lower(), "namespaced": False, "kind": review.kind,
            "verbs": ["create"],
        })  # fmt: skip
    text = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": text, "resources": entries}
