"""Starting one container, step by step, so that a crash between any two steps leaves something that can be told.

    record.json is written     nothing runs yet: a start that goes no further is cleared away
    conmon is started          it holds the attempt's lock; no second conmon can start while it lives
    the container is created   it waits at its start line; the low-level runtime refuses a second one of this id
    the container is started   once: only a created container can be

Everything here blocks, and runs on a thread of the Launcher.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isoplane.node import mounting, procfs, trees
from isoplane.node.formats import CONTAINER_START
from isoplane.node.images import Image, ImageError
from isoplane.node.runtime.oci import guarded, kernel, processes, spec, volumes
from isoplane.node.runtime.oci.launcher import CommandFailure, Launcher, last_line
from isoplane.node.runtime.oci.layout import Attempt, Layout, read_json, write_json
from isoplane.node.runtime.oci.observe import has_started
from isoplane.node.runtime.oci.projects import Projects
from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason

LOG_LIMIT = 100 << 20
"""Bytes at which conmon itself starts a log over: a last resort while no plane rotates it."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One start: where, of what, as what."""

    uid: str
    attempt: Attempt
    container_id: str
    asked: str
    """The image as the unit names it."""
    image: Image
    container: spec.Container
    stop_signal: str
    stdin: bool = False
    post_start: dict[str, Any] | None = None
    pre_stop: dict[str, Any] | None = None
    storage_limit: int = 0
    """Bytes that it may write to its file system; 0 for as many as there are."""
    log_fallback: bool = False
    """Whether the end of the log is the termination message of a container that failed without leaving one."""


