"""A Pod's volumes as directories of the host, and each container's mounts of them.

``materialise`` makes them when the sandbox is prepared; ``mounts_of`` says what one container sees, and ``bind_sub_paths``
opens what lies inside a volume when the container is created, not before: a container may exchange it at any time.  Kinds:
emptyDir (on disk or in memory), hostPath, configMap, secret, downwardAPI, projected.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from isoplane.node import mounting
from isoplane.node.runtime.oci import beneath, projected
from isoplane.node.runtime.oci.environment import Facts, expand, field_value, missing, object_data, resource_value
from isoplane.node.runtime.oci.spec import Mount
from isoplane.node.runtime.protocol import RuntimeFailure
from isoplane.objects import quantity
from isoplane.workload.shape import Unit

_SOURCES = ("emptyDir", "hostPath", "configMap", "secret", "downwardAPI", "projected")
_DEFAULT_MODE = 0o644
_RECURSIVELY = ("Enabled", "IfPossible")
_PROPAGATION = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared", "": "rprivate"}


def materialise(directory: Path, facts: Facts) -> None:
    """Make every volume of the workload below ``directory``; again is harmless, and refreshes what is projected.

    Raises RuntimeFailure (CreateContainerConfigError) naming the volume.
    """
    directory.mkdir(mode=0o755, exist_ok=True)
    group = (facts.workload.recipe.get("securityContext") or {}).get("fsGroup")
    for volume in facts.workload.volumes:
        name = str(volume.get("name", ""))
        path = _path(directory, name)
        if (empty := volume.get("emptyDir")) is not None:
            _empty_dir(path, empty, name, facts)
        elif (host := volume.get("hostPath")) is not None:
            _host_path(host, name)
            continue
        elif _refresh(directory, volume, facts):
            continue
        elif not any(kind in volume for kind in _SOURCES):
            kind = next((key for key in volume if key != "name"), "nothing")
            raise missing(f"volume {name!r}: {kind} is not supported; supported are {', '.join(_SOURCES)}")
        else:
            path.mkdir(exist_ok=True)
        if group is not None:
            _give_to_group(path, int(group))


def _path(directory: Path, name: str) -> Path:
    if not name or "/" in name or name.startswith("."):
        raise missing(f"{name!r} is not the name of a volume")
    return directory / name


def _empty_dir(path: Path, source: Mapping[str, Any], name: str, facts: Facts) -> None:
    path.mkdir(exist_ok=True)
    os.chmod(path, 0o777)
    if source.get("medium") != "Memory":
        return
    if os.path.ismount(path):
        return
    size = memory_size(source, name, facts)
    options = "mode=777" + (f",size={size}" if size else "")
    mounting.mount("tmpfs", path, "tmpfs", mounting.MS_NOSUID | mounting.MS_NODEV, options)


def memory_size(source: Mapping[str, Any], name: str, facts: Facts) -> int:
    """Bytes of an emptyDir in memory, as the kubelet's: the least of its limit, the Pod's and the host's; 0: nobody knows."""
    try:
        own = quantity.whole(source["sizeLimit"]) if source.get("sizeLimit") else 0
    except ValueError as error:
        raise missing(f"volume {name!r}: sizeLimit: {error}") from None
    return min((size for size in (own, facts.workload.limits.get("memory", 0), facts.host_memory) if size), default=0)


def _host_path(source: Mapping[str, Any], name: str) -> None:
    path, kind = Path(str(source.get("path", ""))), str(source.get("type") or "")
    if not path.is_absolute() or ".." in path.parts:
        raise missing(f"volume {name!r}: hostPath {str(path)!r} must be an absolute path without ..")
    try:
        # Without a type nothing is checked, and what is missing becomes a directory, as in other runtimes.
        if kind in ("DirectoryOrCreate", "") and not path.exists():
            path.mkdir(mode=0o755, parents=True)
        elif kind == "FileOrCreate" and not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise missing(f"volume {name!r}: hostPath {path} cannot be created: {error.strerror}") from None
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise missing(f"volume {name!r}: hostPath {path}: {error.strerror}") from None
    checks = {
        "Directory": stat.S_ISDIR, "DirectoryOrCreate": stat.S_ISDIR, "File": stat.S_ISREG, "FileOrCreate": stat.S_ISREG,
        "Socket": stat.S_ISSOCK, "CharDevice": stat.S_ISCHR, "BlockDevice": stat.S_ISBLK,
    }  # fmt: skip
    if kind and kind not in checks:
        raise missing(f"volume {name!r}: {kind!r} is not a hostPath type")
    if kind and not checks[kind](mode):
        raise missing(f"volume {name!r}: hostPath type check failed: {path} is not a {kind.removesuffix('OrCreate')}")


