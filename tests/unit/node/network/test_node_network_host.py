"""What the fabric does to the host itself, as far as it can be told without touching one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isoplane.node import programs
from isoplane.node.network import forwarding, nat, process, sysctl
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import FabricSettings, Ranges

NAMES = FabricSettings(Path("/nowhere")).names


def test_a_firewall_that_forwards_nothing_lets_our_interfaces_through() -> None:
    docker = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n"
    rules = forwarding.missing(docker, NAMES)
    assert len(rules) == 6
    assert forwarding.missing(docker.replace("COMMIT", "\n".join([*rules, "COMMIT"])), NAMES) == []
    assert forwarding.present(docker.replace("COMMIT", "\n".join([*rules, "COMMIT"])), NAMES) == rules
    assert forwarding.missing(docker.replace("FORWARD DROP", "FORWARD ACCEPT"), NAMES) == []


def test_only_what_leaves_the_range_is_masqueraded() -> None:
    text = nat.ruleset(NAMES, Ranges.of("10.9.0.0/16"))
    assert "ip saddr 10.9.0.0/16 ip daddr != 10.9.0.0/16" in text
    assert text.index(f"delete table ip {NAMES.nat_table}") < text.index("masquerade")


def test_borrowed_settings_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    (tmp_path / "one").write_text("0\n")
    (tmp_path / "two").write_text("1\n")
    note = tmp_path / "note"
    sysctl.borrow(note, {"one": "1", "two": "1", "absent": "1"})
    sysctl.borrow(note, {"one": "1"})
    assert (tmp_path / "one").read_text() == "1"
    (tmp_path / "one").write_text("1")
    sysctl.give_back(note)
    assert (tmp_path / "one").read_text() == "0"
    assert (tmp_path / "two").read_text() == "1\n"
    sysctl.give_back(note)


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(programs, "_SYSTEM", ())
    with pytest.raises(
        FabricFailure, match="ovs-vswitchd is not installed: on Debian, `apt-get install openvswitch-switch`"
    ):
        process.find("ovs-vswitchd")


async def test_a_tool_that_fails_is_quoted() -> None:
    with pytest.raises(FabricFailure, match=r"failed with 3: what is wrong"):
        await process.run("sh", "-c", "echo what is wrong >&2; exit 3")
    with pytest.raises(FabricFailure, match="took more than"):
        await process.run("sleep", "5", timeout=0.05)
    assert await process.run("cat", stdin=b"text") == b"text"


async def test_a_daemon_is_known_by_its_command_line(tmp_path: Path) -> None:
    pid_file = tmp_path / "it.pid"
    daemon = process.Daemon(pid_file)
    assert daemon.pid == 0
    pid_file.write_text("1")  # somebody else's by now
    assert daemon.pid == 0
    await daemon.stop()
    running = await asyncio.create_subprocess_exec("sh", "-c", "sleep 60; true", f"--pidfile={pid_file}")
    try:
        while daemon.pid != running.pid:  # found though no pid file tells
            await asyncio.sleep(0.01)
        await daemon.stop()
        assert await asyncio.wait_for(running.wait(), 5) != 0
    finally:
        if running.returncode is None:
            running.kill()
    assert daemon.pid == 0
