"""Server-side apply (``application/apply-patch+yaml``) and the ownership of fields that it rests on.

An applier sends the fields that it has an opinion about.  They are merged into the live object; fields that it sent
before and no longer sends are removed, unless somebody else owns them; and a change of a field that another manager
owns is a conflict, unless forced.  Other writes take ownership of what they change.  Source: structured-merge-diff's
Updater, whose results this reproduces on the schemas of the served kinds.

Every object is tracked from its creation on.  One that is not (an earlier version stored it, or a client had its
managers forgotten) stays so until the first apply, which attributes what it finds to ``before-first-apply``.
"""

from __future__ import annotations

from typing import Any

import orjson

from isoplane.objects import metadata
from isoplane.objects.copying import deep_copy
from isoplane.objects.defaulting.nulls import drop_nulls
from isoplane.objects.errors import BadRequest, Cause, Conflict
from isoplane.objects.metadata import Object
from isoplane.objects.patch import managers as managing
from isoplane.objects.patch.compare import compare
from isoplane.objects.patch.fields import (
    Fields,
    difference,
    fields_of,
    granular_map,
    intersection,
    is_member,
    item_key,
    of_new,
    paths,
    union,
    value_key,
)  # fmt: skip
from isoplane.objects.patch.managers import Manager, Managers, Owned
from isoplane.objects.resource import Resource
from isoplane.objects.schema.structure import Node

_SERVERS = ("name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields",
            "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds")  # fmt: skip
"""Fields of metadata that nobody owns."""
_NOBODYS: Fields = {"f:apiVersion": {}, "f:kind": {}, "f:metadata": {".": {}, **{f"f:{name}": {} for name in _SERVERS}}}
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_BEFORE = "before-first-apply"


def apply_config(
    resource: Resource,
    live: Object | None,
    config: Any,
    *,
    manager: str,
    force: bool = False,
    now: str,
    subresource: str = "",
) -> Object:
    """The object after applying ``config``; ``live`` itself (equal, not copied) when nothing changes.

    ``now`` is a metav1.Time.  Raises BadRequest (malformed, no manager, managedFields set) or Conflict with one cause a
    field.  Defaults, validation and what the subresource may touch are the caller's.
    """
    if not manager:
        raise BadRequest(
            "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch"
        )
    if not isinstance(config, dict):
        raise BadRequest("an apply configuration is an object")
    if managing.metadata_of(config).get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    node = resource.schema.root
    config = deep_copy(config)
    drop_nulls(config, node)
    _check_items(config, node, "")
    applier = Manager("Apply", manager, resource.api_version, subresource)
    wanted = _ownable(fields_of(config, node), resource, subresource)
    if live is None:
        created: Object = config
        managing.write(created, {applier: Owned(wanted, now)})
        return created
    managers = managing.read(live)
    if not managers:
        everything = _ownable(fields_of(live, node), resource, "")
        managers = {Manager("Update", _BEFORE, resource.api_version): Owned(everything, now)}
    return _Applying(resource, node, live, managers, applier, now).run(config, wanted, force)


def record_update(
    resource: Resource, old: Object | None, new: Object, *, manager: str, now: str, subresource: str = ""
) -> None:
    """Give ``manager`` the fields that differ between ``old`` and ``new``, in the managedFields of ``new``, in place.

    What the client sent as managedFields counts as in Kubernetes: ``[{}]`` forgets all managers, entries that cannot be
    read are as good as none, and without any the old object's stay.
    """
    before = managing.metadata_of(old).get("managedFields") if old is not None else None
    sent = managing.metadata_of(new).get("managedFields")
    if sent == [{}] and not subresource:
        managing.write(new, {})
        return
    managers = managing.sent(new) if sent and not subresource and sent != before else {}
    if not managers and old is not None:
        managers = managing.read(old)
        if not managers:
            managing.write(new, {})
            return
    node = resource.schema.root
    changed, removed = compare(old, new, node) if old else (of_new(new, node), {})
    changed, removed = _written(changed, resource, subresource), _written(removed, resource, subresource)
    if not changed and not removed and (not sent or subresource or sent == before) and before:
        new["metadata"]["managedFields"] = before
        return
    writer = Manager("Update", manager, resource.api_version, subresource)
    managing.write(new, _taken(managers, writer, changed, removed, now))


