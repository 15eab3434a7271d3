"""What tests of containers share: the demonstration's images, built once, and a search for traces left on the host."""

from __future__ import annotations

import asyncio
import atexit
import base64
import os
import shutil
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

from isoplane.node.images import ImageStore
from isoplane.node.images.demo import build_demo
from isoplane.node.runtime.oci import OciRuntime
from isoplane.node.runtime.oci.layout import Layout


@lru_cache(maxsize=1)
def demo_images() -> Path:
    """The root of an image store that has the demonstration's images; one per test process, removed at its end."""
    root = Path(tempfile.mkdtemp(prefix="isoplane-test-images-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    failures: list[BaseException] = []

    def build() -> None:
        try:
            asyncio.run(build_demo(ImageStore(root)))
        except BaseException as error:
            failures.append(error)

    # On a thread: the caller may be inside an event loop of its own.
    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return root


def holding(value: str, directory: Path, *, on_disk: bool) -> list[Path]:
    """Files below a directory that have a value, plain or in base64: on its own file system, or on others mounted there."""
    device, found = directory.stat().st_dev, []
    wanted = (value.encode(), base64.b64encode(value.encode()))
    for parent, _, names in os.walk(directory):
        for path in (Path(parent, name) for name in names):
            try:
                if path.is_symlink() or not path.is_file() or (path.stat().st_dev == device) is not on_disk:
                    continue
                content = path.read_bytes()
            except FileNotFoundError:
                continue  # it went meanwhile
            if any(form in content for form in wanted):
                found.append(path)
    return found


async def remove_all(data_dir: Path) -> None:
    """End and remove every container below a data directory, whatever a test left there."""
    runtime = OciRuntime(data_dir, ImageStore(demo_images()))
    await runtime.start()
    for observed in await runtime.observe_all():
        await runtime.remove(observed.uid)
    await runtime.close()


def traces_of(data_dir: Path) -> list[str]:
    """Everything on the host that still speaks of a data directory's containers: mounts, cgroups, processes, files."""
    layout = Layout(data_dir)
    found = [
        f"mount: {line}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        # A runtime that is started has its memory, workloads or none.
        if str(layout.root) in line and f" {layout.memory} " not in line
    ]
    # os.walk passes over what others remove meanwhile.
    groups = (path for path, _, _ in os.walk("/sys/fs/cgroup"))
    found += [f"cgroup: {path}" for path in groups if f"/isoplane/{layout.plane}" in path]
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(layout.root) in command:
                found.append(f"process: {process.name} {command}")
    for directory in (layout.pods, layout.state, layout.bundles, layout.exits, layout.trash):
        if directory.exists():
            found += [f"file: {path}" for path in directory.iterdir()]
    return found
