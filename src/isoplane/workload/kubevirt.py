"""What KubeVirt asks a cluster for to run a machine, by KubeVirt's minor version, as data.

:mod:`~isoplane.workload.overhead` and :mod:`~isoplane.workload.machine` read these tables and hold no figure of their own, so
that a new version is a new row.  Which version counts is a QuotaPolicy's ``spec.kubevirtVersion``.

Source: KubeVirt v1.4.1, v1.5.2, v1.6.0, v1.7.0, v1.8.0 and v1.9.0: GetMemoryOverhead and the resource renderer
(pkg/virt-controller/services/{renderresources,template,serialconsolelog,virtiofs}.go, from 1.8 on also
pkg/hypervisor/kvm/hypervisorbackend.go), pkg/defaults/defaults.go, pkg/container-disk, pkg/network/resources.  Held against
KubeVirt's own renderer: tools/kubevirt_charges.sh, tests/golden/kubevirt.

QEMU itself is 30 Mi in every released version; builds from the branch after 1.9 say 50 Mi, which no release does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MI = 2**20
MB = 10**6


@dataclass(frozen=True, slots=True)
class Formula:
    """One version's figures, in bytes and millicores."""

    virtlogd: int = 25 * MI
    graphics: int = 32 * MI
    writes_memory_request: bool = False
    """Whether admission writes the guest's size into a request that is not stated: page tables are then counted for it."""
    ratio_spares_guaranteed: bool = False
    """Whether additionalGuestMemoryOverheadRatio leaves out what a guaranteed machine pays."""
    io_threads: bool = True
    """Whether the threads of an I/O pool take CPUs."""
    encrypted_snp: bool = True
    """Whether SEV-SNP guests pay as SEV guests do."""
    reserved_overhead: bool = True
    """Whether what the author sets aside (domain.memory.reservedOverhead) is added."""
    passt: int = 250 * MI
    console_log_is_sidecar: bool = True
    """Whether the console log runs beside the steps of the initialisation."""
    image_volumes: bool = False
    """Whether container disks are mounted as image volumes, so that none needs a container that stays."""


FORMULAS: Mapping[str, Formula] = {
    "1.4": Formula(
        virtlogd=20 * MI, graphics=16 * MI, writes_memory_request=True, ratio_spares_guaranteed=True, io_threads=False,
        encrypted_snp=False, reserved_overhead=False, passt=0, console_log_is_sidecar=False,
    ),
    "1.5": Formula(
        graphics=16 * MI, writes_memory_request=True, ratio_spares_guaranteed=True, encrypted_snp=False,
        reserved_overhead=False, passt=0, console_log_is_sidecar=False,
    ),
    "1.6": Formula(writes_memory_request=True, encrypted_snp=False, reserved_overhead=False, passt=0),
    "1.7": Formula(reserved_overhead=False, passt=0),
    "1.8": Formula(),
    "1.9": Formula(image_volumes=True),
}  # fmt: skip

PROCESSES = {"virt-launcher-monitor": 25 * MI, "virt-launcher": 100 * MI, "virtqemud": 40 * MI, "qemu": 30 * MI}
"""What every machine pays, virtlogd and the I/O thread aside."""
PER_VCPU = 8 * MI
IO_THREAD = 8 * MI
ARM64_FIRMWARE = 128 * MI
VFIO = 1024 * MI
DOWNWARD_METRICS = MI
EXEC_PROBES, EXEC_PROBE = 100 * MI, 10 * MI
"""Once for all command probes, and for each."""
ENCRYPTED = 256 * MI
TPM = 53 * MI
GUARANTEED = 100 * MI

CPU_ALLOCATION_RATIO = 10
"""vCPUs a requested CPU carries."""
MEMORY_OVERCOMMIT = 100
"""Guest memory in percent of its request."""
LAUNCHER_STORAGE = 50 * MB
"""Ephemeral storage that the launcher takes beside what the author asks for."""


@dataclass(frozen=True, slots=True)
class Helper:
    """A container of the launcher Pod beside the guest's: cpu in millicores, everything else in bytes."""

    requests: Mapping[str, int] = field(hash=False)
    limits: Mapping[str, int] = field(hash=False)


CONSOLE_LOG = Helper({"cpu": 5, "memory": 35 * MB}, {"cpu": 15, "memory": 60 * MB})
CONTAINER_DISK = Helper({"cpu": 1, "memory": MB, "ephemeral-storage": LAUNCHER_STORAGE}, {"cpu": 10, "memory": 40 * MB})
DISK_TOOL = Helper({"cpu": 10, "memory": MB}, {"cpu": 100, "memory": 40 * MB})
"""Copies the tool that container disks run, once, at the start."""
GUARANTEED_DISK_TOOL = Helper({"cpu": 10, "memory": 40 * MB}, {"cpu": 10, "memory": 40 * MB})
VIRTIOFS = Helper({"cpu": 10, "memory": MB}, {"cpu": 100, "memory": 80 * MB})
HOOK = Helper({}, {})
GUARANTEED_HOOK = Helper({"cpu": 200, "memory": 64 * MB}, {"cpu": 200, "memory": 64 * MB})


def formula(version: str) -> Formula:
    """Raises ValueError for a version that has no row."""
    if version not in FORMULAS:
        raise ValueError(f"no formula for KubeVirt {version!r}: choose one of {', '.join(FORMULAS)}")
    return FORMULAS[version]