class _Applying:
    """One apply to a live object."""

    def __init__(
        self, resource: Resource, node: Node, live: Object, managers: Managers, applier: Manager, now: str
    ) -> None:
        self.resource, self.node, self.live = resource, node, live
        self.managers, self.applier, self.now = managers, applier, now

    def run(self, config: Object, wanted: Fields, force: bool) -> Object:
        managers, applier = self.managers, self.applier
        last = managers[applier].fields if applier in managers else {}
        merged: Object = _merge(deep_copy(self.live), config, self.node)
        kept = wanted
        for manager, owned in managers.items():
            if manager != applier:
                kept = union(kept, owned.fields)
        gone = difference(last, wanted)
        if gone:
            _prune(merged, gone, kept, wanted, self.node)
        changed, removed = compare(self.live, merged, self.node)
        changed = _ownable(changed, self.resource, self.applier.subresource)
        if gone:
            drop_nulls(merged, self.node)
        conflicts = {
            manager: found
            for manager, owned in managers.items()
            if manager != applier and (found := intersection(owned.fields, changed))
        }
        if conflicts and not force and not self._migrates(conflicts):
            raise _conflict(conflicts)
        result = {m: o for m, o in managers.items() if m != applier}
        result = _without(result, changed, removed)
        before = managers.get(applier)
        same = before is not None and before.fields == wanted
        result[applier] = before if same and before is not None else Owned(wanted, self.now)
        if not changed and not removed and same and result == managers:
            return self.live
        managing.write(merged, result)
        return merged

    def _migrates(self, conflicts: dict[Manager, Fields]) -> bool:
        """Whether kubectl moves from client-side to server-side apply: then what it applied last is its own."""
        if self.applier.name != "kubectl":
            return False
        text = metadata.annotations_of(self.live).get(_LAST_APPLIED)
        try:
            last = orjson.loads(text or "null")
        except orjson.JSONDecodeError:
            return False
        if not isinstance(last, dict):
            return False
        own = fields_of(last, self.node)
        return not any(difference(fields, own) for fields in conflicts.values())


def _taken(managers: Managers, writer: Manager, changed: Fields, removed: Fields, now: str) -> Managers:
    """The managers after a write that is not an apply: the writer has what it changed, nobody what is gone."""
    if not changed and not removed:
        return managers
    result = _without({m: o for m, o in managers.items() if m != writer}, changed, removed)
    before = managers.get(writer)
    own = union(difference(before.fields if before else {}, removed), changed)
    if before is not None and before.fields == own:
        result[writer] = before
    elif own:
        result[writer] = Owned(own, now)
    return result


def _without(managers: Managers, changed: Fields, removed: Fields) -> Managers:
    result = {}
    for manager, owned in managers.items():
        rest = difference(difference(owned.fields, changed), removed)
        if rest:
            result[manager] = Owned(rest, owned.time)
    return result


def _ownable(fields: Fields, resource: Resource, subresource: str) -> Fields:
    """What of a set can have an owner: not identity, and status only through its subresource where there is one."""
    if "status" not in resource.subresources:
        return difference(fields, _NOBODYS)
    if subresource == "status":
        return {key: below for key, below in fields.items() if key == "f:status"}
    return difference({key: below for key, below in fields.items() if key != "f:status"}, _NOBODYS)


def _written(fields: Fields, resource: Resource, subresource: str) -> Fields:
    """What of a difference was the writer's doing: status with its subresource, and with actions, which may set it.

    A status may come with annotations that tell what was observed.
    """
    if subresource == "status":
        fields = {key: below for key, below in fields.items() if key in ("f:status", "f:metadata")}
    elif not subresource and "status" in resource.subresources:
        fields = {key: below for key, below in fields.items() if key != "f:status"}
    return difference(fields, _NOBODYS)


def _merge(live: Any, config: Any, node: Node | None) -> Any:
    if isinstance(live, dict) and isinstance(config, dict) and granular_map(node):
        for name, value in config.items():
            child = node.child(name) if node is not None else None
            live[name] = _merge(live[name], value, child) if name in live else value
        return live
    if isinstance(live, list) and isinstance(config, list) and node is not None:
        if node.list_type == "map":
            return _merge_items(
                live, config, [item_key(i, node) for i in live], [item_key(i, node) for i in config], node
            )
        if node.list_type == "set":
            return _merge_items(live, config, [value_key(i) for i in live], [value_key(i) for i in config], node)
    return config