class Starter:
    """Starts containers with the tools found on the host."""

    def __init__(self, launcher: Launcher, layout: Layout, projects: Projects) -> None:
        self.launcher = launcher
        self.projects = projects
        self._layout = layout

    def start(self, launch: Launch) -> None:
        """Create and start. Raises RuntimeFailure, leaving nothing of this attempt behind."""
        attempt = launch.attempt
        try:
            attempt.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = kernel.lock(attempt.lock)
        except OSError as error:
            raise _failure(RuntimeReason.CREATE, launch, str(error)) from None
        if lock is None:
            return  # another conmon of this very attempt lives: it is being started, or runs
        try:
            held = launch.image.hold()
        except ImageError as error:
            os.close(lock)
            raise _failure(RuntimeReason.CREATE, launch, str(error)) from None
        keep = (lock, held)
        try:
            self.launcher.isolated(lambda: self._create_and_start(launch, keep))
        except RuntimeFailure:
            os.close(lock)
            lock = -1
            self.clear(attempt, launch.container_id)
            raise
        finally:
            if lock >= 0:
                os.close(lock)
            os.close(held)

    def _create_and_start(self, launch: Launch, keep: tuple[int, ...]) -> None:
        attempt = launch.attempt
        try:
            write_json(
                attempt.record,
                CONTAINER_START.stamp(
                    {
                        "id": launch.container_id,
                        "runtime": self.launcher.tools.runtime,
                        "asked": launch.asked,
                        "image": launch.image.reference,
                        "imageID": launch.image.image_id,
                        "stopSignal": launch.stop_signal,
                        "cgroup": launch.container.cgroup,
                        "logFallback": launch.log_fallback,
                        "postStart": launch.post_start,
                        "preStop": launch.pre_stop,
                    }
                ),
            )
            mounts = volumes.bind_sub_paths(launch.container.mounts, attempt.directory / "mounts")
            attempt.message.touch(mode=0o666)
            os.chmod(attempt.message, 0o666)
            self._write_bundle(launch, mounts)
            self._mount_rootfs(launch)
        except OSError as error:
            raise _failure(RuntimeReason.CREATE, launch, str(error)) from None
        try:
            report = self.launcher.conmon(self._conmon_arguments(launch), attempt.directory, keep)
        except CommandFailure as error:
            raise _failure(RuntimeReason.CREATE, launch, str(error)) from None
        pid = _created(launch, report)
        write_json(attempt.process, {"pid": pid, "startTicks": procfs.start_ticks(pid)})
        self.release(attempt, launch.container_id)

    def _write_bundle(self, launch: Launch, mounts: Sequence[spec.Mount]) -> None:
        container_id = launch.container_id
        document = spec.document(replace(launch.container, mounts=mounts), str(launch.attempt.rootfs))
        try:
            self._layout.bundle(container_id).mkdir(mode=0o700, exist_ok=True)
            self._layout.config(container_id).write_text(json.dumps(document))
            write_json(self._layout.mounted(container_id), guarded.identities(mounts))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            what = (
                f"no space is left in {self._layout.memory}, where environments and command lines lie in memory, "
                "a tenth of the host's at most: remove containers, or make theirs smaller"
            )
            raise _failure(RuntimeReason.CREATE, launch, what) from None

    def release(self, attempt: Attempt, container_id: str) -> None:
        """Let a created container go over its start line; one that went before is left alone.

        One in which a volume lies over the kernel's places is killed instead.
        """
        try:
            self._verify(attempt, container_id)
        except RuntimeFailure as failure:
            procfs.send(_process(attempt), signal.SIGKILL)
            raise RuntimeFailure(failure.reason, f"container {attempt.unit!r}: {failure.message}") from None
        if self.launcher.tools.runtime == "crun" and self._open_gate(container_id):
            return
        try:
            self.launcher.run("start", container_id)
        except CommandFailure as error:
            if has_started(self._layout, container_id):
                return
            message = f"container {attempt.unit!r} could not be started: {error}"
            raise RuntimeFailure(RuntimeReason.RUN, message) from None

    def _verify(self, attempt: Attempt, container_id: str) -> None:
        known = read_json(self._layout.mounted(container_id))
        if known is None or has_started(self._layout, container_id):
            return
        pid = _process(attempt)
        try:
            guarded.verify(pid, known)
        except OSError as error:
            if procfs.alive(pid, 0):
                raise RuntimeFailure(RuntimeReason.RUN, f"its mounts cannot be read: {error}") from None

    def _open_gate(self, container_id: str) -> bool:
        """What `crun start` does, without a process for it: one byte into the FIFO at which the container waits.

        Saves a sixth of a start. The FIFO is removed after the byte is in it, not before: killed in between, we find a FIFO
        that nobody reads any more, and know that the container went. False: ask crun.
        """
        gate = self._layout.state / container_id / "exec.fifo"
        try:
            fd = os.open(gate, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                return False
        else:
            try:
                os.write(fd, b"\0")
            except OSError:
                return False
            finally:
                os.close(fd)
        gate.unlink(missing_ok=True)
        return True

    def _mount_rootfs(self, launch: Launch) -> None:
        """The image below, the container's own changes above; visible in this thread's mount namespace alone."""
        directory = launch.attempt.directory
        for name in ("upper", "work", "rootfs"):
            (directory / name).mkdir(mode=0o755, exist_ok=True)
        self.projects.limit([directory / "upper", directory / "work"], launch.storage_limit)
        lower = str(launch.image.rootfs)
        options = f"lowerdir={_escaped(lower)},upperdir={_escaped(directory / 'upper')},workdir={_escaped(directory / 'work')}"
        mounting.mount("overlay", directory / "rootfs", "overlay", 0, options)

    def _conmon_arguments(self, launch: Launch) -> list[str]:
        attempt, tools = launch.attempt, self.launcher.tools
        arguments = [
            "--api-version", "1",
            "--cid", launch.container_id,
            "--cuuid", launch.container_id,
            "--name", launch.container_id,
            "--runtime", tools.runtime_path,
            "--runtime-arg", "--root",
            "--runtime-arg", str(self._layout.state),
            "--bundle", str(self._layout.bundle(launch.container_id)),
            "--persist-dir", str(attempt.directory),
            "--container-pidfile", str(attempt.pid),
            "--conmon-pidfile", str(attempt.conmon_pid),
            "--exit-dir", str(self._layout.exits),
            "--log-path", f"k8s-file:{attempt.log}",
            "--log-size-max", str(LOG_LIMIT),
            "--full-attach",
        ]  # fmt: skip
        if launch.container.tty:
            arguments.append("--terminal")
        if launch.stdin:
            arguments += ["--stdin", "--leave-stdin-open"]
        return arguments

    def clear(self, attempt: Attempt, container_id: str) -> None:
        """Remove what a failed or interrupted start left, so that the attempt can be made again."""
        if (self._layout.state / container_id).exists():
            self.launcher.isolated(lambda: self._delete(container_id))
        processes.wait_conmon(attempt.lock, attempt.conmon_pid, container_id, 5.0)
        (self._layout.exits / container_id).unlink(missing_ok=True)
        attempt.message.unlink(missing_ok=True)
        self.projects.release([attempt.directory / "upper"])
        trees.remove_tree(self._layout.bundle(container_id))
        trees.remove_tree(attempt.directory)

    def _delete(self, container_id: str) -> None:
        try:
            self.launcher.run("delete", "--force", container_id)
        except CommandFailure:
            # Its state may be half written; what matters of it, the cgroup and the process, is removed with the sandbox.
            shutil.rmtree(self._layout.state / container_id, ignore_errors=True)

    def delete(self, container_id: str) -> None:
        """Remove what the low-level runtime knows of a container, and kill it if it still runs."""
        if (self._layout.state / container_id).exists():
            self.launcher.isolated(lambda: self._delete(container_id))
        trees.remove_tree(self._layout.bundle(container_id))


def _process(attempt: Attempt) -> int:
    return int((read_json(attempt.process) or {}).get("pid") or 0) or procfs.read_pid(attempt.pid)


def _created(launch: Launch, report: bytes) -> int:
    """The process id in conmon's report: ``{"data": PID}``, negative with a message when creating failed."""
    try:
        answer = json.loads(report)
        pid = int(answer["data"])
    except (ValueError, KeyError, TypeError):
        raise _failure(
            RuntimeReason.CREATE, launch, last_line(report.decode(errors="replace")) or "no report"
        ) from None
    if pid > 0:
        return pid
    message = last_line(str(answer.get("message") or "")) or _runtime_log(launch.attempt.directory)
    unfound = "executable file not found" in message or "no such file" in message.lower()
    reason = RuntimeReason.RUN if unfound else RuntimeReason.CREATE
    hint = f" (command {launch.container.args[0]!r}, working directory {launch.container.cwd!r})" if unfound else ""
    raise _failure(reason, launch, message + hint)


def _runtime_log(directory: Path) -> str:
    try:
        return last_line((directory / "log").read_text(errors="replace")) or "the low-level runtime did not say why"
    except OSError:
        return "the low-level runtime did not say why"


def _failure(reason: RuntimeReason, launch: Launch, what: str) -> RuntimeFailure:
    return RuntimeFailure(reason, f"container {launch.attempt.unit!r} could not be created: {what}")


def _escaped(path: Path | str) -> str:
    """A path among mount options, where ``,`` and ``:`` separate."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
