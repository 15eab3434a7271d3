"""Users of machines: never two of the same number, and those that are gone give theirs back."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoplane.node.runtime.qemu import cgroup, privileges


def test_two_machines_never_share_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As many numbers as machines: every one but the first meets numbers that are taken.
    monkeypatch.setattr(privileges, "_COUNT", 8)
    taken, machines = tmp_path / "taken", [tmp_path / f"plane{n % 2}" / f"machine{n}" for n in range(8)]
    for machine in machines:
        machine.mkdir(parents=True)
    numbers = [privileges.claim(machine, taken) for machine in machines]
    assert len(set(numbers)) == 8
    assert [privileges.claim(machine, taken) for machine in machines] == numbers, "the same at every start"
    (tmp_path / "late").mkdir()
    with pytest.raises(OSError, match="users"):
        privileges.claim(tmp_path / "late", taken)
    privileges.release(machines[3], taken)
    assert privileges.claim(tmp_path / "late", taken) == numbers[3]
    machines[5].rmdir()
    assert privileges.claim(machines[3], taken) == numbers[5], "its plane went without giving it back"
    (tmp_path / "late").rmdir()
    privileges.sweep(taken)
    assert {int(entry.name) for entry in taken.iterdir()} == set(numbers) - {numbers[3]}
    privileges.sweep(tmp_path / "none")


@pytest.mark.parametrize(("milli", "quota"), [(0, 0), (1, 1000), (9, 1000), (10, 1000), (11, 1100), (2500, 250000)])
def test_the_least_cpu_limit_is_what_the_kernel_takes(milli: int, quota: int, tmp_path: Path) -> None:
    limits = cgroup.Limits(cpu_limit=milli)
    assert cgroup._quota(limits) == quota
    assert cgroup._v1("pids", tmp_path, limits) == [("pids.max", "4096")]