def _merge_items(
    live: list[Any], config: list[Any], live_keys: list[str | None], config_keys: list[str | None], node: Node
) -> list[Any]:
    """Items of both, in the configuration's order; those that only the live list has keep their place among the others.

    Two fingers walk the lists.  A live item that the configuration wants later is passed over; one that it does not
    have is taken; where both point at the same item, it is merged.
    """
    found: dict[str | None, Any] = {}
    for key, item in zip(live_keys, live, strict=True):
        found.setdefault(key, item)
    wanted = set(config_keys)
    result: list[Any] = []
    taken: set[str | None] = set()
    left = right = shared = 0
    while left < len(live) or right < len(config):
        key = live_keys[left] if left < len(live) else None
        if left < len(live) and key not in wanted:
            result.append(live[left])
            left += 1
            continue
        # The next item of the configuration that both lists have: only when the live list is there too, it is that one's turn.
        shared = max(shared, right)
        while shared < len(config) and config_keys[shared] not in found:
            shared += 1
        others = right < len(config) and (shared == len(config) or config_keys[shared] != key)
        if left < len(live) and (key in taken or others):
            left += 1
            continue
        if right < len(config):
            key, item = config_keys[right], config[right]
            result.append(_merge(found[key], item, node.element) if key in found else item)
            taken.add(key)
            right += 1
    return result


def _prune(value: Any, gone: Fields, kept: Fields, wanted: Fields, node: Node | None) -> bool:
    """Take the fields in ``gone`` out of ``value``, in place, but no field that ``kept`` has a member at or below.

    Returns whether nothing is left.  A field that somebody still names and that is emptied by this becomes null: it goes
    in the end, but its owners stay and so does what holds it.
    """
    if isinstance(value, dict):
        for key, below in gone.items():
            name = key[2:]
            if key[:2] != "f:" or name not in value:
                continue
            if key not in kept and (is_member(below) or value[name] in ({}, [])):
                del value[name]
            elif isinstance(value[name], (dict, list)) and value[name]:
                child = node.child(name) if node is not None else None
                if not _prune(value[name], below, kept.get(key) or {}, wanted.get(key) or {}, child):
                    continue
                if key in wanted or key in kept:
                    value[name] = None
                else:
                    del value[name]
        return not value
    if isinstance(value, list) and node is not None:
        keys = [value_key(item) if node.list_type == "set" else item_key(item, node) for item in value]
        rest = []
        for item_name, item in zip(keys, value, strict=True):
            entry = gone.get(item_name) if item_name is not None else None
            if entry is not None and item_name is not None:
                # An item lives as long as somebody owns the item itself; owning a field in it is not enough.
                if is_member(entry) and not (item_name in kept and is_member(kept[item_name])):
                    continue
                _prune(item, entry, kept.get(item_name) or {}, wanted.get(item_name) or {}, node.element)
            rest.append(item)
        value[:] = rest
        return not rest
    return False


def _check_items(value: Any, node: Node | None, path: str) -> None:
    """List items of a configuration must be told apart: each with its keys, none twice."""
    if node is None:
        return
    if isinstance(value, dict):
        for name, child in value.items():
            if isinstance(child, (dict, list)):
                _check_items(child, node.child(name), f"{path}.{name}")
    elif isinstance(value, list) and node.form == "list":
        seen: set[str] = set()
        for index, item in enumerate(value):
            if node.list_type == "map":
                found = item_key(item, node)
                if found is None:
                    fields = ", ".join(f'"{name}"' for name in node.map_keys)
                    raise BadRequest(
                        f"{path}: element {index}: associative list with keys has an element that omits {fields}"
                    )
                key = found
            elif node.list_type == "set":
                key = value_key(item)
            else:
                return
            if key in seen:
                raise BadRequest(f"{path}: duplicate entries for key {key[2:]}")
            seen.add(key)
            _check_items(item, node.element, f"{path}[{index}]")


def _conflict(conflicts: dict[Manager, Fields]) -> Conflict:
    causes = []
    parts = []
    for manager, fields in sorted(conflicts.items()):
        found = list(paths(fields))
        causes += [Cause(path, f"conflict with {manager}", "FieldManagerConflict") for path in found]
        parts.append((manager, found))
    count = len(causes)
    if count == 1:
        text = f"Apply failed with 1 conflict: conflict with {parts[0][0]}: {causes[0].field}"
    else:
        listed = "\n".join(
            f"conflicts with {manager}:\n" + "\n".join(f"- {p}" for p in found) for manager, found in parts
        )
        text = f"Apply failed with {count} conflicts: {listed}"
    return Conflict(text, causes=causes)
