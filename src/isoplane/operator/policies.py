"""The admission policies that the API server itself enforces in managed namespaces: manifests, with their CEL.

They hold while the operator is down.  Two mutating policies set the gate and resolve the priority annotation; the validating
ones keep the gate on, and refuse what would get around it.  Pure: nothing is read, nothing is sent.  Where
MutatingAdmissionPolicy is not served the webhook makes the same two changes; the validating policies are installed in both cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isoplane.objects.metadata import Object
from isoplane.operator.names import MANAGED, MANAGED_LABEL, PART_OF, PRIORITY_ANNOTATION, Accounts
from isoplane.workload.adapters import QUOTA_GATE

GROUP_VERSION = "admissionregistration.k8s.io/v1"
MANAGED_NAMESPACES = {"matchLabels": {MANAGED_LABEL: MANAGED}}
SIGNS_LABEL = "kubevirt.io"
LAUNCHER = "virt-launcher"

_GATED = f"object.spec.?schedulingGates.orValue([]).exists(gate, gate.name == '{QUOTA_GATE}')"
_WAS_GATED = _GATED.replace("object.", "oldObject.", 1)
_MIRROR = "has(object.metadata.annotations) && 'kubernetes.io/config.mirror' in object.metadata.annotations"
_NAMES_PRIORITY = (
    f"has(object.metadata.annotations) && '{PRIORITY_ANNOTATION}' in object.metadata.annotations && "
    f"object.metadata.annotations['{PRIORITY_ANNOTATION}'] != object.spec.?priorityClassName.orValue('')"
)


def _looks_like_body(subject: str) -> str:
    """CEL: whether a Pod bears one of the signs of a virt-launcher Pod."""
    return (
        f"({subject}.metadata.?labels['{SIGNS_LABEL}'].orValue('') == '{LAUNCHER}' || "
        f"{subject}.metadata.?ownerReferences.orValue([]).exists(owner, owner.kind == 'VirtualMachineInstance' && "
        f"owner.apiVersion.startsWith('kubevirt.io/') && owner.?controller.orValue(false)))"
    )


@dataclass(frozen=True, slots=True)
class Check:
    """One CEL condition that must hold, and the sentence for whom it stops. ``message_cel``: a CEL string instead."""

    expression: str
    message: str = ""
    message_cel: str = ""
    reason: str = "Forbidden"

    def manifest(self) -> dict[str, str]:
        said = {"messageExpression": self.message_cel} if self.message_cel else {}
        fallback = {"message": self.message} if self.message else {}
        return {"expression": self.expression, "reason": self.reason, **fallback, **said}


def admission_policies(accounts: Accounts = Accounts(), *, mutating: bool = True) -> list[Object]:
    """Every policy and its binding, in the order in which they may be applied. ``mutating``: whether the server serves those."""
    found = [*_keep_the_gate(accounts), *_bodies(accounts), *_resize(), *_opting_in(), *_priorities()]
    return [*(_set_the_gate() if mutating else []), *found]


def _set_the_gate() -> list[Object]:
    gate = f'Object{{spec: Object.spec{{schedulingGates: [Object.spec.schedulingGates{{name: "{QUOTA_GATE}"}}]}}}}'
    priority = (
        f"[JSONPatch{{op: 'add', path: '/spec/priorityClassName', value: object.metadata.annotations['{PRIORITY_ANNOTATION}']}}]"
        " + (has(object.spec.priority) ? [JSONPatch{op: 'remove', path: '/spec/priority'}] : [])"
        " + (has(object.spec.preemptionPolicy) ? [JSONPatch{op: 'remove', path: '/spec/preemptionPolicy'}] : [])"
    )
    return [
        *_mutating(
            "quota-gate.isoplane.io",
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": gate}},
            {"not-gated-yet": f"!({_GATED})", "no-mirror-pod": f"!({_MIRROR})"},
        ),
        *_mutating(
            "quota-priority.isoplane.io",
            {"patchType": "JSONPatch", "jsonPatch": {"expression": priority}},
            {"names-another-class": _NAMES_PRIORITY},
        ),
    ]


def _keep_the_gate(accounts: Accounts) -> list[Object]:
    created = [
        Check(
            f"({_MIRROR}) || {_GATED}",
            f"spec.schedulingGates: a Pod of this namespace waits for quota behind the gate {QUOTA_GATE}, which was taken off "
            "before it was stored; is another webhook in the way?",
        ),
        Check(
            f"({_MIRROR}) || object.spec.?nodeName.orValue('') == ''",
            "spec.nodeName: quota decides before a Pod of this namespace is placed; use spec.nodeSelector or node affinity",
        ),
    ]
    kept = [
        Check(
            f"!({_WAS_GATED}) || {_GATED} || request.userInfo.username == '{accounts.operator}'",
            f"spec.schedulingGates: the gate {QUOTA_GATE} is taken off when quota admits the Pod, and by nobody else; "
            "ask for less, or for more quota",
        )
    ]
    return [
        *_validating("quota-gated.isoplane.io", [_pods("CREATE")], created),
        *_validating("quota-gate-kept.isoplane.io", [_pods("UPDATE")], kept),
    ]


def _bodies(accounts: Accounts) -> list[Object]:
    """A body is charged as its VMI: only KubeVirt makes one, or quota could be had for nothing."""
    signed = _looks_like_body("object")
    check = Check(
        f"!{signed} || request.userInfo.username == '{accounts.kubevirt}' || "
        f"(request.operation == 'UPDATE' && {_looks_like_body('oldObject')})",
        f"metadata: only KubeVirt's controller ({accounts.kubevirt}) makes Pods that belong to a VirtualMachineInstance; "
        f"leave out the label {SIGNS_LABEL}: {LAUNCHER} and the owner reference",
    )
    return _validating("quota-launcher.isoplane.io", [_pods("CREATE", "UPDATE")], [check])


def _resize() -> list[Object]:
    """A resize is admitted by nobody, so what is counted may not grow by it. Shrinking is free."""

    def grown(where: str) -> str:
        # A container of the same name asked for at least as much before; an amount that was not stated was zero.
        return (
            f"object.spec.?{where}.orValue([]).all(now, ['requests', 'limits'].all(side, "
            "(side == 'requests' ? now.?resources.requests.orValue({}) : now.?resources.limits.orValue({})).all(name, value, "
            f"oldObject.spec.?{where}.orValue([]).exists(was, was.name == now.name && name in "
            "(side == 'requests' ? was.?resources.requests.orValue({}) : was.?resources.limits.orValue({})) && "
            "quantity(string(value)).compareTo(quantity(string("
            "(side == 'requests' ? was.resources.requests[name] : was.resources.limits[name])))) <= 0))))"
        )

    whole = (
        "['requests', 'limits'].all(side, "
        "(side == 'requests' ? object.spec.?resources.requests.orValue({}) : object.spec.?resources.limits.orValue({}))"
        ".all(name, value, name in (side == 'requests' ? oldObject.spec.?resources.requests.orValue({}) : "
        "oldObject.spec.?resources.limits.orValue({})) && quantity(string(value)).compareTo(quantity(string("
        "(side == 'requests' ? oldObject.spec.resources.requests[name] : oldObject.spec.resources.limits[name])))) <= 0))"
    )
    message = (
        "a Pod of this namespace may be resized downwards only: growing would not be asked of quota; "
        "make a new Pod that asks for more"
    )
    checks = [
        Check(grown("containers"), f"spec.containers[].resources: {message}"),
        Check(grown("initContainers"), f"spec.initContainers[].resources: {message}"),
        Check(whole, f"spec.resources: {message}"),
    ]
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods/resize"]}
    return _validating("quota-resize.isoplane.io", [rule], checks)


def _opting_in() -> list[Object]:
    label = f"?labels['{MANAGED_LABEL}'].orValue('')"
    check = Check(
        f"(request.operation == 'CREATE' ? '' : oldObject.metadata.{label}) == object.metadata.{label} || "
        "authorizer.group('isoplane.io').resource('cohorts').check('update').allowed()",
        f"metadata.labels[{MANAGED_LABEL}]: only who may update cohorts.isoplane.io puts a namespace under quota or takes it out",
    )
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["namespaces"]}
    return _validating("quota-opt-in.isoplane.io", [rule], [check], namespaces=None)


def _priorities() -> list[Object]:
    """What a namespace's QuotaPolicy says about PriorityClasses. The priority is resolved when validating policies run."""
    system = Check(
        "!object.spec.?priorityClassName.orValue('').startsWith('system-')",
        "spec.priorityClassName: the classes system-cluster-critical and system-node-critical are not for Pods of this namespace",
    )
    highest = Check(
        "params == null || !has(params.spec) || !has(params.spec.maxPriority) || "
        "object.spec.?priority.orValue(0) <= params.spec.maxPriority",
        "spec.priorityClassName: the priority is above the maxPriority of this namespace's QuotaPolicy",
        "'spec.priorityClassName: ' + object.spec.?priorityClassName.orValue('') + ' has priority ' + "
        "string(object.spec.?priority.orValue(0)) + '; this namespace may use up to ' + string(params.spec.maxPriority)",
    )
    parameters = {"apiVersion": "isoplane.io/v1alpha1", "kind": "QuotaPolicy"}
    reference = {"name": "default", "parameterNotFoundAction": "Allow"}
    return [
        *_validating("quota-system-priority.isoplane.io", [_pods("CREATE")], [system]),
        *_validating(
            "quota-max-priority.isoplane.io", [_pods("CREATE")], [highest], parameters=parameters, reference=reference
        ),
    ]


