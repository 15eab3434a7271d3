"""Policies of kinds that are not judged, as a running cluster serves them: found by discovery, listed kind by kind.

A kind that may not be listed is one that may hold anything: it is handed out with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from isoplane.client.http import HttpApi
from isoplane.objects.errors import ApiError
from isoplane.objects.kinds import Resource
from isoplane.policy.foreign import POLICY_GROUPS, Unjudged, is_policy_kind, unjudged


async def foreign_policies(api: HttpApi) -> list[Unjudged]:
    """Every such policy of the cluster. Raises ApiError where discovery itself is refused."""
    listed = await asyncio.gather(*(_list(api, resource) for resource in await _served(api)))
    return [policy for found in listed for policy in found]


async def _list(api: HttpApi, resource: Resource) -> list[Unjudged]:
    try:
        return [unjudged(obj) for obj in (await api.list(resource)).items]
    except ApiError as error:
        return [Unjudged(resource.api_version, resource.kind, "", "", {}, f"cannot be listed: {error.message}")]


async def _served(api: HttpApi) -> list[Resource]:
    """The kinds, each in the version that the server prefers among those that serve it."""
    groups = (await _document(api, "/apis")).get("groups") or ()
    versions = [(str(g["name"]), version) for g in groups if _may_hold(str(g["name"])) for version in _ordered(g)]
    answers = await asyncio.gather(*(_document(api, f"/apis/{group}/{version}") for group, version in versions))
    found: dict[tuple[str, str], Resource] = {}
    for (group, version), answer in zip(versions, answers, strict=True):
        for item in answer.get("resources") or ():
            kind, plural = str(item.get("kind")), str(item.get("name"))
            if "/" not in plural and "list" in (item.get("verbs") or ()) and is_policy_kind(group, version, kind):
                namespaced = bool(item.get("namespaced"))
                found.setdefault((group, plural), Resource(group, version, plural, kind, namespaced, custom=True))
    return list(found.values())


def _may_hold(group: str) -> bool:
    """Kubernetes' own groups have no other policies than those that are judged."""
    return group in POLICY_GROUPS or ("." in group and not group.endswith((".k8s.io", ".kubevirt.io")))


def _ordered(group: Mapping[str, Any]) -> Sequence[str]:
    preferred = str((group.get("preferredVersion") or {}).get("version") or "")
    served = [str(each.get("version")) for each in group.get("versions") or ()]
    return sorted(served, key=lambda version: version != preferred)


async def _document(api: HttpApi, where: str) -> Mapping[str, Any]:
    found = orjson.loads(await api.text(where))
    return found if isinstance(found, dict) else {}
