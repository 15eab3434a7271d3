"""The demo's machine image, built from Debian packages: a kernel and a ramdisk that serves a page.

    isoplane.io/demo/guest:1   /boot/vmlinuz and /boot/initrd.img, for kernelBoot

The kernel is Debian's cloud kernel, taken from its package without installing it; the ramdisk is busybox, the few kernel
modules a QEMU guest needs, and the scripts in guest_files/.  It boots in two to three seconds without KVM, takes its
address by DHCP, serves http://ADDRESS:8080/, obeys the power button within 0.1 s and has a shell on its serial console.
"""

from __future__ import annotations

import asyncio
import io
import lzma
import os
import pwd
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

from isoplane.node.images.build import Entry, write_layout
from isoplane.node.images.demo import busybox_entries, find_busybox
from isoplane.node.images.model import Image, ImageError, Progress, ProgressCallback
from isoplane.node.images.store import ImageStore
from isoplane.node.programs import which

GUEST_IMAGE = "isoplane.io/demo/guest:1"
KERNEL_PATH = "/boot/vmlinuz"
INITRD_PATH = "/boot/initrd.img"

METAPACKAGE = "linux-image-cloud-amd64"
_MODULES = ("virtio_pci", "virtio_net", "button", "evdev", "pvpanic_mmio", "virtio_rng", "virtio_blk", "isofs")
_DOWNLOAD_TIMEOUT = 600.0


async def build_guest(
    store: ImageStore,
    progress: ProgressCallback | None = None,
    *,
    cache: Path | None = None,
    kernel_package: Path | None = None,
) -> Image:
    """Build and load the image. ``cache`` keeps the kernel's package for next time; ``kernel_package`` is a .deb to use
    instead of downloading one. Raises ImageError saying what is missing."""
    say = progress or (lambda _: None)
    busybox = find_busybox()
    with tempfile.TemporaryDirectory(prefix="isoplane-build-") as scratch:
        package = kernel_package
        if package is None:
            say(Progress("downloading the guest's kernel"))
            package = await download_kernel(cache or Path(scratch))
        say(Progress("building the guest's ramdisk"))
        layout = Path(scratch) / "layout"
        await asyncio.to_thread(_write_image, layout, package, busybox)
        return await store.load(str(layout), GUEST_IMAGE, progress)


def _write_image(layout: Path, package: Path, busybox: Path) -> None:
    release, kernel, modules = read_kernel_package(package)
    entries = [
        Entry("boot"),
        Entry(KERNEL_PATH, 0o644, kernel),
        Entry(INITRD_PATH, 0o644, ramdisk(busybox, release, modules)),
    ]
    write_layout(layout, entries, {"Labels": {"org.opencontainers.image.title": "isoplane demo guest"}})


# -- the kernel ---------------------------------------------------------------------------------------------------------


async def download_kernel(directory: Path) -> Path:
    """Debian's current cloud kernel as a .deb in ``directory``, from there if it is there. Raises ImageError."""
    for tool in ("apt-cache", "apt-get", "dpkg-deb"):
        if which(tool) is None:
            raise ImageError(
                f"{tool} is not on the PATH: the guest's kernel comes from a Debian package; on another system fetch "
                "linux-image-…-cloud-amd64 yourself and name the .deb"
            )
    directory.mkdir(parents=True, exist_ok=True)
    depends = await _run(directory, "apt-cache", "depends", "--important", METAPACKAGE)
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise ImageError(f"apt knows no package {METAPACKAGE}: run `apt-get update`")
    name = found[1]
    policy = await _run(directory, "apt-cache", "policy", name)
    version = re.search(r"Candidate: (\S+)", policy)
    pattern = f"{name}_{version[1].replace(':', '%3a')}_*.deb" if version else f"{name}_*.deb"
    cached = next(iter(sorted(directory.glob(pattern))), None)
    if cached is None:
        # Into a directory of its own first, so that nobody finds half a package; and as the caller, who owns that
        # directory, for apt's own user could not write there.
        with tempfile.TemporaryDirectory(dir=directory, prefix=".download-") as scratch:
            await _run(Path(scratch), "apt-get", "-q", "-o", f"APT::Sandbox::User={_user()}", "download", name)
            for package in Path(scratch).glob("*.deb"):
                package.replace(directory / package.name)
        cached = next(iter(sorted(directory.glob(pattern))), None)
    if cached is None:
        raise ImageError(f"apt-get download {name} left no file in {directory}")
    return cached


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


