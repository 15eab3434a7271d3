"""What surrounds a container: its system calls, and the places nothing may be mounted on. No container is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from isoplane.node.runtime.oci import container, guarded, seccomp
from isoplane.node.runtime.oci.capabilities import ALL, DEFAULT
from isoplane.node.runtime.oci.spec import Mount
from isoplane.node.runtime.protocol import RuntimeFailure

MACHINE = "x86_64"
CONTAINERD = json.loads((Path(__file__).parents[4] / "golden" / "seccomp" / "containerd.json").read_text())
"""What containerd's default profile for amd64 says, by capability: printed by a program that calls it."""
ALLOW = "SCMP_ACT_ALLOW"
NAMESPACES = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]


def answer(profile: dict[str, Any], name: str, first: int = 0) -> Any:
    """What the filter says to a call with this first argument: ALLOW or an errno; rules that contradict are a fault."""
    found = set()
    for rule in profile["syscalls"]:
        if name not in rule["names"]:
            continue
        if all(_holds(condition, first) for condition in rule.get("args", ())):
            found.add(ALLOW if rule["action"] == ALLOW else rule["errnoRet"])
    assert len(found) <= 1, (name, first, found)
    return found.pop() if found else profile["defaultErrnoRet"]


def _holds(condition: dict[str, Any], value: int) -> bool:
    assert condition["index"] == 0
    match condition["op"]:
        case "SCMP_CMP_EQ":
            return bool(value == condition["value"])
        case "SCMP_CMP_NE":
            return bool(value != condition["value"])
        case "SCMP_CMP_MASKED_EQ":
            return bool(value & condition["value"] == condition.get("valueTwo", 0))
        case "SCMP_CMP_LT":
            return bool(value < condition["value"])
        case "SCMP_CMP_GE":
            return bool(value >= condition["value"])
    raise AssertionError(condition)


def test_the_default_profile_permits_by_name() -> None:
    profile = seccomp.runtime_default(DEFAULT, MACHINE)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert answer(profile, "a_call_of_tomorrow") == 38
    for name in ("read", "execve", "futex", "ptrace", "chroot", "arch_prctl", "fchmodat2"):
        assert answer(profile, name) == ALLOW, name
    for name in (
        "io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key", "bpf", "mount", "unshare",
        "setns", "userfaultfd", "perf_event_open", "open_by_handle_at", "kexec_load", "socketcall", "move_mount", "fsopen",
    ):  # fmt: skip
        assert answer(profile, name) == 1, name
    assert answer(profile, "clone3") == 38
    assert answer(profile, "clone", 0x3D0F00) == ALLOW, "a thread"
    for flag in NAMESPACES:
        assert answer(profile, "clone", flag | 17) == 1, hex(flag)
    # Two at once are refused by two rules of one answer.
    assert answer(profile, "clone", NAMESPACES[0] | NAMESPACES[4]) == 1
    for refused in (38, 40, 46, 1 << 31):
        assert answer(profile, "socket", refused) == 1, refused
    for family in (1, 2, 10, 16, 17, 45):
        assert answer(profile, "socket", family) == ALLOW, family
    assert answer(profile, "personality", 0) == ALLOW
    assert answer(profile, "personality", 0x40000) == 38


DIFFERENCES = {
    "socketcall": "a 32-bit program would name any family of sockets through it: its arguments lie in memory"
}
"""Calls that containerd permits and we refuse, with the reason; there are none the other way round."""


