"""Which QEMU, and whether KVM works: found out by really booting something.

/dev/kvm opens on hosts where guests then hang or crawl (nested virtualisation without support for it), so its presence
proves nothing.  The probe boots a 512-byte sector that needs the timer's interrupts, protected mode and memory at full
speed, and then says so on QEMU's debug-exit port; TCG takes it in 0.4 s, working KVM in less.  What a probe found is kept
for as long as the host is up and QEMU stays the same, for every plane of the host; that KVM does not work, for a while
only: a host that was too busy to boot 512 bytes in time is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoplane.node.programs import which
from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason
from isoplane.node.runtime.qemu.command import KVM, TCG
from isoplane.workload.machine_offer import MachineOffer, machine_offer

BINARY = "qemu-system-x86_64"
MEMORY = Path("/run/isoplane-qemu.json")
"""What was found on this host since it started."""
PROBE_TIMEOUT = 2.0
DOUBT_SECONDS = 3600.0
"""How long it is believed that KVM does not work here."""
_SUCCESS = 65
"""QEMU's exit status when the guest writes 0x20 to the debug-exit port: (0x20 << 1) | 1."""

_BOOT_SECTOR = (
    bytes.fromhex(
        # 16-bit: wait for three timer ticks, halted in between.
        "fa 31c0 8ed8 fb"  # cli; xor ax,ax; mov ds,ax; sti
        "8b1e6c04 83c303"  # mov bx,[0x46c]; add bx,3
        "f4 391e6c04 75f9"  # 1: hlt; cmp [0x46c],bx; jne 1b
        # Enter protected mode with flat segments.
        "fa 660f01166c7c"  # cli; lgdt [0x7c6c]
        "0f20c0 0c01 0f22c0"  # mov eax,cr0; or al,1; mov cr0,eax
        "ea287c0800"  # ljmp 8:0x7c28
        "66b81000 8ed8 8ec0"  # mov ax,16; mov ds,ax; mov es,ax
        # 32-bit: read, add and write 16 MiB eight times over.
        "ba08000000"  # mov edx,8
        "bf00001000 b900004000"  # 2: mov edi,1 MiB; mov ecx,4 Mi
        "010f 83c704 49 75f8"  # 3: add [edi],ecx; add edi,4; dec ecx; jnz 3b
        "4a 75eb"  # dec edx; jnz 2b
        "66baf400 b020 ee"  # mov dx,0xf4; mov al,0x20; out dx,al
        "f4 ebfd"  # 4: hlt; jmp 4b
        "0000000000000000 ffff0000009acf00 ffff00000092cf00"  # descriptors: null, code, data
        "1700 547c0000"  # their table: limit, address
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)


def find_binary() -> str:
    """The path of QEMU. Raises RuntimeFailure saying how to get it."""
    found = which(BINARY)
    if found is None:
        message = f"{BINARY} is not on the PATH: install it, on Debian with `apt-get install qemu-system-x86`"
        raise RuntimeFailure(RuntimeReason.SANDBOX, message)
    return found


@dataclass(frozen=True, slots=True)
class Host:
    """What machines are run with here."""

    binary: str
    version: tuple[int, int]
    accelerator: str


async def probe_host(binary: str, memory: Path, accelerator: str | None = None) -> Host:
    """QEMU's version, and ``kvm`` where a guest really runs under it, else ``tcg``, unless ``accelerator`` says which.

    ``memory`` is the file that remembers the answers.  Raises RuntimeFailure when QEMU does not run at all.
    """
    known = _remembered(binary, memory)
    before = dict(known)
    if known.get("accelerator") == TCG and not 0 <= time.time() - known.get("probed", 0.0) < DOUBT_SECONDS:
        del known["accelerator"]
    if "version" not in known:
        known["version"] = await _version(binary)
    if accelerator is None and "accelerator" not in known:
        usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
        known["accelerator"] = KVM if usable and await boots(binary, KVM) else TCG
        known["probed"] = time.time()
    _remember(memory, known, before)
    major, minor = known["version"]
    return Host(binary, (major, minor), accelerator or known["accelerator"])


async def probe_offer(binary: str, memory: Path) -> MachineOffer:
    """The processors, features and machine types that this QEMU has. Raises RuntimeFailure when it does not run at all."""
    known = _remembered(binary, memory)
    before = dict(known)
    if "offer" not in known:
        processors, machines = [await _told(binary, option, "help") for option in ("-cpu", "-machine")]
        listed, _, features = processors.partition("Recognized CPUID flags:")
        known["offer"] = [
            re.findall(r"^(?:x86 )?\s*([\w.-]+)", listed.partition("\n")[2], re.MULTILINE),
            features.split(),
            re.findall(r"^([\w.-]+)", machines.partition("\n")[2], re.MULTILINE),
        ]
    _remember(memory, known, before)
    return machine_offer(*known["offer"])


def _remembered(binary: str, memory: Path) -> dict[str, Any]:
    """What is known of this QEMU since the host started; at least which one it is."""
    found = os.stat(binary)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known: dict[str, Any] = {"boot": boot, "qemu": f"{found.st_size}-{found.st_mtime_ns}"}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        remembered = json.loads(memory.read_bytes())
        if known.items() <= remembered.items():
            known = remembered
    return known


def _remember(memory: Path, known: dict[str, Any], before: dict[str, Any]) -> None:
    if known != before:
        with contextlib.suppress(OSError):  # Nowhere to remember it: the next plane asks again.
            fresh = memory.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(known))
            fresh.rename(memory)


async def _version(binary: str) -> list[int]:
    told = await _told(binary, "--version")
    match = re.search(r"version (\d+)\.(\d+)", told)
    if match is None:
        raise RuntimeFailure(RuntimeReason.SANDBOX, f"{binary} --version does not work: {told.strip()}")
    return [int(match[1]), int(match[2])]


async def _told(binary: str, *arguments: str) -> str:
    child = await asyncio.create_subprocess_exec(
        binary, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await child.communicate()
    if child.returncode:
        said = (errors or output).decode(errors="replace").strip()
        raise RuntimeFailure(RuntimeReason.SANDBOX, f"{binary} {' '.join(arguments)} does not work: {said}")
    return output.decode(errors="replace")


async def boots(binary: str, accelerator: str, timeout: float = PROBE_TIMEOUT) -> bool:
    """Whether a guest gets through the boot sector within ``timeout`` seconds."""
    sector = os.memfd_create("isoplane-probe")  # a file that a killed plane does not leave behind
    try:
        os.write(sector, _BOOT_SECTOR)
        guest = await asyncio.create_subprocess_exec(
            binary, "-accel", accelerator, "-machine", "pc,hpet=off", "-m", "32", "-nodefaults", "-display", "none",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-no-reboot",
            "-drive", f"file=/dev/fd/{sector},format=raw,if=ide",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(sector,),
        )  # fmt: skip
    finally:
        os.close(sector)
    try:
        async with asyncio.timeout(timeout):
            return await guest.wait() == _SUCCESS
    except TimeoutError:
        return False
    finally:
        if guest.returncode is None:
            guest.kill()
            await guest.wait()
