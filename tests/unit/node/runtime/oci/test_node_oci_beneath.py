"""Paths inside a volume that a container writes: what was checked is what is used, whatever is exchanged meanwhile."""

from __future__ import annotations

import ctypes
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from isoplane.node import trees
from isoplane.node.runtime.oci import beneath, volumes

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _EXCHANGE = -100, 2


def exchange(one: Path, other: Path) -> None:
    """renameat2(RENAME_EXCHANGE): both names change their meaning in one step."""
    result = _LIBC.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE)
    assert result == 0, os.strerror(ctypes.get_errno())


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with a directory and, beside it, a link that leads to a secret outside."""
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "secret").write_text("the host's")
    inside = tmp_path / "volume/sub/dir"
    inside.mkdir(parents=True)
    (inside / "mine").write_text("the tenant's")
    (tmp_path / "volume/link").symlink_to(secret)
    (tmp_path / "volume/sub/link").symlink_to(secret)
    return tmp_path / "volume"


@pytest.mark.parametrize("where", ["sub", "sub/dir"])
def test_an_exchange_after_the_check_changes_nothing(volume: Path, where: str) -> None:
    link = volume / ("link" if where == "sub" else "sub/link")
    with beneath.opened(volume, "sub/dir") as fd:
        exchange(volume / where, link)
        assert os.listdir(beneath.proc(fd)) == ["mine"]
    with pytest.raises(beneath.LeadsOut), beneath.opened(volume, "sub/dir"):
        pass


@pytest.mark.parametrize("create", [False, True])
def test_links_are_refused_wherever_they_stand(volume: Path, create: bool) -> None:
    for path in ("link", "link/secret", "sub/link", "sub/link/new"):
        with pytest.raises(beneath.LeadsOut), beneath.opened(volume, path, create=create):
            pass
    assert sorted(os.listdir(volume.parent / "outside")) == ["secret"]


@pytest.mark.parametrize("path", ["..", "a/../..", "/etc", "sub/../../outside", "a\0b"])
def test_climbing_is_refused(volume: Path, path: str) -> None:
    with pytest.raises(beneath.LeadsOut), beneath.opened(volume, path):
        pass


def test_what_is_made_has_the_mode_and_group_of_the_volume(volume: Path) -> None:
    if os.geteuid() == 0:
        os.chown(volume, -1, 4711)
    os.chmod(volume, 0o2777)
    with beneath.opened(volume, "new/deeper", create=True) as fd:
        found = os.fstat(fd)
    assert stat.S_IMODE(found.st_mode) == 0o2777
    assert found.st_gid == volume.stat().st_gid
    assert (volume / "new/deeper").is_dir()


def test_links_of_the_plane_itself_are_followed_within(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026/key").write_text("v")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "key").symlink_to("..data/key")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "out").symlink_to("/etc/passwd")
    with beneath.opened(tmp_path, "key", links=True) as fd:
        assert Path(beneath.proc(fd)).read_text() == "v"
    for name in ("loop", "out"):
        with pytest.raises(beneath.LeadsOut), beneath.opened(tmp_path, name, links=True):
            pass


def test_giving_a_volume_to_a_group_touches_nothing_outside(volume: Path) -> None:
    outside = volume.parent / "outside/secret"
    os.chmod(outside, 0o600)
    os.mkfifo(volume / "sub/pipe")
    if os.geteuid() == 0:
        volumes._give_to_group(volume, 4711)
        assert (volume / "sub/dir/mine").stat().st_gid == 4711
    else:
        volumes._give_to_group(volume, os.getegid())
    assert stat.S_IMODE((volume / "sub/dir").stat().st_mode) & 0o2770 == 0o2770
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert outside.stat().st_gid != 4711


@pytest.mark.slow
def test_twenty_seconds_of_exchanges_never_lead_out(volume: Path) -> None:
    """Whoever exchanges a directory for a link as fast as it can: opened, made and given to a group is only what is inside."""
    ended = threading.Event()
    outside = volume.parent / "outside/secret"
    os.chmod(outside, 0o600)

    def attack() -> None:
        while not ended.is_set():
            exchange(volume / "sub", volume / "link")
            exchange(volume / "sub/dir", volume / "sub/link") if not (volume / "sub").is_symlink() else None

    def racing() -> None:
        try:
            attack()
        except AssertionError:  # two exchanges met: one of the names was the link just then
            racing()

    attacker = threading.Thread(target=racing, daemon=True)
    attacker.start()
    opened = refused = 0
    deadline = time.monotonic() + 20
    try:
        while time.monotonic() < deadline:
            try:
                with beneath.opened(volume, "sub/dir", create=True) as fd:
                    assert "secret" not in os.listdir(beneath.proc(fd))
                    opened += 1
            except (beneath.LeadsOut, NotADirectoryError):
                refused += 1
            volumes._give_to_group(volume, os.getegid())
    finally:
        ended.set()
        attacker.join(10)
    assert opened
    assert refused
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert os.listdir(outside.parent) == ["secret"]


def nested(base: Path, levels: int) -> None:
    """Directories one in another, deeper than a path can be written."""
    fd = os.open(base, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_a_tree_of_any_depth_is_removed_and_links_are_not_followed(volume: Path) -> None:
    nested(volume, 3000)
    trees.remove_tree(volume)
    assert not volume.exists()
    assert (volume.parent / "outside/secret").read_text() == "the host's"


def test_a_tree_that_is_too_deep_is_not_walked(tmp_path: Path) -> None:
    nested(tmp_path, beneath.DEEPEST + 1)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="nested more than"):
        list(beneath.walk(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before
