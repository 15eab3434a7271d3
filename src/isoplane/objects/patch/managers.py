"""metadata.managedFields: who owns which fields, read from an object and written back.

A manager is identified by its name, the operation (Apply or Update), the version and the subresource.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.objects.errors import BadRequest
from isoplane.objects.patch.fields import MEMBER, Fields, union

_MAX_UPDATERS = 10
"""More Update managers than these are merged into one, oldest first, so that objects do not grow without end."""
_PREFIXES = ("f:", "k:", "v:", "i:")
_ANCIENT = "ancient-changes"


@dataclass(frozen=True, slots=True, order=True)
class Manager:
    """Who made a change, and how."""

    operation: str
    name: str
    api_version: str
    subresource: str = ""

    def __str__(self) -> str:
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


@dataclass(frozen=True, slots=True)
class Owned:
    """What a manager owns, and when that last changed (metav1.Time)."""

    fields: Fields
    time: str


Managers = dict[Manager, Owned]


def metadata_of(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object's metadata, {} when absent. Raises BadRequest when it is something else than an object."""
    metadata = obj.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object")
    return metadata


def read(obj: Mapping[str, Any]) -> Managers:
    """The managers of an object. Raises BadRequest when managedFields is malformed."""
    result: Managers = {}
    entries = metadata_of(obj).get("managedFields") or ()
    if not isinstance(entries, (list, tuple)):
        raise BadRequest("metadata.managedFields must be a list")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise BadRequest(f"metadata.managedFields[{index}] must be an object")
        fields, operation = entry.get("fieldsV1") or {}, entry.get("operation")
        if operation not in ("Apply", "Update") or not isinstance(fields, dict):
            if not entry:
                continue  # [{}] is how a client asks to forget all managers.
            raise BadRequest(f"metadata.managedFields[{index}] must have operation Apply or Update, and fieldsV1")
        name, version, subresource = (str(entry.get(k) or "") for k in ("manager", "apiVersion", "subresource"))
        manager = Manager(operation, name, version, subresource)
        before = result.get(manager)
        merged = union(before.fields, fields) if before else fields
        result[manager] = Owned(merged, str(entry.get("time") or ""))
    return result


def sent(obj: Mapping[str, Any]) -> Managers:
    """The managers that a client sent; none when they cannot be read, as Kubernetes has it."""
    try:
        managers = read(obj)
    except BadRequest:
        return {}
    return managers if all(_is_set(owned.fields) for owned in managers.values()) else {}


def _is_set(fields: Any) -> bool:
    if not isinstance(fields, dict):
        return False
    return all(key == MEMBER or key[:2] in _PREFIXES for key in fields) and all(map(_is_set, fields.values()))


def write(obj: dict[str, Any], managers: Managers) -> None:
    """Put the managers into the object's metadata, in the order that Kubernetes keeps: Apply first, then by time."""
    metadata = metadata_of(obj)
    kept = _capped({manager: owned for manager, owned in managers.items() if owned.fields})
    if not kept:
        metadata.pop("managedFields", None)
        return
    entries: list[dict[str, Any]] = []
    for manager, owned in sorted(kept.items(), key=lambda pair: (pair[0].operation, pair[1].time, pair[0])):
        entry: dict[str, Any] = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": owned.fields,
        }
        if not owned.time:
            del entry["time"]
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    metadata["managedFields"] = entries
    obj["metadata"] = metadata


def _capped(managers: Managers) -> Managers:
    updaters = sorted((owned.time, m) for m, owned in managers.items() if m.operation == "Update")
    surplus = [manager for _, manager in updaters[: max(0, len(updaters) - _MAX_UPDATERS)]]
    if not surplus:
        return managers
    # One more goes, to make room for the entry that takes them all.
    surplus.append(updaters[len(surplus)][1])
    gone = frozenset(surplus)
    result = {manager: owned for manager, owned in managers.items() if manager not in gone}
    ancient = Manager("Update", _ANCIENT, surplus[-1].api_version)
    fields: Fields = result[ancient].fields if ancient in result else {}
    for manager in surplus:
        fields = union(fields, managers[manager].fields)
    result[ancient] = Owned(fields, managers[surplus[-1]].time)
    return result
