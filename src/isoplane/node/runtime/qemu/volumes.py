"""Where a machine's disks come from: the volumes of a VirtualMachineInstance's spec as plain values.

Read by domain.py, made into files by disks.py.  A volume type that this runtime cannot provide is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.objects import quantity

Refuse = Callable[[str, str], Exception]


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


def parse_volumes(volumes: Iterable[Mapping[str, Any]], refuse: Refuse) -> dict[str, Source]:
    """Volume name → source, in declared order. Raises what ``refuse(path, what)`` makes."""
    found: dict[str, Source] = {}
    for index, volume in enumerate(volumes):
        path, name = f"volumes[{index}]", str(volume.get("name") or "")
        if not name:
            raise refuse(f"{path}.name", "every volume needs a name")
        if name in found:
            raise refuse(f"{path}.name", f"{name!r} is used twice")
        kinds = [key for key in volume if key != "name" and volume[key] is not None]
        if len(kinds) != 1:
            raise refuse(path, f"expected exactly one volume type, found {', '.join(kinds) or 'none'}")
        reader = _READERS.get(kinds[0])
        if reader is None:
            raise refuse(f"{path}.{kinds[0]}", f"not a volume a machine can have here; use {', '.join(_READERS)}")
        found[name] = reader(volume[kinds[0]], f"{path}.{kinds[0]}", refuse)
    return found


def _required(volume: Mapping[str, Any], key: str, path: str, refuse: Refuse) -> str:
    value = volume.get(key)
    if not value:
        raise refuse(f"{path}.{key}", "required")
    return str(value)


def _capacity(value: Any, path: str, refuse: Refuse) -> int:
    try:
        capacity = quantity.whole(value)
    except ValueError as error:
        raise refuse(f"{path}.capacity", str(error)) from None
    if capacity < 512:
        raise refuse(f"{path}.capacity", f"{value} is less than one sector")
    return -(-capacity // 512) * 512


def _container_disk(volume: Mapping[str, Any], path: str, refuse: Refuse) -> Source:
    image = _required(volume, "image", path, refuse)
    return ContainerDisk(image, str(volume.get("path") or ""), str(volume.get("imagePullPolicy") or ""))


def _empty_disk(volume: Mapping[str, Any], path: str, refuse: Refuse) -> Source:
    return EmptyDisk(_capacity(_required(volume, "capacity", path, refuse), path, refuse))


def _host_disk(volume: Mapping[str, Any], path: str, refuse: Refuse) -> Source:
    where, kind = _required(volume, "path", path, refuse), str(volume.get("type") or "Disk")
    if not where.startswith("/"):
        raise refuse(f"{path}.path", f"{where!r} is not an absolute path")
    if kind not in ("Disk", "DiskOrCreate"):
        raise refuse(f"{path}.type", f"{kind!r} is not one of Disk, DiskOrCreate")
    create = kind == "DiskOrCreate"
    capacity = _capacity(_required(volume, "capacity", path, refuse), path, refuse) if create else 0
    return HostDisk(where, create, capacity)


def _cloud_init(volume: Mapping[str, Any], path: str, refuse: Refuse) -> Source:
    def secret(key: str) -> str:
        reference = volume.get(key)
        return _required(reference, "name", f"{path}.{key}", refuse) if reference else ""

    seed = CloudInit(
        user_data=str(volume.get("userData") or ""),
        user_data_base64=str(volume.get("userDataBase64") or ""),
        user_secret=secret("secretRef"),
        network_data=str(volume.get("networkData") or ""),
        network_data_base64=str(volume.get("networkDataBase64") or ""),
        network_secret=secret("networkDataSecretRef"),
    )
    if sum(map(bool, (seed.user_data, seed.user_data_base64, seed.user_secret))) > 1:
        raise refuse(path, "give one of userData, userDataBase64 and secretRef")
    if sum(map(bool, (seed.network_data, seed.network_data_base64, seed.network_secret))) > 1:
        raise refuse(path, "give one of networkData, networkDataBase64 and networkDataSecretRef")
    return seed


def _config_map(volume: Mapping[str, Any], path: str, refuse: Refuse) -> Source:
    name = _required(volume, "name", path, refuse)
    return ObjectFiles(f"configmaps/{name}", str(volume.get("volumeLabel") or "cfgdata"), bool(volume.get("optional")))


def _secret(volume: Mapping[str, Any], path: str, refuse: Refuse) -> Source:
    name = _required(volume, "secretName", path, refuse)
    return ObjectFiles(f"secrets/{name}", str(volume.get("volumeLabel") or "cfgdata"), bool(volume.get("optional")))


_READERS: dict[str, Callable[[Mapping[str, Any], str, Refuse], Source]] = {
    "containerDisk": _container_disk,
    "emptyDisk": _empty_disk,
    "hostDisk": _host_disk,
    "cloudInitNoCloud": _cloud_init,
    "configMap": _config_map,
    "secret": _secret,
}
