"""A machine's files on the host: its kernel, its ramdisk and one image file for every disk.

Container disks get a throw-away overlay, empty disks a blank image.  Cloud-init and config disks are small ISOs, which may
hold Secrets and so lie in memory, never on the disk.  Everything is made in the sandbox's own directories, atomically and
only where it is missing, so that a second ``prepare`` after a crash keeps what the guest wrote.  Paths inside an image are
resolved as if the image were the root: a link cannot lead out.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

from isoplane.node.images.model import Image, ImageConfig
from isoplane.node.runtime.protocol import ImageListener, Materials, RuntimeFailure, RuntimeReason
from isoplane.node.runtime.qemu import cloudinit, iso, qcow2
from isoplane.node.runtime.qemu.domain import Disk, Domain
from isoplane.node.runtime.qemu.volumes import CloudInit, ContainerDisk, EmptyDisk, HostDisk, ObjectFiles

_MOST_LINKS = 40
T = TypeVar("T")


class ImageSource(Protocol):
    """Where images come from: the node's ImageStore. Raises RuntimeFailure when one cannot be had."""

    async def resolve(self, reference: str, policy: str = ..., listener: ImageListener = ...) -> Image: ...


@dataclass(frozen=True, slots=True)
class DiskFile:
    """One disk's image on the host; ``base`` is the read-only image beneath an overlay, '' without one."""

    path: str
    format: str
    base: str = ""
    base_format: str = ""


@dataclass(frozen=True, slots=True)
class ImageUse:
    """An image that a machine's files lie in, by where it is unpacked."""

    reference: str
    digest: str
    rootfs: str

    def image(self) -> Image:
        return Image(self.reference, self.digest, Path(self.rootfs), ImageConfig())


@dataclass(frozen=True, slots=True)
class BootFiles:
    """All that QEMU opens for a machine, besides its tap. Paths are absolute; '' where there is none."""

    kernel: str
    initrd: str
    disks: Mapping[str, DiskFile]
    images: tuple[ImageUse, ...] = ()
    """The images these files lie in, the kernel's first; held for as long as QEMU runs."""


async def make_files(
    domain: Domain,
    directory: Path,
    memory: Path,
    images: ImageSource,
    materials: Materials,
    *,
    instance_id: str,
    hostname: str,
) -> BootFiles:
    """Resolve the images and make every disk: what may hold Secrets in ``memory``, all others in ``directory``.

    Raises RuntimeFailure naming image, path and remedy.
    """
    kernel = initrd = ""
    used: dict[str, ImageUse] = {}

    async def resolve(reference: str, policy: str) -> Image:
        image = await images.resolve(reference, policy, materials.on_image)
        used.setdefault(image.digest, ImageUse(image.reference, image.digest, str(image.rootfs)))
        return image

    if boot := domain.kernel_boot:
        image = await resolve(boot.image, boot.pull_policy)
        kernel = str(_file_in(image, boot.image, boot.kernel_path))
        initrd = str(_file_in(image, boot.image, boot.initrd_path)) if boot.initrd_path else ""
    files: dict[str, DiskFile] = {}
    for disk in domain.disks:
        target = directory / f"disk-{len(files)}"
        match disk.source:
            case ContainerDisk():
                image = await resolve(disk.source.image, disk.source.pull_policy)
                files[disk.name] = _overlay(disk, disk.source, image, target)
            case EmptyDisk():
                files[disk.name] = _empty_disk(disk, disk.source, target)
            case HostDisk():
                files[disk.name] = _host_disk(disk, disk.source)
            case CloudInit():
                content = cloudinit.seed(
                    disk.source,
                    instance_id=instance_id,
                    hostname=hostname,
                    network=materials.network,
                    objects=materials.objects,
                )
                files[disk.name] = _config_disk(disk, memory / target.name, content, cloudinit.LABEL)
            case ObjectFiles():
                content = _object_files(disk.source, materials.objects)
                files[disk.name] = _config_disk(disk, memory / target.name, content, disk.source.label)
    return BootFiles(kernel, initrd, files, tuple(used.values()))


