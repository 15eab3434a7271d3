"""What a host's QEMU offers machines by name: processors, their features, machine types. Pure.

A real node asks its QEMU when it starts; the simulated one, which has none, takes the names that QEMU and KubeVirt know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

HOST_MODELS = ("host-model", "host-passthrough")
"""KubeVirt's names for the best that the host can give; everywhere."""
_VERSIONED = re.compile(r"(.+)-v[0-9]+")


@dataclass(frozen=True, slots=True)
class MachineOffer:
    """The names that QEMU takes. ``whose``: how the one that lacks a name is called in a refusal."""

    cpu_models: frozenset[str]
    cpu_features: frozenset[str]
    machine_types: frozenset[str]
    whose: str = "this host's QEMU"
    versions: bool = field(default=False)
    """Whether a model may also be named with a version behind it (``EPYC-v2``), which no list needs to spell out."""

    def has_model(self, name: str) -> bool:
        versioned = _VERSIONED.fullmatch(name) if self.versions else None
        return name in HOST_MODELS or name in self.cpu_models or bool(versioned and versioned[1] in self.cpu_models)

    def has_feature(self, name: str) -> bool:
        """QEMU reads ``_`` as ``-``, as libvirt writes some names, and ``.`` in those of SSE."""
        return _plain(name) in self.cpu_features

    def has_machine(self, name: str) -> bool:
        return name in self.machine_types


def machine_offer(models: Iterable[str], features: Iterable[str], machines: Iterable[str]) -> MachineOffer:
    """What one host's QEMU said of itself."""
    return MachineOffer(frozenset(models), frozenset(map(_plain, features)), frozenset(machines))


def _plain(feature: str) -> str:
    return feature.replace("_", "-").replace(".", "-")


_MODELS = """
    486 athlon base Broadwell Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS Cascadelake-Server
    Cascadelake-Server-noTSX ClearwaterForest Conroe Cooperlake core2duo coreduo Denverton Dhyana DiamondRapids
    EPYC EPYC-Genoa EPYC-IBPB EPYC-Milan EPYC-Rome EPYC-Turin GraniteRapids Haswell Haswell-IBRS Haswell-noTSX
    Haswell-noTSX-IBRS host Icelake-Server Icelake-Server-noTSX IvyBridge IvyBridge-IBRS KnightsMill kvm32 kvm64
    max n270 Nehalem Nehalem-IBRS Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5 Penryn pentium pentium2
    pentium3 phenom qemu32 qemu64 SandyBridge SandyBridge-IBRS SapphireRapids SierraForest Skylake-Client
    Skylake-Client-IBRS Skylake-Client-noTSX-IBRS Skylake-Server Skylake-Server-IBRS Skylake-Server-noTSX-IBRS
    Snowridge Westmere Westmere-IBRS YongFeng
    """
