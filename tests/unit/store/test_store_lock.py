"""Who has a data directory: asked without getting in anybody's way."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from isoplane.store.errors import StoreLocked
from isoplane.store.lock import DirectoryLock, Holder, holder


def test_the_holder_is_told_and_whoever_asks_takes_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert holder(tmp_path) is None
    lock = DirectoryLock(tmp_path)
    assert holder(tmp_path) == Holder(os.getpid())
    with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}") as held:
        DirectoryLock(tmp_path)
    assert held.value.pid == os.getpid()
    lock.release()

    def never(*_: object) -> None:
        raise AssertionError("a look at the lock locks")

    monkeypatch.setattr(fcntl, "flock", never)
    assert holder(tmp_path) is None, "the number of the last holder stays in the file, and means nothing"


def test_a_holder_that_could_not_write_its_number_is_one_all_the_same(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    (tmp_path / "lock").write_text("")
    assert holder(tmp_path) == Holder(0)
    lock.release()
