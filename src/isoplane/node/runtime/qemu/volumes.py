"""Where a machine's disks come from: the volumes of a VirtualMachineInstance's spec as plain values.

Read by domain.py, made into files by disks.py.  A volume type that this runtime cannot provide is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isoplane.node.runtime.qemu.fields import Spec, amount, items, mapping, refuse, required, text
from isoplane.workload.impossible_machine import SECTOR


@dataclass(frozen=True, slots=True)
class ContainerDisk:
    """A disk image inside an OCI image, under a throw-away overlay. ``path`` '' means the one file in /disk."""

    image: str
    path: str = ""
    pull_policy: str = ""
    read_only = False


@dataclass(frozen=True, slots=True)
class EmptyDisk:
    """A blank disk of ``capacity`` bytes that lives as long as its workload."""

    capacity: int
    read_only = False


@dataclass(frozen=True, slots=True)
class HostDisk:
    """A disk image on the host, written to in place. ``create`` makes it with ``capacity`` bytes where it is missing."""

    path: str
    create: bool
    capacity: int
    read_only = False


@dataclass(frozen=True, slots=True)
class CloudInit:
    """A NoCloud seed. Text is inline or base64, or comes from a Secret's keys ``userdata`` and ``networkdata``."""

    user_data: str = ""
    user_data_base64: str = ""
    user_secret: str = ""
    network_data: str = ""
    network_data_base64: str = ""
    network_secret: str = ""
    read_only = True


@dataclass(frozen=True, slots=True)
class ObjectFiles:
    """A ConfigMap's or a Secret's keys as files on a small read-only disk labelled ``label``."""

    key: str
    """As in Materials.objects: ``configmaps/name`` or ``secrets/name``."""
    label: str
    optional: bool
    read_only = True


Source = ContainerDisk | EmptyDisk | HostDisk | CloudInit | ObjectFiles
Reader = Callable[[Spec, str], Source]


def parse_volumes(volumes: Any) -> dict[str, Source]:
    """Volume name → source, in declared order. Raises RuntimeFailure naming the field."""
    found: dict[str, Source] = {}
    for index, volume in enumerate(items(volumes, "volumes")):
        path = f"volumes[{index}]"
        name = required(volume, "name", path, "every volume needs a name")
        if name in found:
            raise refuse(f"{path}.name", f"{name!r} is used twice")
        kinds = [key for key in volume if key != "name" and volume[key] is not None]
        if len(kinds) != 1:
            raise refuse(path, f"expected exactly one volume type, found {', '.join(kinds) or 'none'}")
        reader = _READERS.get(kinds[0])
        if reader is None:
            raise refuse(f"{path}.{kinds[0]}", f"not a volume a machine can have here; use {', '.join(_READERS)}")
        path = f"{path}.{kinds[0]}"
        found[name] = reader(mapping(volume[kinds[0]], path), path)
    return found


def _capacity(volume: Spec, path: str) -> int:
    if volume.get("capacity") is None:
        raise refuse(f"{path}.capacity", "required")
    capacity = amount(volume["capacity"], f"{path}.capacity")
    return -(-capacity // SECTOR) * SECTOR


def _container_disk(volume: Spec, path: str) -> Source:
    image = required(volume, "image", path)
    inside = text(volume.get("path"), f"{path}.path")
    return ContainerDisk(image, inside, text(volume.get("imagePullPolicy"), f"{path}.imagePullPolicy"))


def _empty_disk(volume: Spec, path: str) -> Source:
    return EmptyDisk(_capacity(volume, path))


def _host_disk(volume: Spec, path: str) -> Source:
    where, kind = required(volume, "path", path), text(volume.get("type"), f"{path}.type") or "Disk"
    if kind not in ("Disk", "DiskOrCreate"):
        raise refuse(f"{path}.type", f"{kind!r} is not one of Disk, DiskOrCreate")
    create = kind == "DiskOrCreate"
    return HostDisk(where, create, _capacity(volume, path) if create else 0)


def _cloud_init(volume: Spec, path: str) -> Source:
    def inline(key: str) -> str:
        return text(volume.get(key), f"{path}.{key}")

    def secret(key: str) -> str:
        reference = mapping(volume.get(key), f"{path}.{key}")
        return "" if volume.get(key) is None else required(reference, "name", f"{path}.{key}")

    return CloudInit(
        *(inline("userData"), inline("userDataBase64"), secret("secretRef")),
        *(inline("networkData"), inline("networkDataBase64"), secret("networkDataSecretRef")),
    )


def _object_files(prefix: str, name_field: str) -> Reader:
    def read(volume: Spec, path: str) -> Source:
        label = text(volume.get("volumeLabel"), f"{path}.volumeLabel") or "cfgdata"
        return ObjectFiles(f"{prefix}/{required(volume, name_field, path)}", label, volume.get("optional") is True)

    return read


_READERS: dict[str, Reader] = {
    "containerDisk": _container_disk,
    "emptyDisk": _empty_disk,
    "hostDisk": _host_disk,
    "cloudInitNoCloud": _cloud_init,
    "configMap": _object_files("configmaps", "name"),
    "secret": _object_files("secrets", "secretName"),
}
