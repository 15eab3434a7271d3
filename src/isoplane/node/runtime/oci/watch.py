"""Noticing that a container ended by itself, without asking: conmon's exit files, and the supervisors' own lives.

Usually conmon writes an exit file, which inotify reports.  Should conmon have been killed instead, its pidfd reports that, and
then the container's own process is watched.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from isoplane.node.runtime.oci import kernel, processes


class Watcher:
    """Calls ``changed(uid)`` on the event loop. Containers are told to it by :meth:`watch`."""

    def __init__(self, exits: Path, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._owners: dict[str, str] = {}
        self._pidfds: dict[str, int] = {}
        self._inotify = kernel.inotify(exits, kernel.IN_MOVED_TO | kernel.IN_CLOSE_WRITE)
        self._loop.add_reader(self._inotify, self._exit_written)

    def close(self) -> None:
        self._loop.remove_reader(self._inotify)
        os.close(self._inotify)
        for container_id in list(self._pidfds):
            self._drop(container_id)

    def watch(self, uid: str, container_id: str, conmon_pid: int, container_pid: int) -> None:
        """Follow a container; again is harmless."""
        self._owners[container_id] = uid
        if container_id not in self._pidfds:
            self._follow(container_id, conmon_pid, container_pid)

    def forget(self, uid: str) -> None:
        """No more of this workload."""
        for container_id in [known for known, owner in self._owners.items() if owner == uid]:
            self._drop(container_id)
            del self._owners[container_id]

    def _follow(self, container_id: str, pid: int, then: int) -> None:
        fd = processes.open_pidfd(pid) if pid > 0 else None
        if fd is None:
            if then:
                self._follow(container_id, then, 0)
            else:
                self._tell(container_id)
                self._owners.pop(container_id, None)
            return
        self._pidfds[container_id] = fd
        self._loop.add_reader(fd, self._process_ended, container_id, then)

    def _process_ended(self, container_id: str, then: int) -> None:
        self._drop(container_id)
        # An ended conmon has written the exit file before; without one it was killed, and the container may live on.
        self._follow(container_id, then, 0)

    def _drop(self, container_id: str) -> None:
        fd = self._pidfds.pop(container_id, None)
        if fd is not None:
            self._loop.remove_reader(fd)
            os.close(fd)

    def _exit_written(self) -> None:
        for name in kernel.inotify_names(self._inotify):
            self._tell(name)

    def _tell(self, container_id: str) -> None:
        uid = self._owners.get(container_id)
        if uid is not None:
            self._changed(uid)