async def _run(directory: Path, *command: str) -> str:
    child = await asyncio.create_subprocess_exec(
        *command, cwd=directory, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    try:
        async with asyncio.timeout(_DOWNLOAD_TIMEOUT):
            output, errors = await child.communicate()
    except TimeoutError:
        child.kill()
        raise ImageError(f"{' '.join(command)} took more than {_DOWNLOAD_TIMEOUT:g} s") from None
    if child.returncode:
        raise ImageError(f"{' '.join(command)}: {errors.decode(errors='replace').strip() or child.returncode}")
    return output.decode(errors="replace")


def read_kernel_package(package: Path) -> tuple[str, bytes, dict[str, bytes]]:
    """(release, kernel, module name → uncompressed module) of a kernel's .deb. Raises ImageError."""
    try:
        unpacked = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=True, timeout=120
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else b""
        detail = said.decode(errors="replace").strip() or str(error)
        raise ImageError(f"{package} cannot be unpacked: {detail}") from error
    release, kernel = "", b""
    modules: dict[str, bytes] = {}
    wanted = re.compile(r".*/([^/]+)\.ko(\.xz)?")
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as archive:
        for member in archive:
            match = wanted.fullmatch(member.name)
            if not member.isfile() or (match is None and not member.name.startswith("./boot/vmlinuz-")):
                continue
            file = archive.extractfile(member)
            content = file.read() if file else b""
            if match is None:
                release, kernel = member.name.partition("vmlinuz-")[2], content
            else:
                modules[_module_name(match[1])] = lzma.decompress(content) if match[2] else content
    if not kernel:
        raise ImageError(f"{package} holds no /boot/vmlinuz-*: it is not a kernel package")
    return release, kernel, modules


def _module_name(name: str) -> str:
    return name.replace("-", "_")


def load_order(wanted: Iterable[str], modules: Mapping[str, bytes]) -> list[str]:
    """``wanted`` modules with all they depend on, in the order to load them. Raises ImageError when one is missing."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name not in modules:
            raise ImageError(f"the kernel package has no module {name}")
        for needed in _depends(modules[name]):
            visit(needed)
        ordered.append(name)

    for name in wanted:
        visit(name)
    return ordered


def _needs(name: str, modules: Mapping[str, bytes]) -> list[str]:
    """All that a module depends on, what it needs directly first, as modules.dep lists it."""
    return [needed for needed in reversed(load_order((name,), modules)) if needed != name]


def _depends(module: bytes) -> list[str]:
    """What a module says it needs, from its .modinfo section."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [_module_name(name) for name in found[1].decode().split(",") if name] if found else []


# -- the ramdisk --------------------------------------------------------------------------------------------------------


def ramdisk(busybox: Path, release: str, modules: Mapping[str, bytes]) -> bytes:
    """The initial ramdisk, uncompressed: unpacking it would cost an emulated CPU more than loading it does."""
    loaded = load_order(_MODULES, modules)
    depends = "".join(f"{name}.ko: {' '.join(f'{n}.ko' for n in _needs(name, modules))}\n" for name in loaded)
    home = f"lib/modules/{release}"
    files = resources.files("isoplane.node.images") / "guest_files"

    def script(name: str) -> bytes:
        return files.joinpath(name).read_bytes()

    entries = [
        *busybox_entries(busybox),
        *(Entry(name) for name in ("lib", "lib/modules", "www", "mnt/seed", "etc/acpi", "etc/acpi/PWRF", "var/run")),
        Entry("init", 0o755, script("init.sh")),
        Entry("etc/dhcp", 0o755, script("dhcp.sh")),
        Entry("etc/page", 0o755, script("page.sh")),
        Entry("etc/power", 0o755, script("power.sh")),
        Entry("etc/inittab", 0o644, script("inittab.txt")),
        Entry("etc/acpi/PWRF/00000080", 0o755, b"#!/bin/sh\nexec /etc/power off\n"),
        Entry(home),
        Entry(f"{home}/modules.dep", 0o644, depends.encode()),
        *(Entry(f"{home}/{name}.ko", 0o644, modules[name]) for name in loaded),
    ]
    return cpio(entries)


def cpio(entries: Iterable[Entry]) -> bytes:
    """A "newc" archive, as the kernel unpacks it, with the console device that its first process needs."""
    archive = bytearray()
    number = 0

    def add(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        nonlocal number
        number += 1
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        archive.extend(b"070701" + b"".join(b"%08x" % field for field in fields) + encoded)
        archive.extend(bytes(-len(archive) % 4) + content)
        archive.extend(bytes(-len(archive) % 4))

    for entry in entries:
        path = entry.path.strip("/")
        if entry.link:
            add(path, 0o120777, entry.link.encode())
        elif entry.content is None:
            add(path, 0o040000 | entry.mode)
        else:
            add(path, 0o100000 | entry.mode, entry.content)
    add("dev/console", 0o020600, device=(5, 1))
    add("TRAILER!!!", 0)
    return bytes(archive)