def _files(volume: Mapping[str, Any], name: str, facts: Facts) -> dict[str, tuple[bytes, int]] | None:
    """Relative path → (content, mode) of a volume made of files; None for other kinds."""
    for kind in ("configMap", "secret", "downwardAPI"):
        if (source := volume.get(kind)) is not None:
            mode = source.get("defaultMode")
            return _source_files(kind, source, name, _DEFAULT_MODE if mode is None else int(mode), facts)
    if (combined := volume.get("projected")) is None:
        return None
    mode = combined.get("defaultMode")
    found: dict[str, tuple[bytes, int]] = {}
    for part in combined.get("sources") or ():
        for kind, source in part.items():
            if kind not in ("configMap", "secret", "downwardAPI"):
                raise missing(f"volume {name!r}: a projected {kind} is not supported")
            found.update(_source_files(kind, source, name, _DEFAULT_MODE if mode is None else int(mode), facts))
    return found


def _source_files(
    kind: str, source: Mapping[str, Any], name: str, mode: int, facts: Facts
) -> dict[str, tuple[bytes, int]]:
    if kind == "downwardAPI":
        return {_inside(str(i.get("path", "")), name): _downward(i, mode, facts) for i in source.get("items") or ()}
    optional = bool(source.get("optional"))
    plural = "configmaps" if kind == "configMap" else "secrets"
    data = object_data(facts.materials, plural, source, optional)
    if data is None:
        return {}
    if source.get("items") is None:
        return {_inside(key, name): (value, mode) for key, value in data.items()}
    found = {}
    for item in source["items"]:
        key = str(item.get("key", ""))
        if key not in data:
            if optional:
                continue
            raise missing(f"volume {name!r}: {kind} has no key {key!r}")
        own = item.get("mode")
        found[_inside(str(item.get("path", "")), name)] = (data[key], mode if own is None else int(own))
    return found


def _downward(item: Mapping[str, Any], mode: int, facts: Facts) -> tuple[bytes, int]:
    own = item.get("mode")
    if (field_ref := item.get("fieldRef")) is not None:
        text = field_value(str(field_ref.get("fieldPath", "")), facts)
    else:
        reference = item.get("resourceFieldRef") or {}
        unit = facts.units.get(str(reference.get("containerName", "")))
        if unit is None:
            raise missing(f"downwardAPI {item.get('path')!r}: resourceFieldRef names no container of this Pod")
        text = resource_value(unit, reference, facts)
    return text.encode(), mode if own is None else int(own)


def _inside(path: str, name: str) -> str:
    if not path or path.startswith(("/", "..")) or ".." in path.split("/"):
        raise missing(f"volume {name!r}: {path!r} must be a relative path without ..")
    return path


def _write_files(path: Path, files: projected.Files, *, secret: bool, group: int | None) -> None:
    """Put files into a volume, all in one step: containers may have the directory mounted already.

    What is secret lies in memory, never on the disk.
    """
    path.mkdir(mode=0o755, exist_ok=True)
    if secret:
        mounting.in_memory(path, "mode=755", mounting.MS_NOSUID | mounting.MS_NODEV)
    if group is None:
        projected.publish(path, files, lambda: None)
    else:
        own = {name: (content, _grouped(mode)) for name, (content, mode) in files.items()}
        projected.publish(path, own, lambda: _give_to_group(path, group))


def refresh(directory: Path, facts: Facts) -> None:
    """Bring the volumes made of files up to their objects.

    Raises the first RuntimeFailure (CreateContainerConfigError) at the end: such a volume keeps what it shows, and holds
    up no other.
    """
    failures: list[RuntimeFailure] = []
    for volume in facts.workload.volumes:
        try:
            _refresh(directory, volume, facts)
        except RuntimeFailure as failure:
            failures.append(failure)
    if failures:
        raise failures[0]


def _refresh(directory: Path, volume: Mapping[str, Any], facts: Facts) -> bool:
    """Bring one volume up to its objects; False when it is not made of files."""
    name = str(volume.get("name", ""))
    files = _files(volume, name, facts)
    if files is None:
        return False
    group = (facts.workload.recipe.get("securityContext") or {}).get("fsGroup")
    try:
        _write_files(
            _path(directory, name), files, secret=_is_secret(volume), group=None if group is None else int(group)
        )
    except OSError as error:
        raise missing(f"volume {name!r}: its files could not be written: {error.strerror}") from None
    return True


def _is_secret(volume: Mapping[str, Any]) -> bool:
    sources = (volume.get("projected") or {}).get("sources") or ()
    return "secret" in volume or any("secret" in source for source in sources)


def _give_to_group(path: Path, group: int) -> None:
    """Make a volume its Pod's fsGroup's: by descriptors, for a container may exchange what lies in it meanwhile."""
    for fd, found in beneath.walk(path):
        os.chown(beneath.proc(fd), -1, group)
        mode = stat.S_IMODE(found.st_mode)
        os.chmod(beneath.proc(fd), mode | 0o2770 if stat.S_ISDIR(found.st_mode) else _grouped(mode))


def _grouped(mode: int) -> int:
    """A file's mode once it is its Pod's fsGroup's: the group may do what the owner may."""
    return mode | 0o660 if mode & 0o200 else mode | 0o440