_FEATURES = """
    3dnow 3dnowext 3dnowprefetch abm ace2 ace2-en acpi adx aes amd-no-ssb amd-psfd amd-ssbd amd-stibp amx-bf16
    amx-complex amx-fp16 amx-int8 amx-tile apic arat arch-capabilities arch-lbr auto-ibrs avic avx avx-ifma
    avx-ne-convert avx-vnni avx-vnni-int16 avx-vnni-int8 avx10 avx10-128 avx10-256 avx10-512 avx2 avx512-4fmaps
    avx512-4vnniw avx512-bf16 avx512-fp16 avx512-vp2intersect avx512-vpopcntdq avx512bitalg avx512bw avx512cd
    avx512dq avx512er avx512f avx512ifma avx512pf avx512vbmi avx512vbmi2 avx512vl avx512vnni bhi-ctrl bhi-no
    bmi1 bmi2 bus-lock-detect cet-ibt cet-ss cid cldemote clflush clflushopt clwb clzero cmov cmp-legacy
    cmpccxadd core-capability cr8legacy cx16 cx8 dca ddpd-u de decodeassists ds ds-cpl dtes64 eraps erms est
    extapic f16c fb-clear fbsdp-no flushbyasid fma fma4 fpu fred fsgsbase fsrc fsrm fsrs full-width-write fxsr
    fxsr-opt fzrm gds-no gfni hle ht hypervisor ia64 ibpb ibpb-brtype ibrs ibrs-all ibs intel-pt intel-pt-lip
    invpcid invtsc ipred-ctrl its-no kvm-asyncpf kvm-asyncpf-int kvm-hint-dedicated kvm-mmu kvm-msi-ext-dest-id
    kvm-nopiodelay kvm-poll-control kvm-pv-eoi kvm-pv-ipi kvm-pv-sched-yield kvm-pv-tlb-flush kvm-pv-unhalt
    kvm-steal-time kvmclock kvmclock-stable-bit la57 lahf-lm lam lbr-fmt lbrv lkgs lm lwp mca mcdt-no mce
    md-clear mds-no misalignsse mmx mmxext monitor movbe movdir64b movdiri movrs mpx msr msr-imm mtrr
    no-nested-data-bp nodeid-msr npt nrip-save null-sel-clr-base nx osvw overflow-recov pae pat pause-filter pbe
    pbrsb-no pcid pclmulqdq pcommit pdcm pdpe1gb perfctr-core perfctr-nb perfmon-v2 pfthreshold pge phe phe-en
    pks pku pmm pmm-en pn pni popcnt prefetchi pschange-mc-no psdp-no pse pse36 rdctl-no rdpid rdrand rdseed
    rdtscp rfds-clear rfds-no rrsba-ctrl rsba rtm sbdr-ssdp-no sbpb sep serialize sgx sgx-debug sgx-exinfo
    sgx-kss sgx-mode64 sgx-provisionkey sgx-tokenkey sgx1 sgx2 sgxlc sha-ni sha512 skinit skip-l1dfl-vmentry sm3
    sm4 smap smep smx spec-ctrl split-lock-detect srso-no srso-user-kernel-no ss ssb-no ssbd sse sse2 sse4.1
    sse4.2 sse4a ssse3 stibp stibp-always-on succor svm svm-lock svme-addr-chk syscall taa-no tbm tce tm tm2
    topoext tsc tsc-adjust tsc-deadline tsc-scale tsx-ctrl tsx-ldtrk umip v-vmsave-vmload vaes vgif virt-ssbd
    vmcb-clean vme vmx vmx-activity-hlt vmx-activity-shutdown vmx-activity-wait-sipi vmx-apicv-register
    vmx-apicv-vid vmx-apicv-x2apic vmx-apicv-xapic vmx-cr3-load-noexit vmx-cr3-store-noexit vmx-cr8-load-exit
    vmx-cr8-store-exit vmx-desc-exit vmx-encls-exit vmx-entry-ia32e-mode vmx-entry-load-bndcfgs
    vmx-entry-load-efer vmx-entry-load-pat vmx-entry-load-perf-global-ctrl vmx-entry-load-pkrs
    vmx-entry-load-rtit-ctl vmx-entry-noload-debugctl vmx-ept vmx-ept-1gb vmx-ept-2mb vmx-ept-advanced-exitinfo
    vmx-ept-execonly vmx-eptad vmx-eptp-switching vmx-exit-ack-intr vmx-exit-clear-bndcfgs
    vmx-exit-clear-rtit-ctl vmx-exit-load-efer vmx-exit-load-pat vmx-exit-load-perf-global-ctrl
    vmx-exit-load-pkrs vmx-exit-nosave-debugctl vmx-exit-save-efer vmx-exit-save-pat
    vmx-exit-save-preemption-timer vmx-flexpriority vmx-hlt-exit vmx-ins-outs vmx-intr-exit vmx-invept
    vmx-invept-all-context vmx-invept-single-context vmx-invept-single-context-noglobals vmx-invlpg-exit
    vmx-invpcid-exit vmx-invvpid vmx-invvpid-all-context vmx-invvpid-single-addr vmx-io-bitmap vmx-io-exit
    vmx-monitor-exit vmx-movdr-exit vmx-msr-bitmap vmx-mtf vmx-mwait-exit vmx-nmi-exit vmx-page-walk-4
    vmx-page-walk-5 vmx-pause-exit vmx-ple vmx-pml vmx-posted-intr vmx-preemption-timer vmx-rdpmc-exit
    vmx-rdrand-exit vmx-rdseed-exit vmx-rdtsc-exit vmx-rdtscp-exit vmx-secondary-ctls vmx-shadow-vmcs
    vmx-store-lma vmx-true-ctls vmx-tsc-offset vmx-tsc-scaling vmx-unrestricted-guest vmx-vintr-pending
    vmx-vmfunc vmx-vmwrite-vmexit-fields vmx-vnmi vmx-vnmi-pending vmx-vpid vmx-wbinvd-exit vmx-xsaves
    vmx-zero-len-inject vnmi vpclmulqdq waitpkg wbnoinvd wdt wrmsrns x2apic xcrypt xcrypt-en xfd xgetbv1 xop
    xsave xsavec xsaveerptr xsaveopt xsaves xstore xstore-en xtpr zero-fcs-fds
    """
_RELEASES = (
    *("1.4", "1.5", "1.6", "1.7", "4.0.1"),
    *(f"2.{minor}" for minor in range(13)),
    *(f"{major}.{minor}" for major in range(3, 11) for minor in range(3)),
)

KNOWN = MachineOffer(
    frozenset(_MODELS.split()),
    frozenset(map(_plain, _FEATURES.split())),
    frozenset({"pc", "q35", *(f"pc-{kind}-{release}" for kind in ("i440fx", "q35") for release in _RELEASES)}),
    whose="QEMU",
    versions=True,
)
"""What releases of QEMU know, for where none is installed to be asked."""
