"""Files of a volume that follow their objects: a new set takes the old one's place in one step, as the kubelet does it.

    ..2026_01_31_12_00_00.x7Qd/  the files
    ..data                       a link to that directory; renaming another one over it is the step
    name                         a link to ..data/name, one for each first name of a path

Whoever opened a file of the old set keeps it.  A container that mounted a subPath keeps the old file too.  A crash between
any two steps leaves the old set or the new one, and the next call tidies up.  Only the plane writes here.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from isoplane.node import trees

DATA = "..data"
Files = Mapping[str, tuple[bytes, int]]
"""Relative path → (content, mode)."""


def publish(path: Path, files: Files, settle: Callable[[], None]) -> None:
    """Make ``files`` what the volume at ``path`` shows. ``settle`` is called when a new set is written and not yet shown.

    Raises OSError, also for paths of which one needs a directory where another has its file.
    """
    current = _current(path)
    if not current or not _same(path / current, files):
        _sweep(path, current)
        fresh = _write(path, files)
        settle()
        _point(path / DATA, fresh)
        current = fresh
    shown = {relative.split("/")[0] for relative in files}
    for name in shown:
        _show(path / name)
    for name in os.listdir(path):
        if name not in shown and not name.startswith(".."):
            _discard(path / name)
    _sweep(path, current)


def _current(path: Path) -> str:
    """The directory that is shown; '' for none."""
    try:
        return os.readlink(path / DATA)
    except OSError:
        return ""


def _same(directory: Path, files: Files) -> bool:
    found = {
        os.path.relpath(os.path.join(parent, name), directory)
        for parent, _, names in os.walk(directory)
        for name in names
    }
    if not directory.is_dir() or found != {os.path.normpath(relative) for relative in files}:
        return False
    return all(
        stat.S_IMODE((directory / relative).stat().st_mode) == mode and (directory / relative).read_bytes() == content
        for relative, (content, mode) in files.items()
    )


def _write(path: Path, files: Files) -> str:
    """A new directory with the files, not shown yet; its name."""
    directory = Path(tempfile.mkdtemp(prefix=time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime()), dir=path))
    directory.chmod(0o755)
    for relative, (content, mode) in files.items():
        target = directory / relative
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, mode)
    return directory.name


def _show(link: Path) -> None:
    target = f"{DATA}/{link.name}"
    if not link.is_symlink() and link.is_dir():
        _discard(link)  # an earlier version of isoplane put the files themselves here
    if not link.is_symlink() or os.readlink(link) != target:
        _point(link, target)


def _point(link: Path, target: str) -> None:
    temporary = link.with_name("..new_link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _sweep(path: Path, current: str) -> None:
    """Remove sets that are not shown."""
    for name in os.listdir(path):
        if name.startswith("..") and name not in (DATA, current):
            _discard(path / name)


def _discard(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        trees.remove_tree(entry)
    else:
        entry.unlink(missing_ok=True)