def mounts_of(unit: Unit, directory: Path, facts: Facts, values: Mapping[str, str]) -> list[Mount]:
    """What one container mounts, outer directories first. Raises CreateContainerConfigError naming the mount."""
    volumes = {str(v.get("name", "")): v for v in facts.workload.volumes}
    found = []
    for entry in unit.recipe.get("volumeMounts") or ():
        name, target = str(entry.get("name", "")), str(entry.get("mountPath", ""))
        volume = volumes.get(name)
        if volume is None:
            raise missing(f"volumeMount {target!r}: the Pod has no volume {name!r}")
        if not target.startswith("/"):
            target = "/" + target
        host = volume.get("hostPath")
        source = Path(str(host.get("path"))) if host is not None else _path(directory, name)
        of_files = not ("emptyDir" in volume or host is not None)
        sub = str(entry.get("subPath") or "") or expand(str(entry.get("subPathExpr") or ""), values)
        try:
            beneath.parts_of(sub)
        except beneath.LeadsOut:
            raise missing(f"volume {name!r}: subPath {sub!r} must be a relative path without ..") from None
        found.append(
            Mount(
                str(source),
                target,
                read_only=bool(entry.get("readOnly")) or of_files,
                propagation=_PROPAGATION.get(str(entry.get("mountPropagation") or ""), "rprivate"),
                sub_path=sub,
                recursive_read_only=str(entry.get("recursiveReadOnly") or "") in _RECURSIVELY,
                written_by_tenant=not of_files,
            )
        )
    return sorted(found, key=lambda mount: mount.target.count("/"))


def bind_sub_paths(mounts: Iterable[Mount], directory: Path) -> list[Mount]:
    """The mounts with each subPath bound to a place of the plane's own below ``directory``, which becomes its source.

    The path is walked and bound by descriptor, in the mount namespace of the caller (which its children share), so that
    what was checked is what is mounted.  Raises RuntimeFailure (CreateContainerConfigError) naming volume and path.
    """
    bound: list[Mount] = []
    for number, mount in enumerate(mounts):
        if not mount.sub_path:
            bound.append(mount)
            continue
        volume = Path(mount.source).name
        try:
            with beneath.opened(
                Path(mount.source), mount.sub_path, create=mount.written_by_tenant, links=not mount.written_by_tenant
            ) as fd:
                bound.append(replace(mount, source=str(_bind(fd, directory / str(number)))))
        except beneath.LeadsOut as error:
            raise missing(f"volume {volume!r}: subPath {mount.sub_path!r} leads out of the volume: {error}") from None
        except FileNotFoundError:
            raise missing(f"volume {volume!r} has no {mount.sub_path!r}") from None
        except OSError as error:
            raise missing(f"volume {volume!r}: subPath {mount.sub_path!r}: {error.strerror}") from None
    return bound


def _bind(fd: int, target: Path) -> Path:
    """Mount what a descriptor means on a fresh directory or file of the plane's."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        target.mkdir(mode=0o700, exist_ok=True)
    else:
        target.touch(mode=0o600)
    mounting.mount(beneath.proc(fd), target, flags=mounting.MS_BIND | mounting.MS_REC)
    return target


def write_network_files(directory: Path, facts: Facts) -> None:
    """/etc/hosts, /etc/hostname and /etc/resolv.conf of a sandbox, as the kubelet writes them."""
    directory.mkdir(mode=0o755, exist_ok=True)
    spec, workload = facts.workload.recipe, facts.workload
    domain = str(spec.get("subdomain") or "")
    names = [f"{workload.hostname}.{domain}.{workload.namespace}.svc.cluster.local"] if domain else []
    if facts.materials.network.netns:
        text = (
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
            "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        )
        for address in facts.addresses:
            text += f"{address}\t{' '.join([*names, workload.hostname])}\n"
    else:
        text = "# Kubernetes-managed hosts file (host network).\n" + _host_file("/etc/hosts")
    for alias in spec.get("hostAliases") or ():
        text += f"{alias.get('ip')}\t{' '.join(alias.get('hostnames') or ())}\n"
    (directory / "hosts").write_text(text)
    (directory / "hostname").write_text(workload.hostname + "\n")
    (directory / "resolv.conf").write_text(_resolv_conf(spec))


def _resolv_conf(spec: Mapping[str, Any]) -> str:
    """The host's own, or none (dnsPolicy None), with what dnsConfig adds."""
    config = spec.get("dnsConfig") or {}
    lines = [] if spec.get("dnsPolicy") == "None" else _host_file("/etc/resolv.conf").splitlines()
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith(("#", ";"))]
    lines += [f"nameserver {server}" for server in config.get("nameservers") or ()]
    if searches := config.get("searches"):
        lines = [line for line in lines if not line.startswith("search")]
        lines.append(f"search {' '.join(searches)}")
    options = [f"{o['name']}:{o['value']}" if o.get("value") else str(o["name"]) for o in config.get("options") or ()]
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(line + "\n" for line in lines)


def _host_file(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def host_name(facts: Facts) -> str:
    """The host name a container sees: its Pod's, or the host's own with host networking."""
    return facts.workload.hostname if facts.materials.network.netns else socket.gethostname()
