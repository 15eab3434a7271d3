"""Whatever an adapter writes is in its kind's schema: what the plane wrote can be read, edited and applied again."""

from __future__ import annotations

from typing import Any

import pytest

import samples_support as samples
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES
from isoplane.objects.validation import unknown_fields, validate
from isoplane.workload.adapters import Report, Waiting
from isoplane.workload.registry import adapter_for
from isoplane.workload.shape import Observed, Stage, UnitObserved, UnitState

NOW = 1_800_000_000.0
DETAILS = {"accelerator": "kvm", "mac": "02:00:00:00:00:01", "log": "serial-0.log"}
"""What the runtimes put into UnitObserved.details, and one more."""


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("state", list(UnitState))
@pytest.mark.parametrize(
    ("resource", "make"), [(PODS, samples.pod), (VIRTUALMACHINEINSTANCES, samples.vmi)], ids=["pod", "vmi"]
)
def test_a_report_writes_nothing_that_the_schema_lacks(
    resource: Any, make: Any, state: UnitState, stage: Stage
) -> None:
    obj, adapter = make(), adapter_for(resource)
    assert adapter is not None
    workload = adapter.project(obj)
    units = {
        unit.name: UnitObserved(
            unit.name, state, attempt=2, started_at=NOW, finished_at=NOW + 1, exit_code=1, reason="Error",
            message="it ended", image_id="sha256:1", handle="runc://1", details=DETAILS,
        )
        for unit in workload.units
    }  # fmt: skip
    observed = Observed(workload.uid, workload.namespace, workload.name, True, units)
    report = Report(
        stage=stage, observed=observed, node="n1", addresses=("10.1.0.2", "fd00::2"), node_addresses=("192.0.2.1",),
        waiting={unit: Waiting("ImagePullBackOff", "not found") for unit in units}, reason="Why", message="told",
        transitions={Stage.ACCEPTED: NOW}, enforced="7", not_enforced="no nft",
    )  # fmt: skip
    for new in (adapter.report(obj, report, NOW), adapter.report(obj, Report(stage=stage), NOW)):
        marked = adapter.mark_victim(adapter.ungate(new, NOW), "PreemptedByQuota", "another one is more important", NOW)
        for written in (new, adapter.gate(new, "no room", NOW), marked):
            assert unknown_fields(resource, written) == []
            assert validate(resource, written) == []


def test_the_accelerator_is_told_in_an_annotation_and_no_longer_where_earlier_versions_wrote_it() -> None:
    obj, adapter = samples.vmi(), adapter_for(VIRTUALMACHINEINSTANCES)
    assert adapter is not None
    obj["status"] = {**(obj.get("status") or {}), "accelerator": "tcg"}
    workload = adapter.project(obj)
    units = {unit.name: UnitObserved(unit.name, UnitState.RUNNING, details=DETAILS) for unit in workload.units}
    report = Report(stage=Stage.RUNNING, observed=Observed(workload.uid, "tenant-a", workload.name, True, units))
    new = adapter.report(obj, report, NOW)
    assert new["metadata"]["annotations"]["isoplane.io/accelerator"] == "kvm"
    assert "accelerator" not in new["status"]
