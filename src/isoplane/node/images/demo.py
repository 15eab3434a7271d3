"""The demonstration's container images, built from Debian's busybox-static.

    isoplane.io/demo/busybox:1   a shell and the usual tools
    isoplane.io/demo/web:1       the same, serving a page on port 8080

They are also the pattern for one's own: files and a configuration, given to :func:`build.write_layout`.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from isoplane.node.images.build import Entry, write_layout
from isoplane.node.images.model import Image, ImageError, ProgressCallback
from isoplane.node.images.store import ImageStore

BUSYBOX_IMAGE = "isoplane.io/demo/busybox:1"
WEB_IMAGE = "isoplane.io/demo/web:1"
WEB_PORT = 8080

_PLACES = (Path("/bin/busybox"), Path("/usr/bin/busybox"), Path("/usr/lib/busybox/busybox-static"))
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>isoplane</title></head>
<body><h1>Hello from a container</h1><p>Served by busybox httpd, image isoplane.io/demo/web:1.</p></body></html>
"""
# PID 1 ignores signals that it does not handle, and busybox httpd handles none: a shell in front of it does.
_SERVE = b"""#!/bin/sh
trap 'kill "$child" 2>/dev/null; exit 0' TERM INT
httpd -f -v -p "${PORT:-8080}" -h "${ROOT:-/www}" &
child=$!
echo "serving ${ROOT:-/www} on port ${PORT:-8080}"
wait "$child"
"""


def find_busybox() -> Path:
    """A statically linked busybox of this host. Raises ImageError saying how to get one."""
    for path in _PLACES:
        if path.is_file() and _is_static(path):
            return path
    raise ImageError(
        "no statically linked busybox on this host: on Debian, `apt-get install busybox-static` (the package busybox is "
        "linked dynamically and does not run in an empty image)"
    )


def _is_static(path: Path) -> bool:
    """Whether an ELF file names no interpreter (PT_INTERP), which a dynamic loader would have to be in the image for."""
    data = path.read_bytes()[:4096]
    return data[:4] == b"\x7fELF" and b"/ld-" not in data


def busybox_entries(busybox: Path) -> list[Entry]:
    """A root file system: busybox, a link for each of its applets, and the directories and accounts that tools expect."""
    listed = subprocess.run([str(busybox), "--list-full"], capture_output=True, text=True, timeout=30)
    applets = sorted({line.strip() for line in listed.stdout.splitlines() if line.strip()})
    if listed.returncode != 0 or not applets:
        raise ImageError(f"{busybox} --list-full does not list its applets: {listed.stderr.strip()}")
    directories = [
        "bin", "sbin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "usr", "usr/bin", "usr/sbin",
        "usr/local", "usr/local/bin", "var", "var/log", "var/tmp", "tmp",
    ]  # fmt: skip
    modes = {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700}
    entries = [Entry(name, modes.get(name, 0o755)) for name in directories]
    entries += [
        Entry("bin/busybox", 0o755, busybox.read_bytes()),
        Entry("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        Entry("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n"),
        Entry("etc/nsswitch.conf", 0o644, b"hosts: files dns\n"),
    ]
    known = set(directories)
    for applet in applets:
        parent = applet.rpartition("/")[0]
        if applet != "bin/busybox" and parent in known:
            entries.append(Entry(applet, link="/bin/busybox"))
    return entries


def web_entries(busybox: Path) -> list[Entry]:
    """The same, with a page and what serves it."""
    return [
        *busybox_entries(busybox),
        Entry("www"),
        Entry("www/index.html", 0o644, _PAGE),
        Entry("bin/serve", 0o755, _SERVE),
    ]


async def build_demo(store: ImageStore, progress: ProgressCallback | None = None) -> tuple[Image, Image]:
    """Build and load both images. Raises ImageError."""
    busybox = find_busybox()
    plain: dict[str, Any] = {"Env": [_PATH], "Cmd": ["/bin/sh"], "WorkingDir": "/"}
    serving: dict[str, Any] = {
        **plain,
        "Cmd": ["/bin/serve"],
        "ExposedPorts": {f"{WEB_PORT}/tcp": {}},
        "StopSignal": "SIGTERM",
    }
    with tempfile.TemporaryDirectory(prefix="isoplane-build-") as scratch:
        loaded = []
        for name, entries, config in (
            (BUSYBOX_IMAGE, busybox_entries(busybox), plain),
            (WEB_IMAGE, web_entries(busybox), serving),
        ):
            layout = Path(scratch) / name.replace("/", "_").replace(":", "_")
            write_layout(layout, entries, config)
            loaded.append(await store.load(str(layout), name, progress))
    return loaded[0], loaded[1]
