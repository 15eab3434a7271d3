"""The fields of a VirtualMachineInstance, and of the VirtualMachine that makes one: honoured, warned of, refused."""

from __future__ import annotations

from isoplane.workload.fields.table import Honoured, Rule, Table
from isoplane.workload.launcher import HOOKS

_ONE_NODE = "there is one node, and everything that fits runs on it"
_SCREEN = "a guest has a serial console, no screen"
_QUEUES = "a device has one queue"
_PLACES = "QEMU chooses where a device sits"
_PULL = "images are pulled with the credentials that the node has for skopeo"
_DNS = "DHCP tells a guest of no name server; cloudInitNoCloud can bring one"
_ANY = (None,)
_DEVICES = "spec.domain.devices"
_DISKS = f"{_DEVICES}.disks[]"
_CARDS = f"{_DEVICES}.interfaces[]"
_PROBES = "spec.{livenessProbe,readinessProbe}"
_CLOUD_INIT = "{networkData,networkDataBase64,networkDataSecretRef.name,secretRef.name,userData,userDataBase64}"
VOLUMES = ("containerDisk", "emptyDisk", "hostDisk", "cloudInitNoCloud", "configMap", "secret")
"""The volumes that a machine can have here."""

HONOURED: Honoured = {
    "unit/node/runtime/qemu/test_qemu_domain.py::test_topology": (
        "spec.domain.cpu.{cores,features[].{name,policy},model,sockets,threads}"
    ),
    "unit/node/runtime/qemu/test_qemu_domain.py::test_memory_may_come_from_resources": (
        "spec.domain.memory.guest spec.domain.resources.{limits,requests}[]"
    ),
    "unit/workload/test_machine.py::test_overcommit_and_allocation_ratio": "spec.domain.resources.overcommitGuestOverhead",
    "unit/workload/test_machine.py::test_what_is_set_aside_beside_the_guest_is_counted": (
        "spec.domain.memory.reservedOverhead.addedOverhead"
    ),
    "unit/node/runtime/qemu/test_qemu_domain.py::test_volumes_become_disks_in_declared_order": (
        f"{_DISKS}.{{bootOrder,cache,cdrom.bus,disk.{{bus,readonly}},name,serial}} spec.volumes[].name "
        "spec.volumes[].{containerDisk.{image,imagePullPolicy,path},emptyDisk.capacity,hostDisk.{capacity,path,type}} "
        f"spec.volumes[].cloudInitNoCloud.{_CLOUD_INIT} spec.volumes[].configMap.{{name,optional,volumeLabel}} "
        "spec.volumes[].secret.{optional,secretName,volumeLabel}"
    ),
    "unit/node/runtime/qemu/test_qemu_domain.py::test_defaults_are_kubevirts": (
        "spec.domain.firmware.kernelBoot.{container.{image,imagePullPolicy,initrdPath,kernelPath},kernelArgs} "
        f"spec.domain.machine.type {_CARDS}.{{model,name}} {_DEVICES}.autoattachPodInterface spec.networks[].name"
    ),
    "unit/node/runtime/qemu/test_qemu_command.py::test_the_demo_guests_command_line": (
        f"spec.domain.firmware.{{serial,uuid}} {_DEVICES}.{{rng,disableHotplug}}"
    ),
    "unit/node/runtime/qemu/test_qemu_switches.py::test_what_is_switched_off_is_off": (
        f"spec.domain.features.acpi.enabled {_CARDS}.state"
    ),
    "unit/node/runtime/qemu/test_qemu_switches.py::test_how_a_disk_is_opened": f"{_DISKS}.{{io,shareable}}",
    "integration/test_launcher_pods.py::test_eviction_stops_a_machine_gracefully": "spec.evictionStrategy",
    "unit/workload/test_start_paused.py::test_a_machine_may_start_paused": "spec.startStrategy",
    "e2e/test_qemu_machine.py::test_the_guest_takes_its_address_by_dhcp": f"{_CARDS}.{{bridge,masquerade}}",
    "unit/node/runtime/qemu/test_qemu_domain.py::test_an_agent_channel_is_there_when_a_probe_needs_it": (
        f"{_PROBES}.{{exec.command[],guestAgentPing}}"
    ),
    "unit/workload/test_probe_fields.py::test_a_probe_is_read_whole": (
        f"{_PROBES}.{{failureThreshold,initialDelaySeconds,periodSeconds,successThreshold,timeoutSeconds}} "
        f"{_PROBES}.{{httpGet.{{host,httpHeaders[].{{name,value}},path,port,scheme}},tcpSocket.{{host,port}}}}"
    ),
    "unit/workload/test_adapters.py::test_the_shape_says_who_what_and_how_much": (
        f"{_CARDS}.ports[].name spec.hostname"
    ),
    "unit/policy/test_policy_exposure.py::test_only_listed_ports_are_let_in": f"{_CARDS}.ports[].{{port,protocol}}",
    "unit/workload/test_delta.py::test_a_machine_is_asked_again_until_its_grace_is_over_and_then_destroyed": (
        "spec.terminationGracePeriodSeconds"
    ),
    "unit/placement/test_placement_fit.py::test_node_affinity": (
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[]"
        ".{matchExpressions,matchFields}[].{key,operator,values[]}"
    ),
    "unit/placement/test_placement_fit.py::test_why_not": "spec.nodeSelector[]",
    "unit/placement/test_placement_fit.py::test_tolerations": "spec.tolerations[].{effect,key,operator,value}",
    "integration/test_controllers_scheduler.py::test_gates_and_other_schedulers_are_respected": "spec.schedulerName",
    "integration/test_quota_admission.py::test_priority_is_one_handle_for_both_kinds": "spec.priorityClassName",
    "unit/workload/test_field_tables.py::test_values_that_are_fine_are_not_told": (
        f"spec.architecture spec.domain.features.apic.enabled {_DISKS}.cdrom.{{readonly,tray}} "
        f"{_DEVICES}.{{autoattachGraphicsDevice,autoattachSerialConsole,logSerialConsole}}"
    ),
}
"""What does what it does in KubeVirt."""

