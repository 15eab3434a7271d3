"""A machine that is to start paused stands still until somebody says that it may run."""

from __future__ import annotations

import samples_support as samples
from isoplane.workload import common
from isoplane.workload.adapters import PAUSED_ANNOTATION
from isoplane.workload.shape import RunState
from isoplane.workload.vmi import MachineAdapter


def test_a_machine_may_start_paused() -> None:
    vmi = samples.vmi()
    assert MachineAdapter().project(vmi).desired is RunState.RUN
    vmi["spec"]["startStrategy"] = "Paused"
    assert MachineAdapter().project(vmi).desired is RunState.PAUSE
    vmi["metadata"]["annotations"] = {PAUSED_ANNOTATION: "false"}
    assert MachineAdapter().project(vmi).desired is RunState.RUN
    assert not common.is_paused(vmi)
    vmi["metadata"]["annotations"] = {PAUSED_ANNOTATION: "true"}
    assert MachineAdapter().project(vmi).desired is RunState.PAUSE