@pytest.mark.parametrize("capability", ["", *ALL])
def test_the_default_profile_permits_what_containerds_does(capability: str) -> None:
    granted = [capability] if capability else []
    ours = seccomp.runtime_default(granted, MACHINE)
    listed = {*CONTAINERD["names"], *CONTAINERD["by capability"].get(capability, ())}
    conditions = CONTAINERD["conditions"]
    rules = conditions.get(capability, conditions[""])
    theirs = {
        "syscalls": [{"names": sorted(listed), "action": ALLOW}, *rules],
        "defaultErrnoRet": CONTAINERD["default errno"],
    }
    calls = listed | {name for rule in [*ours["syscalls"], *rules] for name in rule["names"]}
    conditional = {name for rule in [*ours["syscalls"], *rules] if rule.get("args") for name in rule["names"]}
    firsts = [*range(50), 1 << 31, 0x3D0F00, *(flag | 17 for flag in NAMESPACES), 0x20000, 0x20008, 0x40000, 0xFFFFFFFF]
    differ = {
        name
        for name in calls
        for first in (firsts if name in conditional else (0,))
        if (answer(ours, name, first) == ALLOW) != (answer(theirs, name, first) == ALLOW)
    }
    assert differ == set(DIFFERENCES)
    assert all(answer(ours, name) != ALLOW for name in DIFFERENCES)
    assert answer(ours, "clone3") == answer(theirs, "clone3")


@pytest.mark.parametrize(
    "capability", ["CAP_SYS_ADMIN", "CAP_SYS_TIME", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_NICE"]
)
def test_a_capability_brings_its_calls_and_no_others(capability: str) -> None:
    plain, more = (seccomp.runtime_default(given, MACHINE) for given in (DEFAULT, (*DEFAULT, capability)))
    names = {name for profile in (plain, more) for rule in profile["syscalls"] for name in rule["names"]}
    gained = {name for name in names if answer(more, name) == ALLOW} - {n for n in names if answer(plain, n) == ALLOW}
    marks = {"CAP_SYS_ADMIN": "unshare", "CAP_SYS_TIME": "clock_settime", "CAP_SYS_PTRACE": "kcmp",
             "CAP_DAC_READ_SEARCH": "open_by_handle_at", "CAP_SYS_NICE": "mbind"}  # fmt: skip
    assert marks[capability] in gained
    assert not gained & {m for c, m in marks.items() if c != capability}
    assert answer(seccomp.runtime_default(ALL, MACHINE), "io_uring_setup") == 1


def test_nobody_is_unconfined_who_did_not_choose_it() -> None:
    default, free = {"seccompProfile": {"type": "RuntimeDefault"}}, {"seccompProfile": {"type": "Unconfined"}}
    for own, pods in (({}, {}), (default, free), ({}, default), ({"seccompProfile": {}}, {})):
        assert container.seccomp_profile(own, pods, DEFAULT) is not None, (own, pods)
    for own, pods in ((free, {}), ({}, free), (free, default)):
        assert container.seccomp_profile(own, pods, DEFAULT) is None, (own, pods)
    with pytest.raises(RuntimeFailure, match="Localhost is not supported"):
        container.seccomp_profile({"seccompProfile": {"type": "Localhost"}}, {}, DEFAULT)


def test_the_kernels_places_are_kept_whatever_way_leads_there(tmp_path: Path) -> None:
    (tmp_path / "absolute").symlink_to("/proc")
    (tmp_path / "relative").symlink_to("a/../../sys")
    (tmp_path / "chain").symlink_to("absolute/sys")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "fine").symlink_to("var")
    (tmp_path / "a").mkdir()

    def check(target: str, source: str = "/data/v", privileged: bool = False) -> None:
        guarded.check([Mount(source, target)], tmp_path, privileged=privileged)

    refused = ["/proc", "/proc/", "/proc/self/attr", "//sys", "/a/../proc", "/sys/fs/cgroup", "/absolute", "/absolute/self",
               "/relative", "/chain/kernel", "/./proc"]  # fmt: skip
    for target in refused:
        with pytest.raises(RuntimeFailure, match="nothing can be mounted there"):
            check(target)
        with pytest.raises(RuntimeFailure, match="nothing can be mounted there"):
            check(target, privileged=True)
    with pytest.raises(RuntimeFailure, match="more than 40 links"):
        check("/loop/x")
    for target in ("/process", "/a/proc", "/fine/sys", "/host/sys", "/"):
        check(target)
    check("/sys/fs/bpf", "/sys/fs/bpf", privileged=True)
    with pytest.raises(RuntimeFailure):
        check("/sys/fs/bpf", "/sys/fs/bpf")
    with pytest.raises(RuntimeFailure):
        check("/sys", "/proc", privileged=True)
