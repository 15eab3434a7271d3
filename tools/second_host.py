"""A second test host: runs a command on this machine's files under another kernel, in a QEMU guest.

    sudo python tools/second_host.py [--memory 3072] [--timeout 900] [--results DIR] COMMAND…

The kernel is Debian's cloud kernel: unlike many hosts it has Open vSwitch's datapath, SCTP and bridge tracking as modules,
and version 2 of cgroups alone.  The guest sees this machine's root file system read-only (virtiofs) below a memory of its
own (overlay), so it needs no image, and nothing that the command does is left here: only what it writes to /results comes
back, into DIR.  Output is shown as it comes; the exit code is the command's, 124 after the timeout.  No network.

It runs on any machine that runs the VM tests: without KVM, some ten times slower, so that only ratios mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from isoplane.node.images.build import Entry
from isoplane.node.images.demo import busybox_entries, find_busybox
from isoplane.node.images.guest import cpio, download_kernel, load_order, read_kernel_package

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
MODULES = ("virtio_pci", "virtio_blk", "virtiofs", "overlay", "virtio_rng")
RESULTS_MIB = 64
TIMED_OUT = 124

INIT = """#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in {modules}; do insmod /modules/$module.ko || echo "second host: no module $module"; done
mkdir -p /host /memory /merged
mount -t virtiofs -o ro,noatime host /host
mount -t tmpfs -o size=90% memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work,xino=off overlay /merged
cp /run-command /merged/second-host
exec switch_root /merged /second-host
"""
RUN = """#!/bin/sh
export PATH={path} HOME=/root TMPDIR=/var/tmp LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /results /lib/modules/{release}
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs var-tmp /var/tmp
mkdir -p /run/lock /run/netns
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
mount --bind {modules} /lib/modules/{release}
ip link set lo up
hostname second-host
modprobe -a tun veth nf_conntrack
sysctl -qw kernel.printk=1
cd {directory}
{command} </dev/null
echo $? >/results/.exit
sync
tar -C /results -cf /dev/vda .
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


def kernel() -> tuple[Path, Path, str, dict[str, bytes]]:
    """(the kernel, its modules in a directory, its release, module → content). Unpacked once, into .cache."""
    package = asyncio.run(download_kernel(CACHE / "packages"))
    home = CACHE / "second-host" / package.stem
    release, image, modules = read_kernel_package(package)
    directory = home / "lib" / "modules" / release
    if not (home / "vmlinuz").exists():
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", str(package), str(home)], check=True)
        subprocess.run(["depmod", "-b", str(home), release], check=True)
        (home / "vmlinuz").write_bytes(image)
    return home / "vmlinuz", directory, release, modules


def ramdisk(command: list[str], release: str, directory: Path, modules: dict[str, bytes]) -> bytes:
    """What mounts this machine's files and runs the command on them."""
    order = load_order(MODULES, modules)
    script = RUN.format(
        path=os.environ["PATH"] + ":/usr/sbin:/sbin",
        release=release,
        modules=directory,
        directory=shlex.quote(os.getcwd()),
        command=shlex.join(command),
    )
    return cpio(
        [
            *busybox_entries(find_busybox()),
            Entry("modules"),
            *(Entry(f"modules/{name}.ko", 0o644, modules[name]) for name in order),
            Entry("run-command", 0o755, script.encode()),
            Entry("init", 0o755, INIT.format(modules=" ".join(order)).encode()),
        ]
    )


def share_files(stack: ExitStack, scratch: Path) -> Path:
    """Serve this machine's root, read-only, on a socket."""
    here, socket = scratch / "root", scratch / "host.sock"
    here.mkdir()
    script = (
        f"mount --make-rprivate / && mount --bind / {here} && mount -o remount,bind,ro {here} && "
        f"exec {VIRTIOFSD} --socket-path={socket} -o source={here} -o cache=always -o sandbox=chroot -o log_level=err"
    )
    server = subprocess.Popen(["unshare", "-m", "sh", "-c", script])
    stack.callback(server.wait)
    stack.callback(server.terminate)
    while not socket.exists():
        if server.poll() is not None:
            raise RuntimeError(f"{VIRTIOFSD} ended with {server.returncode}")
        time.sleep(0.02)
    return socket


def run(command: list[str], memory: int, timeout: float, results: Path | None) -> int:
    """The command's exit code."""
    if not VIRTIOFSD.exists():
        raise SystemExit(f"{VIRTIOFSD} is not here: on Debian 12, apt-get install qemu-system-common")
    image, directory, release, modules = kernel()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isoplane-second-host-")))
        socket = share_files(stack, scratch)
        initrd, disk = scratch / "initrd", scratch / "results"
        initrd.write_bytes(ramdisk(command, release, directory, modules))
        with disk.open("wb") as file:
            file.truncate(RESULTS_MIB << 20)
        machine = [
            "qemu-system-x86_64", "-M", "pc", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-nodefaults",
            "-smp", str(os.cpu_count() or 1), "-m", f"{memory}M",
            "-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on", "-numa", "node,memdev=memory",
            "-chardev", f"socket,id=files,path={socket}", "-device", "vhost-user-fs-pci,chardev=files,tag=host",
            "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe", "-device", "virtio-rng-pci",
            "-kernel", str(image), "-initrd", str(initrd), "-no-reboot", "-display", "none", "-serial", "stdio",
            "-append", "console=ttyS0 quiet no_timer_check mitigations=off panic=-1",
        ]  # fmt: skip
        try:
            subprocess.run(machine, stdin=subprocess.DEVNULL, timeout=timeout, check=True)
        except subprocess.TimeoutExpired:
            print(f"the second host was stopped after {timeout:g} s", file=sys.stderr)
            return TIMED_OUT
        return collect(disk, results)


def collect(disk: Path, results: Path | None) -> int:
    """Unpack what the guest left. RuntimeError when it left nothing: the console says why."""
    try:
        with tarfile.open(disk) as archive:
            code = archive.extractfile("./.exit")
            if code is None:
                raise RuntimeError("the second host told no exit code")
            if results is not None:
                results.mkdir(parents=True, exist_ok=True)
                archive.extractall(results, filter="data")
                (results / ".exit").unlink()
            return int(code.read())
    except tarfile.TarError as error:
        raise RuntimeError(f"the second host left no results: {error}") from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, default=3072, help="MiB")
    parser.add_argument("--timeout", type=float, default=900, help="seconds")
    parser.add_argument("--results", type=Path, help="where what the command wrote to /results goes")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("which command?")
    return run(arguments.command, arguments.memory, arguments.timeout, arguments.results)


if __name__ == "__main__":
    sys.exit(main())
