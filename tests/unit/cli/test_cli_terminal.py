"""What the command line tells about itself: computed defaults in --help, waits, programs that are missing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isoplane.cli import terminal
from isoplane.cli.main import COMMANDS
from isoplane.node import assembly, programs
from isoplane.node.parts import NodeOptions
from isoplane.node.runtime.protocol import RuntimeFailure


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isoplane.cli.main", *arguments]
    wide = {**os.environ, "COLUMNS": "200", "TERM": "dumb", **env}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=wide, check=False)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("up",), "/var/lib/isoplane, or ~/.local/share"),
        (("up",), "DATA/kubeconfig"),
        (("up",), "one that no route overlaps"),
        (("down",), "/var/lib/isoplane, or ~/.local/share"),
        (("image", "load"), "what the source calls it"),
        (("vm", "stop"), "its own"),
        (("policy", "status"), "$KUBECONFIG, else that of the data directory"),
    ],
)
def test_help_tells_computed_defaults(command: tuple[str, ...], told: str) -> None:
    shown = " ".join(run(*command, "--help").stdout.split())
    assert f"[default: ({told})]" in shown


def test_a_command_that_does_not_exist_is_answered_with_one_that_does() -> None:
    done = run("stauts")
    assert done.returncode == 2
    assert "Did you mean 'status'?" in done.stderr


def test_the_help_of_a_group_cuts_no_sentence_off() -> None:
    shown = " ".join(run("vm", "--help", COLUMNS="60").stdout.split())
    assert "press its power button, destroy it after its grace period" in shown


def test_every_command_is_told_in_the_help() -> None:
    shown = run("--help").stdout
    assert all(name in shown for name in COMMANDS)


def test_version_tells_what_it_speaks_and_runs_on() -> None:
    done = run("version")
    assert done.returncode == 0
    assert {"isoplane", "kubernetes", "kubevirt", "python", "kernel"} == {
        line.split()[0] for line in done.stdout.splitlines()
    }


def test_status_of_a_directory_that_is_not_there(tmp_path: Path) -> None:
    done = run("status", "--data", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "does not exist" in done.stderr


def test_status_of_a_directory_without_a_plane(tmp_path: Path) -> None:
    (tmp_path / "oci/pods/one").mkdir(parents=True)
    done = run("status", "--data", str(tmp_path))
    assert done.returncode == 1
    rows = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert rows["plane"].strip() == "does not run"
    assert rows["containers"].strip() == "1"


def test_a_long_wait_is_told_and_a_short_one_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.waiting("a short wait"):
        pass
    monkeypatch.setattr(terminal, "PATIENCE", 0.01)
    with terminal.waiting("a long wait"):
        time.sleep(0.1)
    told = capsys.readouterr().err
    assert "a short wait" not in told
    assert told.startswith("a long wait … ")


def make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_what_lies_in_sbin_is_found_without_it_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "sbin/nft")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(programs, "_SYSTEM", (str(tmp_path / "sbin"),))
    assert programs.which("nft") == str(tmp_path / "sbin/nft")
    assert programs.which("conmon") is None


def test_all_that_is_missing_is_told_at_once_with_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "conmon")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "_SYSTEM", ())
    with pytest.raises(RuntimeFailure) as caught:
        assembly.check(tmp_path, NodeOptions(container_engine="iptables", vm_engine="openvswitch"))
    told = str(caught.value)
    for package in (
        "crun",
        "qemu-system-x86",
        "skopeo",
        "umoci",
        "iptables",
        "ipset",
        "openvswitch-switch",
        "dnsmasq-base",
    ):
        assert f"install the Debian package {package}" in told
    assert "conmon is missing" not in told
    assert "nftables" not in told, "nobody chose that engine"
    assert "apt-get install crun qemu-system-x86" in told


def test_where_no_kubeconfig_is_said_what_was_looked_for(tmp_path: Path) -> None:
    done = run("vm", "start", "x", HOME=str(tmp_path), KUBECONFIG="", ISOPLANE_DATA=str(tmp_path / "none"))
    assert done.returncode == 2
    for looked in (
        "$KUBECONFIG is not set",
        str(tmp_path / "none/kubeconfig"),
        str(tmp_path / ".kube/config"),
        "--kubeconfig",
    ):
        assert looked in done.stderr
