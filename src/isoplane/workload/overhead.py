"""What a virtual machine costs in memory beyond its guest, as KubeVirt estimates it, by version of the formula.

KubeVirt adds this to the memory request of the pod that carries a guest, so a quota that ignored it would count another
amount than the cluster does.  Requests.py adds it to a VMI's request; nothing else needs it.

Source: KubeVirt GetMemoryOverhead (pkg/virt-controller, 1.9), whose terms are listed by name so that a new version is a
new row and not a new function.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from isoplane.objects import quantity

MI = 2**20
DEFAULT_VERSION = "1.9"
DEFAULT_VCPUS = 1

_FIXED: Mapping[str, Mapping[str, int]] = {
    "1.9": {"virt-launcher-monitor": 25 * MI, "virt-launcher": 100 * MI, "virtlogd": 25 * MI, "virtqemud": 40 * MI,
            "qemu": 30 * MI, "iothread": 8 * MI},
    "1.10": {"virt-launcher-monitor": 25 * MI, "virt-launcher": 100 * MI, "virtlogd": 25 * MI, "virtqemud": 40 * MI,
             "qemu": 50 * MI, "iothread": 8 * MI},
}  # fmt: skip
"""Version of the formula → what every machine pays, in bytes."""

VERSIONS = tuple(_FIXED)

_PER_VCPU = 8 * MI
_GRAPHICS = 32 * MI
_ARM64_FIRMWARE = 128 * MI
_VFIO = 1024 * MI
_DOWNWARD_METRICS = MI
_EXEC_PROBES, _EXEC_PROBE = 100 * MI, 10 * MI
_ENCRYPTED = 256 * MI
_TPM = 53 * MI
_GUARANTEED = 100 * MI


def vcpus(spec: Mapping[str, Any]) -> int:
    """The guest's virtual CPUs: its topology's non-zero parts multiplied, else the CPU limit or request; at least 1."""
    domain = spec.get("domain") or {}
    cpu = domain.get("cpu")
    count = 0
    if cpu:
        count = 1 if any(cpu.get(part) for part in ("cores", "sockets", "threads")) else 0
        for part in ("cores", "sockets", "threads"):
            count *= int(cpu.get(part) or 1)
    else:
        resources = domain.get("resources") or {}
        for side in ("limits", "requests"):
            if stated := (resources.get(side) or {}).get("cpu"):
                count = quantity.whole(stated)
                break
    return max(count, DEFAULT_VCPUS)


def memory_overhead(
    spec: Mapping[str, Any],
    memory_request: int,
    version: str = DEFAULT_VERSION,
    *,
    ratio: str | float = 1,
    binding: int = 0,
) -> int:
    """Bytes that a machine takes beside its guest.

    ``memory_request`` is the memory that the machine states as its request (else its limit), in bytes: KubeVirt counts page
    tables for that alone, and none for a machine that says only how large its guest is.  ``ratio`` is
    additionalGuestMemoryOverheadRatio, ``binding`` the network binding's own overhead in bytes.  Raises ValueError for a
    version that has no formula here.
    """
    if version not in _FIXED:
        raise ValueError(f"no memory overhead formula for KubeVirt {version!r}: choose one of {', '.join(VERSIONS)}")
    # One bit a 512 bytes of guest RAM, from the request rounded up to whole kilobytes (KubeVirt's ScaledValue).
    total = -(-memory_request // 1000) * 1000 // 512
    total += sum(_FIXED[version].values()) + _PER_VCPU * vcpus(spec)
    total += sum(_conditional(spec)) + _reserved(spec)
    # The factor applies to whole kilobytes too, and its addition is cut off, not rounded.
    total += int(-(-total // 1000) * (Fraction(str(ratio)) - 1)) * 1000
    return total + binding


def _conditional(spec: Mapping[str, Any]) -> list[int]:
    """The terms that only some machines pay."""
    domain = spec.get("domain") or {}
    devices = domain.get("devices") or {}
    terms: list[int] = []
    if devices.get("autoattachGraphicsDevice") is not False:
        terms.append(_GRAPHICS)
    if spec.get("architecture") == "arm64":
        terms.append(_ARM64_FIRMWARE)
    interfaces = devices.get("interfaces") or ()
    if devices.get("gpus") or devices.get("hostDevices") or any(i.get("sriov") is not None for i in interfaces):
        terms.append(_VFIO)
    if any(volume.get("downwardMetrics") is not None for volume in spec.get("volumes") or ()):
        terms.append(_DOWNWARD_METRICS)
    probes = [p for p in (spec.get("livenessProbe"), spec.get("readinessProbe")) if p and p.get("exec")]
    if probes:
        terms.append(_EXEC_PROBES + _EXEC_PROBE * len(probes))
    security = domain.get("launchSecurity") or {}
    if security.get("sev") is not None or security.get("snp") is not None:
        terms.append(_ENCRYPTED)
    tpm = devices.get("tpm")
    if tpm is not None and tpm.get("enabled") is not False:
        terms.append(_TPM)
    if dedicated(spec) or wants_guaranteed(spec):
        terms.append(_GUARANTEED)
    return terms


def _reserved(spec: Mapping[str, Any]) -> int:
    """What the author sets aside beside the guest (domain.memory.reservedOverhead)."""
    reserved = ((spec.get("domain") or {}).get("memory") or {}).get("reservedOverhead") or {}
    return quantity.whole(reserved.get("addedOverhead") or 0)


def dedicated(spec: Mapping[str, Any]) -> bool:
    """Whether the guest's CPUs are pinned (domain.cpu.dedicatedCpuPlacement)."""
    return bool(((spec.get("domain") or {}).get("cpu") or {}).get("dedicatedCpuPlacement"))


def wants_guaranteed(spec: Mapping[str, Any]) -> bool:
    """Whether cpu and memory are both requested and limited to the same amount."""
    resources = (spec.get("domain") or {}).get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in ("cpu", "memory"):
        if not requests.get(name) or quantity.parse(requests[name]) == 0:
            return False
        if quantity.parse(requests[name]) != quantity.parse(limits.get(name) or 0):
            return False
    return True
