"""How many items a list may have, beyond what the kinds' own schemas say.

Kubernetes leaves most lists to etcd's limit of bytes.  Here the plane itself runs what is declared, on one node: a thousand
containers in one Pod would be a thousand processes to watch, and every step of a write walks every list.  So each list has
a bound, far above what anybody uses; ``validator`` puts them into its schemas, and refuses with the number.
"""

from __future__ import annotations

_CORE, _META, _KUBEVIRT = "io.k8s.api.core.v1.", "io.k8s.apimachinery.pkg.apis.meta.v1.", "io.kubevirt.v1."

ANY = 20_000
"""Items of any list that is not named here."""
_RUN, _KEPT = 250, 1_000
"""What becomes a process, a disk or a link, and what is only read."""

MOST_ITEMS: dict[str, dict[str, int]] = {
    _CORE + "PodSpec": {
        **dict.fromkeys(("containers", "initContainers", "ephemeralContainers"), _RUN),
        **dict.fromkeys(
            ("volumes", "tolerations", "topologySpreadConstraints", "schedulingGates", "readinessGates", "hostAliases",
             "imagePullSecrets"),
            _KEPT,
        ),
    },
    _CORE + "Container": dict.fromkeys(("ports", "volumeMounts", "envFrom"), _KEPT),
    _CORE + "NodeSpec": {"taints": _KEPT},
    _META + "ObjectMeta": dict.fromkeys(("finalizers", "managedFields", "ownerReferences"), _KEPT),
    _KUBEVIRT + "VirtualMachineInstanceSpec": {
        **dict.fromkeys(("networks", "volumes"), _RUN),
        **dict.fromkeys(("tolerations", "topologySpreadConstraints"), _KEPT),
    },
    _KUBEVIRT + "Devices": dict.fromkeys(("disks", "interfaces", "filesystems"), _RUN),
}  # fmt: skip