def resolve_inside(root: Path, path: str) -> Path:
    """The host path of ``path`` in ``root``, links followed as if ``root`` were /. Raises OSError when it is missing."""
    done: list[str] = []
    todo = list(reversed(PurePosixPath("/" + path).parts[1:]))
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            done[-1:] = []
            continue
        here = root.joinpath(*done, part)
        if stat.S_ISLNK(os.lstat(here).st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(f"too many links in {path}")
            target = PurePosixPath(os.readlink(here))
            if target.is_absolute():
                done = []
            todo.extend(reversed([p for p in target.parts if p != "/"]))
        else:
            done.append(part)
    return root.joinpath(*done)


def _file_in(image: Image, reference: str, path: str) -> Path:
    try:
        found = resolve_inside(image.rootfs, path)
    except OSError:
        raise RuntimeFailure(RuntimeReason.CREATE, f'image "{reference}" has no file {path}') from None
    if not stat.S_ISREG(os.lstat(found).st_mode):
        raise RuntimeFailure(RuntimeReason.CREATE, f'{path} in image "{reference}" is not a regular file')
    return found


def _only_disk(image: Image, reference: str) -> str:
    try:
        names = sorted(p.name for p in resolve_inside(image.rootfs, "/disk").iterdir())
    except OSError:
        names = []
    if len(names) != 1:
        found = ", ".join(names) or "nothing"
        message = f'image "{reference}": expected one file in /disk, found {found}; set containerDisk.path'
        raise RuntimeFailure(RuntimeReason.CREATE, message)
    return f"/disk/{names[0]}"


def _overlay(disk: Disk, source: ContainerDisk, image: Image, target: Path) -> DiskFile:
    base = _file_in(image, source.image, source.path or _only_disk(image, source.image))
    info = _attempt(disk, lambda: qcow2.inspect(base))
    if disk.read_only:
        return DiskFile(str(base), info.format)
    if not target.exists():
        _attempt(disk, lambda: qcow2.create(target, info.size, backing=base, backing_format=info.format))
    return DiskFile(str(target), "qcow2", str(base), info.format)


def _empty_disk(disk: Disk, source: EmptyDisk, target: Path) -> DiskFile:
    if not target.exists():
        _attempt(disk, lambda: qcow2.create(target, source.capacity))
    return DiskFile(str(target), "qcow2")


def _host_disk(disk: Disk, source: HostDisk) -> DiskFile:
    path = Path(source.path)
    if not path.exists():
        if not source.create:
            message = f'disk "{disk.name}": {path} does not exist; create it or set type: DiskOrCreate'
            raise RuntimeFailure(RuntimeReason.CREATE_CONFIG, message)
        _attempt(disk, lambda: _blank(path, source.capacity))
    if not path.is_file() and not path.is_block_device():
        raise RuntimeFailure(RuntimeReason.CREATE_CONFIG, f'disk "{disk.name}": {path} is not a file or block device')
    # By name, never by content: a guest may write any header into a raw disk and so choose what the next start opens.
    if path.suffix != ".qcow2":
        return DiskFile(str(path), "raw")
    return DiskFile(str(path), _attempt(disk, lambda: qcow2.inspect(path)).format)


def _blank(path: Path, size: int) -> None:
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.truncate(size)
    temporary.rename(path)


def _config_disk(disk: Disk, target: Path, files: Mapping[str, bytes], label: str) -> DiskFile:
    image = _attempt(disk, lambda: iso.build(files, label))

    def write() -> None:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = target.with_name(target.name + ".new")
        temporary.write_bytes(image)
        temporary.rename(target)

    _attempt(disk, write)
    return DiskFile(str(target), "raw")


def _object_files(source: ObjectFiles, objects: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    found = objects.get(source.key)
    if found is None:
        if source.optional:
            return {}
        kind, name = source.key.split("/", 1)
        raise RuntimeFailure(RuntimeReason.CREATE_CONFIG, f'{kind.removesuffix("s")} "{name}" not found')
    data = found.get("data") or {}
    if source.key.startswith("secrets/"):
        return {name: base64.b64decode(value) for name, value in data.items()}
    binary = found.get("binaryData") or {}
    return {n: str(v).encode() for n, v in data.items()} | {n: base64.b64decode(v) for n, v in binary.items()}


def _attempt(disk: Disk, action: Callable[[], T]) -> T:
    """Run a step on a disk's files; what goes wrong names the disk."""
    try:
        return action()
    except (OSError, ValueError) as error:
        raise RuntimeFailure(RuntimeReason.CREATE, f'disk "{disk.name}": {error}') from error
