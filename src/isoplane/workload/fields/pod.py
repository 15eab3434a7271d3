"""The fields of a Pod: honoured, warned of, refused."""

from __future__ import annotations

from isoplane.workload.fields.table import Honoured, Rule, Table

_ONE_NODE = "there is one node, and everything that fits runs on it"
_LINUX = "the node runs Linux"
_GROUP = "files belong to root, or to the Pod's fsGroup"
_C = "spec.{containers,initContainers}[]"
_PROBES = f"{_C}.{{livenessProbe,readinessProbe,startupProbe}}"
_REFERENCE = "{key,name,optional}"
_ITEMS = "items[].{key,mode,path}"
_DOWNWARD = "items[].{fieldRef.{apiVersion,fieldPath},mode,path,resourceFieldRef.{containerName,divisor,resource}}"
VOLUMES = ("emptyDir", "hostPath", "configMap", "secret", "downwardAPI", "projected")
"""The volumes that a Pod can have here."""
PROJECTED = ("configMap", "secret", "downwardAPI")

HONOURED: Honoured = {
    "unit/workload/test_delta.py::test_a_deadline_ends_it_gracefully_and_it_has_failed": "spec.activeDeadlineSeconds",
    "unit/workload/test_delta.py::test_grace_zero_kills_at_once": "spec.terminationGracePeriodSeconds",
    "unit/workload/test_delta.py::test_restarts_back_off_and_say_when": "spec.restartPolicy",
    "unit/workload/test_sidecars.py::test_sidecars_end_last_first_and_the_phase_waits": (
        "spec.initContainers[].restartPolicy"
    ),
    "unit/workload/test_sidecars.py::test_a_probe_has_its_own_grace": f"{_PROBES}.terminationGracePeriodSeconds",
    "unit/workload/test_sidecars.py::test_thresholds_count_periods": (
        f"{_PROBES}.{{failureThreshold,initialDelaySeconds,periodSeconds,successThreshold,timeoutSeconds}}"
    ),
    "unit/workload/test_probe_fields.py::test_a_probe_is_read_whole": (
        f"{_PROBES}.{{exec.command[],tcpSocket.{{host,port}}}} "
        f"{_PROBES}.httpGet.{{host,httpHeaders[].{{name,value}},path,port,scheme}}"
    ),
    "unit/node/test_node_ask_grpc.py::test_the_answer_decides": f"{_PROBES}.grpc.{{port,service}}",
    "unit/placement/test_placement_fit.py::test_node_affinity": (
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[]"
        ".{matchExpressions,matchFields}[].{key,operator,values[]}"
    ),
    "unit/placement/test_placement_fit.py::test_why_not": "spec.nodeSelector[]",
    "unit/placement/test_placement_fit.py::test_tolerations": "spec.tolerations[].{effect,key,operator,value}",
    "integration/test_controllers_scheduler.py::test_gates_and_other_schedulers_are_respected": (
        "spec.schedulerName spec.schedulingGates[].name"
    ),
    "integration/test_controllers_scheduler.py::test_both_kinds_are_bound": "spec.nodeName",
    "integration/test_quota_admission.py::test_priority_is_one_handle_for_both_kinds": "spec.{priority,priorityClassName}",
    "integration/test_quota_admission.py::test_a_preemption_policy_of_never": "spec.preemptionPolicy",
    "unit/node/runtime/oci/test_node_oci_recipe.py::test_command_line": f"{_C}.{{args[],command[]}}",
    "unit/node/runtime/oci/test_node_oci_recipe.py::test_the_environments_order": (
        f"spec.enableServiceLinks {_C}.env[].{{name,value}} "
        f"{_C}.envFrom[].{{prefix,{{configMapRef,secretRef}}.{{name,optional}}}}"
    ),
    "unit/node/runtime/oci/test_node_oci_recipe.py::test_values_from_elsewhere": (
        f"{_C}.env[].valueFrom.{{configMapKeyRef.{_REFERENCE},secretKeyRef.{_REFERENCE},fieldRef.{{apiVersion,fieldPath}}}}"
    ),
    "unit/node/runtime/oci/test_node_oci_recipe.py::test_resource_of_another_container": (
        f"{_C}.env[].valueFrom.resourceFieldRef.{{containerName,divisor,resource}}"
    ),
    "unit/node/runtime/oci/test_node_oci_reference.py::test_the_default_pull_policy": f"{_C}.{{image,imagePullPolicy}}",
    "unit/node/runtime/oci/test_node_oci_recipe.py::test_hooks_are_filled_in": (
        f"{_C}.lifecycle.{{preStop,postStart}}.{{exec.command[],sleep.seconds}} "
        f"{_C}.lifecycle.{{preStop,postStart}}.httpGet.{{host,httpHeaders[].{{name,value}},path,port,scheme}}"
    ),
    "unit/node/runtime/oci/test_node_oci_recipe.py::test_signal_names": f"{_C}.lifecycle.stopSignal",
    "unit/workload/test_adapters.py::test_the_shape_says_who_what_and_how_much": (
        f"{_C}.name {_C}.ports[].{{containerPort,name,protocol}} spec.{{hostname,serviceAccount,serviceAccountName}}"
    ),
    "unit/workload/test_requests.py::test_containers_add_up_and_inits_take_the_greatest": f"{_C}.resources.requests[]",
    "unit/workload/test_charge_bounds_cgroups.py::test_a_pods_cgroups_stay_within_its_charge": f"{_C}.resources.limits[]",
    "unit/workload/test_requests.py::test_pod_level_resources_win_and_overhead_is_added": (
        "spec.resources.{limits,requests}[] spec.overhead[]"
    ),
    "unit/node/runtime/oci/test_node_oci_recipe.py::test_users": (
        f"{_C}.securityContext.{{runAsGroup,runAsNonRoot,runAsUser}} "
        "spec.securityContext.{fsGroup,runAsGroup,runAsNonRoot,runAsUser,supplementalGroups[]}"
    ),
    "unit/node/runtime/oci/test_node_oci_recipe.py::test_capabilities_by_default_added_dropped_and_all": (
        f"{_C}.securityContext.capabilities.{{add,drop}}[]"
    ),
    "unit/node/runtime/oci/test_node_oci_recipe.py::test_the_document_says_what_the_container_asks_for": (
        f"{_C}.securityContext.{{allowPrivilegeEscalation,readOnlyRootFilesystem}} {_C}.{{tty,workingDir}}"
    ),
    "unit/node/runtime/oci/test_node_oci_recipe.py::test_privileges_lift_the_masks": f"{_C}.securityContext.privileged",
    "unit/node/runtime/oci/test_node_oci_surroundings.py::test_nobody_is_unconfined_who_did_not_choose_it": (
        f"{_C}.securityContext.seccompProfile.type spec.securityContext.seccompProfile.type"
    ),
    "unit/workload/test_sysctls.py::test_only_what_is_safe_or_allowed": "spec.securityContext.sysctls[].{name,value}",
    "e2e/test_oci_containers.py::test_interactive_exec_by_pipes": f"{_C}.stdin",
    "e2e/test_oci_containers.py::test_termination_message": f"{_C}.terminationMessagePath",
    "e2e/test_oci_containers.py::test_termination_message_from_the_log": f"{_C}.terminationMessagePolicy",
    "unit/node/runtime/oci/test_node_oci_pod_fields.py::test_mounts_say_what_was_asked": (
        f"{_C}.volumeMounts[].{{mountPath,mountPropagation,name,readOnly,recursiveReadOnly,subPath,subPathExpr}}"
    ),
    "unit/node/runtime/oci/test_node_oci_pod_fields.py::test_the_network_files_of_a_pod": (
        "spec.dnsConfig.{nameservers[],options[].{name,value},searches[]} spec.dnsPolicy spec.subdomain "
        "spec.hostAliases[].{hostnames[],ip}"
    ),
    "unit/node/runtime/oci/test_node_oci_pod_fields.py::test_namespaces_of_the_host": "spec.{hostIPC,hostPID}",
    "unit/workload/test_adapters.py::test_the_kinds_differ_where_they_should": "spec.hostNetwork",
    "e2e/test_oci_containers.py::test_volumes_of_every_kind": (
        "spec.volumes[].{name,emptyDir.{medium,sizeLimit},hostPath.{path,type}} "
        f"spec.volumes[].configMap.{{defaultMode,{_ITEMS},name,optional}} "
        f"spec.volumes[].secret.{{defaultMode,{_ITEMS},optional,secretName}} "
        f"spec.volumes[].downwardAPI.{{defaultMode,{_DOWNWARD}}} spec.volumes[].projected.defaultMode "
        f"spec.volumes[].projected.sources[].{{{{configMap,secret}}.{{{_ITEMS},name,optional}},downwardAPI.{_DOWNWARD}}}"
    ),
    "unit/workload/test_field_tables.py::test_values_that_are_fine_are_not_told": (
        f"spec.os.name spec.{{hostUsers,shareProcessNamespace}} {_C}.securityContext.procMount "
        "spec.securityContext.{fsGroupChangePolicy,supplementalGroupsPolicy}"
    ),
}
"""What does what it does in Kubernetes."""

