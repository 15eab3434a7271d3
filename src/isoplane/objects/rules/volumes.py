"""The volumes of a Pod: names, one source each, and what each source needs."""

from __future__ import annotations

from typing import Any

from isoplane.objects import names
from isoplane.objects.rules import downward
from isoplane.objects.rules.containers import check_relative
from isoplane.objects.rules.report import Report

_HOST_PATH_TYPES = (
    "", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice",
)  # fmt: skip
_NEEDED = {"persistentVolumeClaim": "claimName", "hostPath": "path", "configMap": "name", "secret": "secretName"}


def check_all(volumes: list[dict[str, Any]], report: Report) -> set[str]:
    """``spec.volumes``; the names that containers may mount."""
    known: set[str] = set()
    for index, volume in enumerate(volumes):
        path, name = f"spec.volumes[{index}]", volume.get("name") or ""
        if not name:
            report.required(f"{path}.name")
        elif name in known:
            report.duplicate(f"{path}.name", name)
        else:
            report.text(f"{path}.name", name, names.dns_label(name))
        known.add(name)
        _source(path, volume, report)
    return known


def _source(path: str, volume: dict[str, Any], report: Report) -> None:
    found = [field for field, value in volume.items() if field != "name" and value is not None]
    if not found:
        report.required(path, "must specify a volume type")
    for field in found[1:]:
        report.forbidden(f"{path}.{field}", "may not specify more than 1 volume type")
    for field, needed in _NEEDED.items():
        if volume.get(field) is not None and not volume[field].get(needed):
            report.required(f"{path}.{field}.{needed}")
    if (source := volume.get("emptyDir")) is not None and source.get("sizeLimit") is not None:
        report.quantity(f"{path}.emptyDir.sizeLimit", "memory", source["sizeLimit"])
    if (source := volume.get("hostPath")) is not None:
        target = source.get("path") or ""
        if ".." in target.split("/"):
            report.invalid(f"{path}.hostPath.path", target, "must not contain '..'")
        report.one_of(f"{path}.hostPath.type", source.get("type"), _HOST_PATH_TYPES)
    for field in ("configMap", "secret", "downwardAPI", "projected"):
        if (source := volume.get(field)) is not None:
            _files(f"{path}.{field}", source, report)


def _files(path: str, source: dict[str, Any], report: Report) -> None:
    _mode(f"{path}.defaultMode", source.get("defaultMode"), report)
    for index, inner in enumerate(source.get("sources") or ()):
        for field in ("configMap", "secret", "downwardAPI"):
            if inner.get(field) is not None:
                _files(f"{path}.sources[{index}].{field}", inner[field], report)
    for index, item in enumerate(source.get("items") or ()):
        where = f"{path}.items[{index}]"
        if not item.get("path"):
            report.required(f"{where}.path")
        check_relative(f"{where}.path", item.get("path"), report)
        downward.check_field(f"{where}.fieldRef", item.get("fieldRef"), report, variable=False)
        downward.check_resource(f"{where}.resourceFieldRef", item.get("resourceFieldRef"), report, variable=False)
        _mode(f"{where}.mode", item.get("mode"), report)


def _mode(path: str, mode: Any, report: Report) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        report.invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive")