WARNED = Table(
    Rule("spec.affinity.{podAffinity,podAntiAffinity} spec.topologySpreadConstraints", _ONE_NODE),
    Rule("spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution", _ONE_NODE),
    Rule("spec.tolerations[].tolerationSeconds", "no taint evicts what runs"),
    Rule("spec.resourceClaims", "no devices are allocated"),
    Rule(f"metadata.annotations[{HOOKS}]", "no sidecar is run beside a machine, and none changes it"),
    Rule(
        "metadata.annotations[kubevirt.io/keep-launcher-alive-after-failure]",
        "there is no launcher: logs are kept until the object is deleted",
    ),
    Rule("spec.accessCredentials", "nothing is written into a running guest; cloudInitNoCloud can bring keys"),
    Rule("spec.dnsPolicy spec.dnsConfig", _DNS, unless=_ANY),
    Rule("spec.subdomain", "a guest is told its host name without a domain"),
    Rule(f"{_PROBES}.httpGet.protocol", "HTTP/1.1 is spoken"),
    Rule("spec.networks[].pod.{vmNetworkCIDR,vmIPv6NetworkCIDR}", "a guest has the workload's own address"),
    Rule("spec.domain.chassis", "the chassis is QEMU's own"),
    Rule("spec.domain.clock.{timezone,utc.offsetSeconds}", "a guest's clock starts at UTC"),
    Rule("spec.domain.clock.timer", "QEMU's own timers are used"),
    Rule("spec.domain.cpu.isolateEmulatorThread", "no CPU is set aside for QEMU itself"),
    Rule("spec.domain.cpu.maxSockets", "processors are not added while a guest runs"),
    Rule("spec.domain.cpu.realtime", "vCPUs are ordinary threads"),
    Rule("spec.domain.memory.maxGuest", "memory is not changed while a guest runs"),
    Rule("spec.domain.memory.reservedOverhead.memLock", "memory is not locked"),
    Rule("spec.domain.{ioThreadsPolicy,ioThreads.supplementalPoolThreadCount}", "disks share QEMU's own threads"),
    Rule("spec.domain.rebootPolicy", "a guest that reboots goes on in the same machine"),
    Rule("spec.domain.features.apic.enabled", "a machine always has an APIC", only=(False,)),
    Rule("spec.domain.features.apic.endOfInterrupt", "QEMU's own APIC is used"),
    Rule(
        "spec.domain.features.hyperv spec.domain.features.hypervPassthrough.enabled",
        "a guest is offered no enlightenments of Hyper-V, with KVM or without",
    ),
    Rule("spec.domain.features.kvm.hidden", "a guest may see what runs it"),
    Rule("spec.domain.features.pvspinlock.enabled", "spinlocks are QEMU's own choice", unless=_ANY),
    Rule(
        "spec.domain.features.smm.enabled",
        "the machine type says whether there is a system management mode",
        unless=_ANY,
    ),
    Rule("spec.domain.firmware.acpi", "no ACPI table is added"),
    Rule("spec.domain.firmware.bootloader.bios.useSerial", "the firmware says nothing on the serial console"),
    Rule(
        "spec.domain.firmware.kernelBoot.container.imagePullSecret spec.volumes[].containerDisk.imagePullSecret", _PULL
    ),
    Rule(f"{_DEVICES}.autoattachGraphicsDevice", _SCREEN, only=(True,)),
    Rule(f"{_DEVICES}.{{autoattachInputDevice,inputs,sound,video}}", _SCREEN),
    Rule(f"{_DEVICES}.autoattachMemBalloon", "memory is not taken back from a running guest"),
    Rule(f"{_DEVICES}.autoattachSerialConsole", "a machine always has a serial console", only=(False,)),
    Rule(f"{_DEVICES}.logSerialConsole", "the serial console is always logged", only=(False,)),
    Rule(f"{_DEVICES}.autoattachVSOCK", "a machine has no vsock device"),
    Rule(f"{_DEVICES}.{{blockMultiQueue,networkInterfaceMultiqueue}}", _QUEUES),
    Rule(f"{_DEVICES}.clientPassthrough", "no USB device of a client is redirected"),
    Rule(f"{_DEVICES}.downwardMetrics", "a guest is told no metrics of its host"),
    Rule(f"{_DEVICES}.panicDevices", "a panic is seen on the machine's own device"),
    Rule(f"{_DEVICES}.useVirtioTransitional", "virtio devices are what QEMU makes them: both old and new drivers work"),
    Rule(f"{_DISKS}.blockSize", "sectors have the size that QEMU chooses"),
    Rule(f"{_DISKS}.cdrom.readonly", "a cdrom is read only", only=(False,)),
    Rule(f"{_DISKS}.cdrom.tray", "the tray is closed", only=("open",)),
    Rule(f"{_DISKS}.changedBlockTracking", "changed blocks are not tracked"),
    Rule(f"{_DISKS}.dedicatedIOThread", "disks share QEMU's own threads"),
    Rule(f"{_DISKS}.errorPolicy", "a full disk pauses the guest until there is room, other errors are the guest's"),
    Rule(f"{_DISKS}.disk.pciAddress {_CARDS}.{{pciAddress,acpiIndex}}", _PLACES),
    Rule(f"{_DISKS}.tag {_CARDS}.tag", "no tag is told to a guest"),
    Rule(f"{_CARDS}.bootOrder", "a machine does not boot from the network"),
    Rule(f"{_CARDS}.macAddress", "the hardware address is made from the IP address"),
    Rule(f"{_CARDS}.dhcpOptions", "DHCP tells address, router, name and MTU"),
    Rule("spec.volumes[].hostDisk.shared", _ONE_NODE),
)
"""What is accepted and changes nothing."""

