"""What a virtual machine costs in memory beyond its guest, as KubeVirt estimates it.

KubeVirt adds this to the memory of the launcher's container that carries the guest, so a quota that ignored it would count
another amount than the cluster does.  :mod:`~isoplane.workload.machine` adds it to a VMI's request; the figures and their
source are :mod:`~isoplane.workload.kubevirt`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from isoplane.objects import quantity
from isoplane.objects.topology import vcpus
from isoplane.workload import kubevirt
from isoplane.workload.kubevirt import Formula


def memory_overhead(spec: Mapping[str, Any], memory_request: int, formula: Formula, *, ratio: str | float = 1) -> int:
    """Bytes that a machine takes beside its guest.

    ``memory_request``: the request that page tables are counted for, in bytes (:func:`isoplane.workload.machine.requested`).
    ``ratio``: KubeVirt's additionalGuestMemoryOverheadRatio.  Raises ValueError on a malformed quantity.
    """
    domain = spec.get("domain") or {}
    # One bit a 512 bytes of guest RAM, from the request rounded up to whole kilobytes (KubeVirt's ScaledValue).
    total = -(-memory_request // 1000) * 1000 // 512
    total += sum(kubevirt.PROCESSES.values()) + formula.virtlogd
    total += kubevirt.PER_VCPU * vcpus(domain) + kubevirt.IO_THREAD
    total += _conditional(spec, formula)
    pays_guaranteed = kubevirt.GUARANTEED if guaranteed(domain) else 0
    before, after = (0, pays_guaranteed) if formula.ratio_spares_guaranteed else (pays_guaranteed, 0)
    total += before
    # The factor applies to whole kilobytes too, and its addition is cut off, not rounded.
    total += int(-(-total // 1000) * (Fraction(str(ratio)) - 1)) * 1000
    interfaces = (domain.get("devices") or {}).get("interfaces") or ()
    return total + after + (formula.passt if any(i.get("passtBinding") is not None for i in interfaces) else 0)


def _conditional(spec: Mapping[str, Any], formula: Formula) -> int:
    """The terms that only some machines pay, those behind the ratio aside."""
    domain = spec.get("domain") or {}
    devices = domain.get("devices") or {}
    total = 0
    if devices.get("autoattachGraphicsDevice") is not False:
        total += formula.graphics
    if spec.get("architecture") == "arm64":
        total += kubevirt.ARM64_FIRMWARE
    interfaces = devices.get("interfaces") or ()
    if devices.get("gpus") or devices.get("hostDevices") or any(i.get("sriov") is not None for i in interfaces):
        total += kubevirt.VFIO
    if any(volume.get("downwardMetrics") is not None for volume in spec.get("volumes") or ()):
        total += kubevirt.DOWNWARD_METRICS
    probes = [p for p in (spec.get("livenessProbe"), spec.get("readinessProbe")) if p and p.get("exec")]
    if probes:
        total += kubevirt.EXEC_PROBES + kubevirt.EXEC_PROBE * len(probes)
    security = domain.get("launchSecurity") or {}
    if security.get("sev") is not None or (formula.encrypted_snp and security.get("snp") is not None):
        total += kubevirt.ENCRYPTED
    tpm = devices.get("tpm")
    if tpm is not None and tpm.get("enabled") is not False:
        total += kubevirt.TPM
    if formula.reserved_overhead:
        reserved = (domain.get("memory") or {}).get("reservedOverhead") or {}
        total += quantity.whole(reserved.get("addedOverhead") or 0)
    return total


def dedicated(domain: Mapping[str, Any]) -> bool:
    """Whether the guest's CPUs are pinned (domain.cpu.dedicatedCpuPlacement)."""
    return bool((domain.get("cpu") or {}).get("dedicatedCpuPlacement"))


def guaranteed(domain: Mapping[str, Any]) -> bool:
    """Whether its CPUs are pinned, or cpu and memory are both limited to what is requested; a limit stands in for a request."""
    if dedicated(domain):
        return True
    resources = domain.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in ("cpu", "memory"):
        limit = quantity.parse(limits.get(name) or 0)
        if not limit or (quantity.parse(requests.get(name) or 0) or limit) != limit:
            return False
    return True