def _pods(*operations: str) -> dict[str, list[str]]:
    return {"apiGroups": [""], "apiVersions": ["v1"], "operations": list(operations), "resources": ["pods"]}


def _mutating(name: str, mutation: dict[str, Any], conditions: dict[str, str]) -> list[Object]:
    policy: Object = {
        "apiVersion": GROUP_VERSION, "kind": "MutatingAdmissionPolicy", "metadata": _metadata(name),
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {"resourceRules": [_pods("CREATE")], "namespaceSelector": MANAGED_NAMESPACES},
            "matchConditions": [{"name": key, "expression": value} for key, value in conditions.items()],
            "mutations": [mutation],
        },
    }  # fmt: skip
    return [policy, _binding("MutatingAdmissionPolicyBinding", name, {})]


def _validating(
    name: str,
    rules: Sequence[dict[str, list[str]]],
    checks: Sequence[Check],
    *,
    namespaces: dict[str, Any] | None = MANAGED_NAMESPACES,
    parameters: dict[str, str] | None = None,
    reference: dict[str, str] | None = None,
) -> list[Object]:
    policy: Object = {
        "apiVersion": GROUP_VERSION, "kind": "ValidatingAdmissionPolicy", "metadata": _metadata(name),
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": list(rules), **({"namespaceSelector": namespaces} if namespaces else {})
            },
            "validations": [check.manifest() for check in checks],
            **({"paramKind": parameters} if parameters else {}),
        },
    }  # fmt: skip
    more: dict[str, Any] = {"validationActions": ["Deny"], **({"paramRef": reference} if reference else {})}
    return [policy, _binding("ValidatingAdmissionPolicyBinding", name, more)]


def _binding(kind: str, name: str, more: dict[str, Any]) -> Object:
    return {
        "apiVersion": GROUP_VERSION, "kind": kind, "metadata": _metadata(name),
        "spec": {"policyName": name, **more},
    }  # fmt: skip


def _metadata(name: str) -> dict[str, Any]:
    return {"name": name, "labels": dict(PART_OF)}