REFUSED = Table(
    Rule("spec.architecture", "machines are amd64 here; remove the field", unless=("", "amd64")),
    Rule(f"{_DEVICES}.gpus", "GPU passthrough is not something a machine can have here; remove the field"),
    Rule(
        f"{_DEVICES}.hostDevices", "host device passthrough is not something a machine can have here; remove the field"
    ),
    Rule(
        f"{_DEVICES}.filesystems", "virtiofs file systems are not something a machine can have here; remove the field"
    ),
    Rule(
        f"{_DEVICES}.tpm",
        "a TPM is not something a machine can have here; remove the field",
        unless=({"enabled": False},),
    ),
    Rule(f"{_DEVICES}.watchdog", "a watchdog is not something a machine can have here; remove the field"),
    Rule(
        "spec.domain.launchSecurity", "confidential launch is not something a machine can have here; remove the field"
    ),
    Rule("spec.domain.memory.hugepages", "huge pages are not something a machine can have here; remove the field"),
    Rule(
        "spec.domain.cpu.dedicatedCpuPlacement",
        "dedicated CPU placement is not something a machine can have here; remove the field",
    ),
    Rule("spec.domain.cpu.numa", "NUMA placement is not something a machine can have here; remove the field"),
    Rule(
        "spec.domain.firmware.bootloader.efi", "EFI firmware is not something a machine can have here; remove the field"
    ),
    Rule(f"{_DISKS}.lun", "SCSI passthrough needs a block device volume; use disk"),
    Rule(
        f"{_CARDS}.{{sriov,slirp,macvtap,passt,passtBinding,binding}}", "is no binding here; use masquerade or bridge"
    ),
    Rule("spec.networks[].multus", "there is one network here, the pod network"),
    Rule("spec.utilityVolumes", "volumes cannot be lent to a machine here; remove the field"),
    Rule(
        "spec.volumes[].{cloudInitConfigDrive,containerPath,dataVolume,downwardAPI,downwardMetrics,ephemeral,memoryDump,"
        "persistentVolumeClaim,serviceAccount,sysprep}",
        f"is no volume that a machine can have here; use one of {', '.join(VOLUMES)}",
    ),
)
"""What no machine can have here: it is refused when it is written, and by the machines' runtime too."""

MAKER_HONOURED: Honoured = {
    "unit/controllers/test_virtualmachine_plan.py::test_what_each_strategy_does": "spec.runStrategy",
    "unit/controllers/test_virtualmachine_plan.py::test_the_deprecated_running_field": "spec.running",
    "unit/workload/test_field_tables.py::test_values_that_are_fine_are_not_told": "spec.updateVolumesStrategy",
}
"""Of a VirtualMachine itself; its template is an instance's."""

MAKER_WARNED = Table(
    Rule("spec.updateVolumesStrategy", "other volumes are used from the next start on", only=("Migration",)),
    Rule(
        "spec.{instancetype,preference}.inferFromVolumeFailurePolicy",
        "nothing is inferred from a volume: the template counts as it is written",
        only=("Ignore",),
    ),
)

MAKER_REFUSED = Table(
    Rule("spec.instancetype", "instance types are not served here: say spec.template.spec.domain.cpu and memory"),
    Rule("spec.preference", "preferences are not served here: say what it would set in spec.template.spec.domain"),
    Rule(
        "spec.dataVolumeTemplates",
        "data volumes are not served here: use a containerDisk, a hostDisk or an emptyDisk in spec.template.spec.volumes",
    ),
)
