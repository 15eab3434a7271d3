"""Which sysctls a Pod may set, and what becomes of one that sets another."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from isoplane.workload import delta, sysctls
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Observed, UnitObserved, UnitState, Verdict, Workload


def pod(name: str, **spec: Any) -> Workload:
    declared = {
        "nodeName": "here",
        "containers": [{"name": "c", "image": "x"}],
        "securityContext": {
            "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}, {"name": name, "value": "1"}]
        },
        **spec,
    }
    workload = PodAdapter().project({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": declared})
    return dataclasses.replace(workload, recipe=declared)


@pytest.mark.parametrize(
    ("name", "allowed", "spec", "problem"),
    [
        ("kernel.shm_rmid_forced", (), {}, ""),
        ("net/ipv4/tcp_fin_timeout", (), {}, ""),
        ("net.ipv4.tcp_fin_timeout", (), {"hostNetwork": True}, "host net"),
        ("kernel.shm_rmid_forced", (), {"hostIPC": True}, "host ipc"),
        ("kernel.msgmax", (), {}, "not allowlisted"),
        ("kernel.msgmax", ("kernel.msg*",), {}, ""),
        ("kernel.msgmax", ("kernel.msgmax",), {}, ""),
        ("kernel.msgmax", ("kernel.msgma",), {}, "not allowlisted"),
        ("net.core.somaxconn", ("kernel.msg*",), {}, "not allowlisted"),
        ("kernel.core_pattern", ("net.*",), {}, "not allowlisted"),
        ("net./../../kernel/core_pattern", ("net.*",), {}, "not allowlisted"),
        ("", ("net.*",), {}, "not allowlisted"),
    ],
)
def test_only_what_is_safe_or_allowed(name: str, allowed: tuple[str, ...], spec: dict[str, Any], problem: str) -> None:
    found = sysctls.forbidden(pod(name, **spec), allowed)
    assert (found is None) == (problem == "")
    if found:
        assert found.reason == "SysctlForbidden"
        assert problem in found.message


@pytest.mark.parametrize(
    "pattern", ["kernel.core_pattern", "kernel.*", "*", "", "vm.swappiness", "net", "net.**", "k*"]
)
def test_what_is_the_hosts_cannot_be_allowed(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"sysctl|whole host"):
        sysctls.check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["kernel.msg*", "kernel.msgmax", "net.*", "net.core.somaxconn", "fs.mqueue.*", "kernel.sem"]
)
def test_what_is_a_pods_can_be_allowed(pattern: str) -> None:
    sysctls.check_pattern(pattern)


def test_what_a_node_ends_is_killed_and_not_started_again() -> None:
    workload, memory = pod("x"), delta.Memory(verdict=Verdict("Evicted", "too much"))
    running = Observed("u", "n", "p", True, {"c": UnitObserved("c", UnitState.RUNNING)})
    ended = Observed("u", "n", "p", True, {"c": UnitObserved("c", UnitState.EXITED, exit_code=137)})
    assert delta.plan(workload, running, memory, 100.0).actions == (delta.Kill("c", "Evicted"),)
    assert delta.plan(workload, ended, memory, 100.0) == delta.Plan()
    assert delta.plan(workload, None, memory, 100.0) == delta.Plan()