WARNED = Table(
    Rule("spec.affinity.{podAffinity,podAntiAffinity}", _ONE_NODE),
    Rule("spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution", _ONE_NODE),
    Rule("spec.topologySpreadConstraints", _ONE_NODE),
    Rule("spec.tolerations[].tolerationSeconds", "no taint evicts what runs"),
    Rule(
        "spec.{resourceClaims,resources.claims} spec.{containers,initContainers}[].resources.claims",
        "no devices are allocated",
    ),
    Rule("spec.schedulingGroup", "each Pod is placed by itself"),
    Rule("spec.evictionResponders", "an eviction asks the Pod's budget only"),
    Rule("spec.imagePullSecrets", "images are pulled with the credentials that the node has for skopeo"),
    Rule("spec.readinessGates", "a Pod is ready when its containers are"),
    Rule("spec.automountServiceAccountToken", "no token is mounted into any Pod"),
    Rule("spec.{setHostnameAsFQDN,hostnameOverride}", "the host name is the Pod's own"),
    Rule(
        f"spec.securityContext.appArmorProfile {_C}.securityContext.appArmorProfile", "no AppArmor profile is applied"
    ),
    Rule(
        f"spec.securityContext.{{seLinuxOptions,seLinuxChangePolicy}} {_C}.securityContext.seLinuxOptions",
        "no SELinux label is applied",
    ),
    Rule(f"spec.securityContext.windowsOptions {_C}.securityContext.windowsOptions", _LINUX),
    Rule("spec.securityContext.supplementalGroupsPolicy", "groups of the image are merged", unless=("Merge",)),
    Rule("spec.securityContext.fsGroupChangePolicy", "a volume is given to the group whole", unless=("Always",)),
    Rule(
        f"{_C}.ports[].{{hostPort,hostIP}}", "no port of the node leads to a Pod: use its own address, or hostNetwork"
    ),
    Rule(f"{_C}.resizePolicy", "resources of a running container are not changed"),
    Rule(f"{_C}.restartPolicyRules spec.containers[].restartPolicy", "the Pod's restartPolicy alone counts"),
    Rule(f"{_C}.stdinOnce", "standard input stays open"),
    Rule(f"{_C}.lifecycle.{{preStop,postStart}}.tcpSocket", "a hook is exec, httpGet or sleep"),
    Rule(f"{_C}.lifecycle.{{preStop,postStart}}.httpGet.protocol {_PROBES}.httpGet.protocol", "HTTP/1.1 is spoken"),
    Rule(f"{_PROBES}.grpc.mode", "gRPC is spoken without encryption"),
    Rule(f"{_C}.volumeMounts[].bindMountOptions", "a volume is mounted without further options"),
    Rule("spec.volumes[].emptyDir.mode", "everybody may write into the directory"),
    Rule("spec.volumes[].{configMap,secret,downwardAPI}.{defaultUser,items[].user}", _GROUP),
    Rule("spec.volumes[].projected.{defaultUser,sources[].{configMap,secret,downwardAPI}.items[].user}", _GROUP),
)
"""What is accepted and changes nothing."""

