"""Discovery: which groups, versions, resources and verbs there are, in the aggregated (v2) and the legacy form."""

from __future__ import annotations

from typing import Any

from isoplane.objects.resource import Resource
from isoplane.objects.scheme import Scheme
from isoplane.server import actions, reviews

AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def _announced(resource: Resource, group: str) -> list[str]:
    """Subresources to announce under a group: actions only in the group where clients look for them."""
    if group != resource.group:
        return [s for s in resource.subresources if actions.exists(resource, s) or s == "log"]
    return [s for s in resource.subresources if not resource.action_group or s == "status"]


# aggregated


def aggregated(scheme: Scheme, *, core: bool) -> dict[str, Any]:
    """The v2 document of ``/api`` (core) or ``/apis``."""
    items = [
        {
            "metadata": {"name": group, "creationTimestamp": None},
            "versions": [
                {"version": v, "resources": [_v2(r, group) for r in resources], "freshness": "Current"}
                for v, resources in versions.items()
            ],
        }
        for group, versions in scheme.groups.items()
        if (group == "") is core
    ]
    if not core:
        for (group, version), resources in scheme.actions.items():
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
            "verbs": list(resource.subresources[name].verbs),
        }
        for name in _announced(resource, group)
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
    found = resource.subresources[subresource]
    if found.group is None:
        return (resource.group, resource.version, found.kind)
    return (found.group, found.version, found.kind)


# legacy


def legacy_core(scheme: Scheme) -> dict[str, Any]:
    return {"kind": "APIVersions", "versions": list(scheme.groups[""]), "serverAddressByClientCIDRs": []}


def legacy_groups(scheme: Scheme) -> dict[str, Any]:
    names = [name for name in scheme.groups if name] + [group for group, _ in scheme.actions] + list(reviews.GROUPS)
    groups = [group for name in names if (group := legacy_group(scheme, name)) is not None]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def legacy_group(scheme: Scheme, name: str) -> dict[str, Any] | None:
    versions = list(scheme.groups.get(name, {})) if name else []
    versions += [version for group, version in scheme.actions if group == name]
    versions += reviews.GROUPS.get(name, {})
    if not versions:
        return None
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {
        "kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": entries, "preferredVersion": entries[0],
    }  # fmt: skip


def legacy_resources(scheme: Scheme, group: str, version: str) -> dict[str, Any] | None:
    """The APIResourceList of one group-version; None when it is not served."""
    resources = scheme.groups.get(group, {}).get(version, ()) or scheme.actions.get((group, version), ())
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
        for name in _announced(resource, group):
            kind_group, kind_version, kind = _kind(resource, name)
            entry = {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind,
                "verbs": list(resource.subresources[name].verbs),
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
