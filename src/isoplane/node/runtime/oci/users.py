"""Who a container runs as: numbers from the Pod, else from the image and its /etc/passwd and /etc/group."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoplane.node.runtime.oci import beneath
from isoplane.node.runtime.oci.environment import missing
from isoplane.objects.rules.security import LARGEST_ID

_MAX_FILE = 1 << 20
_MAX_DIGITS = 20


@dataclass(frozen=True, slots=True)
class User:
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve(image_user: str, security: Mapping[str, Any], pod_security: Mapping[str, Any], rootfs: Path) -> User:
    """The user, container settings before Pod settings before the image. Raises CreateContainerConfigError."""
    wanted, group = image_user.partition(":")[0], image_user.partition(":")[2]
    accounts = _table(rootfs, "passwd")
    by_name = {row[0]: row for row in accounts if len(row) >= 4}
    by_uid = {row[2]: row for row in reversed(accounts) if len(row) >= 4}
    as_user = _first(security, pod_security, "runAsUser")
    if as_user is not None:
        wanted = str(as_user)
    wanted = wanted or "0"
    row = by_uid.get(wanted) if wanted.isdigit() else by_name.get(wanted)
    if not wanted.isdecimal() and row is None:
        raise missing(f"the image's user {wanted[:64]!r} is not in its /etc/passwd: set securityContext.runAsUser")
    uid = _id(row[2] if row else wanted, "user")
    as_group = _first(security, pod_security, "runAsGroup")
    if as_group is not None:
        gid = _id(as_group, "group")
    elif group and as_user is None:
        gid = _group_id(rootfs, group)
    else:
        gid = _id(row[3], "group") if row and row[3].isdigit() else 0
    if _first(security, pod_security, "runAsNonRoot") and uid == 0:
        raise missing("the container has runAsNonRoot and would run as root: set runAsUser, or use another image")
    extra = {_id(group, "supplemental group") for group in pod_security.get("supplementalGroups") or ()}
    if pod_security.get("fsGroup") is not None:
        extra.add(_id(pod_security["fsGroup"], "fsGroup"))
    if row is not None:
        extra.update(_memberships(rootfs, row[0]))
    home = row[5] if row and len(row) > 5 and row[5] else "/"
    return User(uid, gid, tuple(sorted(extra - {gid})), home)


def _id(number: Any, what: str) -> int:
    """A user or group number. 4294967295 means "leave it as it is" to the kernel, so that whoever asks for it stays root."""
    text = str(number)
    # Counted before it is converted: Python refuses to convert a number of thousands of digits, with a ValueError.
    if not text.isdecimal() or not text.isascii() or len(text) > _MAX_DIGITS or int(text) > LARGEST_ID:
        raise missing(f"the {what} {text[:64]!r} is not a number between 0 and {LARGEST_ID}")
    return int(text)


def _first(security: Mapping[str, Any], pod_security: Mapping[str, Any], key: str) -> Any:
    value = security.get(key)
    return pod_security.get(key) if value is None else value


def _group_id(rootfs: Path, group: str) -> int:
    if group.isdigit():
        return _id(group, "group")
    for row in _table(rootfs, "group"):
        if row[0] == group and len(row) >= 3 and row[2].isdigit():
            return _id(row[2], "group")
    raise missing(f"the image's group {group[:64]!r} is not in its /etc/group: set securityContext.runAsGroup")


def _memberships(rootfs: Path, name: str) -> set[int]:
    rows = (row for row in _table(rootfs, "group") if len(row) >= 4 and row[2].isdigit())
    return {_id(row[2], "group") for row in rows if name in row[3].split(",")}


def _table(rootfs: Path, name: str) -> list[list[str]]:
    """The rows of an account file. Symbolic links are not followed: they could lead out of the image."""
    try:
        with beneath.opened(rootfs, f"etc/{name}") as found:
            if not stat.S_ISREG(os.fstat(found).st_mode):
                return []
            fd = os.open(beneath.proc(found), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    with os.fdopen(fd, "rb") as file:
        text = file.read(_MAX_FILE).decode(errors="replace")
    return [line.split(":") for line in text.splitlines() if ":" in line and not line.startswith("#")]