REFUSED = Table(
    Rule("spec.runtimeClassName", "no such RuntimeClass: there is one runtime here; remove the field"),
    Rule("spec.os.name", f"{_LINUX}; remove the field", only=("windows",)),
    Rule("spec.hostUsers", "user namespaces are not made here; remove the field", only=(False,)),
    Rule(
        "spec.shareProcessNamespace",
        "each container has its own process namespace here; remove the field",
        only=(True,),
    ),
    Rule(f"{_C}.securityContext.procMount", "/proc is always masked here; remove the field", only=("Unmasked",)),
    Rule(
        f"{_C}.securityContext.seccompProfile.type spec.securityContext.seccompProfile.type",
        "profiles of the node's own are not loaded here; use RuntimeDefault or Unconfined",
        only=("Localhost",),
    ),
    Rule(
        f"{_C}.securityContext.seccompProfile.localhostProfile spec.securityContext.seccompProfile.localhostProfile",
        "profiles of the node's own are not loaded here; remove the field",
    ),
    Rule(f"{_C}.volumeDevices", "there are no block volumes here; use volumeMounts"),
    Rule(f"{_C}.env[].valueFrom.fileKeyRef", "variables are not read from files here; use a ConfigMap or a Secret"),
    Rule("spec.ephemeralContainers", "containers cannot be added to a Pod here; use `kubectl exec`"),
    Rule(
        "spec.volumes[].emptyDir.medium",
        "huge pages cannot be had here; use Memory, or leave it out",
        only=("HugePages", "HugePages-2Mi", "HugePages-1Gi"),
    ),
    Rule(
        "spec.volumes[].{awsElasticBlockStore,azureDisk,azureFile,cephfs,cinder,csi,ephemeral,fc,flexVolume,flocker,"
        "gcePersistentDisk,gitRepo,glusterfs,image,iscsi,nfs,persistentVolumeClaim,photonPersistentDisk,portworxVolume,"
        "quobyte,rbd,scaleIO,storageos,vsphereVolume}",
        f"is no volume that a Pod can have here; use one of {', '.join(VOLUMES)}",
    ),
    Rule(
        "spec.volumes[].projected.sources[].{clusterTrustBundle,podCertificate,serviceAccountToken}",
        f"cannot be projected here; use one of {', '.join(PROJECTED)}",
    ),
)
"""What no Pod can have here: it is refused when it is written, and by the container runtime too."""
