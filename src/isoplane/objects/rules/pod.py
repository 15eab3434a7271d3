"""A Pod's spec, and what an update may change in it. Source: Kubernetes pkg/apis/core/validation."""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from typing import Any

from isoplane.objects import names
from isoplane.objects.copying import token
from isoplane.objects.rules import containers, meta, resources, security, volumes
from isoplane.objects.rules.report import Report

_OPERATORS = ("Equal", "Exists", "Lt", "Gt")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_UPDATABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check(obj: dict[str, Any], report: Report) -> None:
    spec = obj.get("spec")
    if not spec:
        report.required("spec")
        return
    mountable = volumes.check_all(spec.get("volumes") or [], report)
    containers.check_all(spec, mountable, report)
    resources.check_pod(spec, report)
    security.check_pod(spec, report)
    report.one_of("spec.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never"))
    report.one_of(
        "spec.dnsPolicy", spec.get("dnsPolicy"), ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
    )
    report.one_of("spec.preemptionPolicy", spec.get("preemptionPolicy"), ("Never", "PreemptLowerPriority"))
    if (deadline := spec.get("activeDeadlineSeconds")) is not None and not 1 <= deadline <= 2**31 - 1:
        report.invalid("spec.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    report.not_negative("spec.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
    for field in ("hostname", "subdomain"):
        if value := spec.get(field):
            report.text(f"spec.{field}", value, names.dns_label(value))
    for field in ("nodeName", "serviceAccountName", "priorityClassName", "runtimeClassName"):
        if value := spec.get(field):
            report.text(f"spec.{field}", value, names.dns_subdomain(value))
    check_placement("spec", spec, report)
    gates: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        path, name = f"spec.schedulingGates[{index}].name", gate.get("name") or ""
        report.text(path, name, names.qualified(name))
        if name in gates:
            report.duplicate(path, name)
        gates.add(name)
    if gates and spec.get("nodeName"):
        report.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        try:
            ipaddress.ip_address(alias.get("ip") or "")
        except ValueError:
            report.invalid(f"spec.hostAliases[{index}].ip", alias.get("ip") or "", "must be a valid IP address")


def check_placement(path: str, spec: dict[str, Any], report: Report) -> None:
    """What pods and virtual machines say alike about where they may run."""
    if selector := spec.get("nodeSelector"):
        meta.check_labels(f"{path}.nodeSelector", selector, report)
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        _toleration(f"{path}.tolerations[{index}]", toleration, report)
    for index, spread in enumerate(spec.get("topologySpreadConstraints") or ()):
        where = f"{path}.topologySpreadConstraints[{index}]"
        report.positive(f"{where}.maxSkew", spread.get("maxSkew"))
        if not spread.get("topologyKey"):
            report.required(f"{where}.topologyKey", "can not be empty")
        report.one_of(
            f"{where}.whenUnsatisfiable", spread.get("whenUnsatisfiable"), ("DoNotSchedule", "ScheduleAnyway")
        )
        meta.check_selector(f"{where}.labelSelector", spread.get("labelSelector"), report)
    affinity = spec.get("affinity") or {}
    if node := affinity.get("nodeAffinity"):
        _node_affinity(f"{path}.affinity.nodeAffinity", node, report)
    for kind in ("podAffinity", "podAntiAffinity"):
        where = f"{path}.affinity.{kind}"
        terms = affinity.get(kind) or {}
        for index, term in enumerate(terms.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            _term(f"{where}.requiredDuringSchedulingIgnoredDuringExecution[{index}]", term, report)
        for index, entry in enumerate(terms.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            place = f"{where}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            _weight(place, entry, report)
            _term(f"{place}.podAffinityTerm", entry.get("podAffinityTerm") or {}, report)


def check_update(obj: dict[str, Any], old: dict[str, Any], report: Report) -> None:
    new_spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
    if new_spec == old_spec:
        return
    for field in ("containers", "initContainers"):
        if len(new_spec.get(field) or ()) != len(old_spec.get(field) or ()):
            report.forbidden(f"spec.{field}", "pod updates may not add or remove containers")
            return
    _deadline(new_spec.get("activeDeadlineSeconds"), old_spec.get("activeDeadlineSeconds"), report)
    if not _tolerated(old_spec) <= _tolerated(new_spec):
        report.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    old_gates = {gate.get("name") for gate in old_spec.get("schedulingGates") or ()}
    for gate in new_spec.get("schedulingGates") or ():
        if gate.get("name") not in old_gates:
            text = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            report.forbidden("spec.schedulingGates", text)
    expected = _with_allowed_changes(old_spec, new_spec, gated=bool(old_gates))
    if expected != new_spec:
        changed = sorted(k for k in expected.keys() | new_spec.keys() if expected.get(k) != new_spec.get(k))
        report.forbidden("spec", f"{_UPDATABLE}; changed: {', '.join(changed)}")


def _tolerated(spec: dict[str, Any]) -> set[Hashable]:
    """What a spec tolerates; for how long may change."""
    return {token({**one, "tolerationSeconds": None}) for one in spec.get("tolerations") or ()}


def _with_allowed_changes(old: dict[str, Any], new: dict[str, Any], *, gated: bool) -> dict[str, Any]:
    """The old spec with everything from the new one that an update may change."""
    result = dict(old)
    for field in ("containers", "initContainers"):
        if field in old and field in new:
            result[field] = [
                {**before, "image": after["image"]} if after.get("image") else before
                for before, after in zip(old[field] or (), new[field] or (), strict=True)
            ]
    fields = ["activeDeadlineSeconds", "tolerations", "schedulingGates"]
    if (old.get("terminationGracePeriodSeconds") or 0) < 0 and new.get("terminationGracePeriodSeconds") == 1:
        fields.append("terminationGracePeriodSeconds")
    if gated:  # A gated Pod has not been placed, so its requirements may still be narrowed.
        before, after = old.get("nodeSelector") or {}, new.get("nodeSelector") or {}
        if before.items() <= after.items():
            fields.append("nodeSelector")
    for field in fields:
        if field in new:
            result[field] = new[field]
        else:
            result.pop(field, None)
    return result


def _deadline(new: Any, old: Any, report: Report) -> None:
    if old is not None and (new is None or new > old):
        text = (
            "must be less than or equal to previous value" if new is not None else "must not update from a value to nil"
        )
        report.invalid("spec.activeDeadlineSeconds", new, text)


def _toleration(path: str, toleration: dict[str, Any], report: Report) -> None:
    key, operator = toleration.get("key"), toleration.get("operator") or "Equal"
    if key:
        report.text(f"{path}.key", key, names.qualified(key))
    elif operator != "Exists":
        report.invalid(
            f"{path}.operator",
            operator,
            'operator must be Exists when `key` is empty, which means "match all values and all keys"',
        )
    report.one_of(f"{path}.operator", operator, _OPERATORS)
    report.one_of(f"{path}.effect", toleration.get("effect"), _EFFECTS)
    if operator == "Exists" and toleration.get("value"):
        report.invalid(f"{path}.operator", toleration, "value must be empty when `operator` is 'Exists'")
    if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
        report.invalid(
            f"{path}.effect", toleration.get("effect"), "effect must be 'NoExecute' when `tolerationSeconds` is set"
        )


def _node_affinity(path: str, affinity: dict[str, Any], report: Report) -> None:
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is not None:
        where = f"{path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        if not required.get("nodeSelectorTerms"):
            report.required(where, "must have at least one node selector term")
        for index, term in enumerate(required.get("nodeSelectorTerms") or ()):
            _node_term(f"{where}[{index}]", term, report)
    for index, entry in enumerate(affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        where = f"{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        _weight(where, entry, report)
        _node_term(f"{where}.preference", entry.get("preference") or {}, report)


def _node_term(path: str, term: dict[str, Any], report: Report) -> None:
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        where, operator, values = (
            f"{path}.matchExpressions[{index}]",
            expression.get("operator"),
            expression.get("values"),
        )
        report.text(f"{where}.key", expression.get("key"), names.qualified(expression.get("key") or ""))
        if operator in ("In", "NotIn"):
            if not values:
                report.required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                report.forbidden(
                    f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                )
        elif operator in ("Gt", "Lt"):
            if len(values or ()) != 1:
                report.required(f"{where}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
        else:
            report.invalid(f"{where}.operator", operator, "not a valid selector operator")


def _weight(path: str, entry: dict[str, Any], report: Report) -> None:
    if not 1 <= (entry.get("weight") or 0) <= 100:
        report.invalid(f"{path}.weight", entry.get("weight"), "must be in the range 1-100")


def _term(path: str, term: dict[str, Any], report: Report) -> None:
    if not term.get("topologyKey"):
        report.required(f"{path}.topologyKey", "can not be empty")
    meta.check_selector(f"{path}.labelSelector", term.get("labelSelector"), report)
    meta.check_selector(f"{path}.namespaceSelector", term.get("namespaceSelector"), report)
