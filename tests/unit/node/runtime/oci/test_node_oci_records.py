"""Records, locks and system calls of the OCI runtime that need no root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isoplane import filelock
from isoplane.node import procfs
from isoplane.node.runtime.oci import kernel, processes
from isoplane.node.runtime.oci.layout import Layout, read_json, write_json


def test_a_record_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert read_json(path) is None
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    path.write_text('{"a": ')
    assert read_json(path) is None
    path.write_text("[]")
    assert read_json(path) is None
    assert read_json(path / "below") is None


@pytest.mark.parametrize("uid", ["", ".", "..", "a/b", "/etc"])
def test_a_uid_cannot_lead_out_of_the_data_directory(tmp_path: Path, uid: str) -> None:
    with pytest.raises(ValueError, match="uid"):
        Layout(tmp_path).pod(uid)


def test_instances_are_told_apart_and_attempts_are_in_order(tmp_path: Path) -> None:
    one, other = Layout(tmp_path / "a"), Layout(tmp_path / "b")
    assert one.container_id("u", "c", 0) != other.container_id("u", "c", 0)
    assert one.container_id("u", "c", 0) == Layout(tmp_path / "a").container_id("u", "c", 0)
    assert one.cgroup("u", "c", 3).startswith(one.parent_cgroup + "/u/")
    for number in (10, 2, 0):
        one.attempt("u", "c", number).directory.mkdir(parents=True)
    (one.pod("u") / "units" / "c" / "junk").mkdir()
    assert [attempt.number for attempt in one.attempts("u", "c")] == [0, 2, 10]
    assert one.attempts("u", "other") == []
    assert other.uids() == []


def test_a_lock_is_held_by_a_child_that_inherits_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not filelock.is_held(path)
    fd = kernel.lock(path)
    assert fd is not None
    assert filelock.is_held(path)
    assert kernel.lock(path) is None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(fd,))
    os.close(fd)
    assert filelock.is_held(path)
    child.communicate(b"\n")
    assert not filelock.is_held(path)


def test_a_process_is_not_mistaken_for_a_later_one() -> None:
    ticks = procfs.start_ticks(os.getpid())
    assert ticks > 0
    assert procfs.alive(os.getpid(), ticks)
    assert not procfs.alive(os.getpid(), ticks + 1)
    child = subprocess.Popen(["true"])
    child.wait()
    assert not procfs.alive(child.pid, 0)
    assert processes.wait_gone(child.pid, 1)
    assert not procfs.alive(0, 0)


def test_pid_files(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    assert procfs.read_pid(path) == 0
    for text, pid in (("", 0), ("12\n", 12), ("x", 0)):
        path.write_text(text)
        assert procfs.read_pid(path) == pid
    assert processes.wait_pid(tmp_path / "absent", tmp_path / "lock", 1.0) == 0


def test_inotify_names_what_was_written(tmp_path: Path) -> None:
    fd = kernel.inotify(tmp_path, kernel.IN_MOVED_TO | kernel.IN_CLOSE_WRITE)
    assert list(kernel.inotify_names(fd)) == []
    (tmp_path / "some-long-name").write_text("x")
    os.replace(tmp_path / "some-long-name", tmp_path / "b")
    assert list(kernel.inotify_names(fd)) == ["some-long-name", "b"]
    os.close(fd)
