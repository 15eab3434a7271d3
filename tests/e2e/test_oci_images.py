"""The image store against real tools: layouts, archives, a registry on loopback, several processes, crashes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isoplane.cli.image import app
from isoplane.node.images import ImageError, ImageInputError, ImageStore, Progress
from isoplane.node.images.build import Entry, write_layout
from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason
from support import free_port, require

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    require("skopeo", "umoci", root=True)
    return ImageStore(tmp_path / "images", pull_from_this_host=True)


def layout(directory: Path, text: str = "hello", tag: str = "image") -> Path:
    """A tiny image that differs by its text."""
    config = {"Env": ["A=b"], "Cmd": ["/hello"], "User": "1:2", "WorkingDir": "/w", "StopSignal": "SIGINT"}
    write_layout(directory, [Entry("hello", 0o755, text.encode()), Entry("w")], config, tag)
    return directory


def skopeo(*arguments: str) -> None:
    subprocess.run(["skopeo", *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry on loopback; HOST:PORT."""
    require("docker-registry", "skopeo", root=True)
    port = free_port()
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            probe = ["skopeo", "list-tags", "--tls-verify=false", f"docker://127.0.0.1:{port}/none"]
            said = subprocess.run(probe, capture_output=True, text=True, timeout=30).stderr
            if "refused" not in said:
                break
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


async def test_a_layout_becomes_an_image(store: ImageStore, tmp_path: Path) -> None:
    image = await store.load(str(layout(tmp_path / "l")), "isoplane.io/test/hello:1")
    assert (image.rootfs / "hello").read_text() == "hello"
    assert image.config.env == ("A=b",)
    assert (image.config.cmd, image.config.user, image.config.working_dir) == (("/hello",), "1:2", "/w")
    assert image.config.stop_signal == "SIGINT"
    assert store.lookup("isoplane.io/test/hello:1") == image
    assert store.lookup("isoplane.io/test/hello:2") is None
    assert store.lookup(f"isoplane.io/test/hello@{image.digest}") is not None
    assert image.image_id == f"isoplane.io/test/hello@{image.digest}"


async def test_the_same_content_is_kept_once(store: ImageStore, tmp_path: Path) -> None:
    first = await store.load(str(layout(tmp_path / "a")), "one:1")
    second = await store.load(str(layout(tmp_path / "b")), "two:1")
    assert first.rootfs == second.rootfs
    (stored,) = store.list()
    assert stored.names == ("docker.io/library/one:1", "docker.io/library/two:1")
    assert await store.remove("one:1") == ("docker.io/library/one:1",)
    assert second.rootfs.exists()
    removed = await store.remove("two:1")
    assert len(removed) == 2
    assert not second.rootfs.exists()
    assert store.list() == []


async def test_archives_are_recognised(store: ImageStore, tmp_path: Path) -> None:
    source = layout(tmp_path / "l")
    skopeo("copy", f"oci:{source}:image", f"oci-archive:{tmp_path / 'oci.tar'}:v1")
    skopeo("copy", f"oci:{source}:image", f"docker-archive:{tmp_path / 'docker.tar'}:example.org/app:7")
    named = await store.load(str(tmp_path / "docker.tar"))
    assert named.reference == "example.org/app:7"
    for path in (str(tmp_path / "oci.tar"), f"oci-archive:{tmp_path / 'oci.tar'}:v1", str(tmp_path / "docker.tar")):
        image = await store.load(path, "x:1")
        assert (image.rootfs / "hello").read_text() == "hello"


async def test_several_images_in_one_source_need_a_name(store: ImageStore, tmp_path: Path) -> None:
    both = tmp_path / "both"
    skopeo("copy", f"oci:{layout(tmp_path / 'a', 'one')}:image", f"oci:{both}:one")
    skopeo("copy", f"oci:{layout(tmp_path / 'b', 'two')}:image", f"oci:{both}:two")
    with pytest.raises(ImageInputError, match=r"several images \(one, two\)"):
        await store.load(str(both), "x:1")
    image = await store.load(f"{both}:two", "x:1")
    assert (image.rootfs / "hello").read_text() == "two"
    with pytest.raises(ImageInputError, match="no image named 'three'"):
        await store.load(f"oci:{both}:three", "x:1")


@pytest.mark.parametrize("content", [b"", b"not a tar file", b"\x1f\x8b broken gzip"])
async def test_what_is_no_image_is_refused(store: ImageStore, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ImageInputError, match="file"):
        await store.load(str(tmp_path / "file"), "x:1")
    with pytest.raises(ImageInputError, match="oci-layout"):
        await store.load(str(tmp_path), "x:1")
    with pytest.raises(ImageInputError, match="no such"):
        await store.load(str(tmp_path / "absent"), "x:1")
    with pytest.raises(ImageInputError):
        await store.load(str(layout(tmp_path / "l")), "Not A Name")
    with pytest.raises(ImageInputError, match="give it a name"):
        await store.load(str(tmp_path / "l"))
    assert store.list() == []


async def test_damaged_content_is_refused(store: ImageStore, tmp_path: Path) -> None:
    source = layout(tmp_path / "l")
    manifest = json.loads((source / "index.json").read_bytes())["manifests"][0]["digest"]
    layer = json.loads((source / "blobs/sha256" / manifest[7:]).read_bytes())["layers"][0]["digest"]
    blob = source / "blobs/sha256" / layer[7:]
    blob.write_bytes(b"x" * blob.stat().st_size)
    with pytest.raises(ImageError):
        await store.load(str(source), "x:1")
    assert store.list() == []
    assert list((store.root / "tmp").iterdir()) == []


async def test_an_image_for_another_machine_is_refused(store: ImageStore, tmp_path: Path) -> None:
    source = layout(tmp_path / "l")
    index = json.loads((source / "index.json").read_bytes())
    blobs = source / "blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
    document = json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes())

    def put(value: object) -> dict[str, object]:
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest["config"].update(put({**document, "architecture": "s390x"}))
    index["manifests"][0].update(put(manifest))
    (source / "index.json").write_text(json.dumps(index))
    with pytest.raises(ImageError, match="s390x"):
        await store.load(str(source), "x:1")


async def test_a_registry_on_loopback(store: ImageStore, tmp_path: Path, registry: str) -> None:
    source = layout(tmp_path / "l")
    skopeo("copy", "--dest-tls-verify=false", f"oci:{source}:image", f"docker://{registry}/team/app:1")
    pulled = await store.resolve(f"{registry}/team/app:1", "")
    assert (pulled.rootfs / "hello").read_text() == "hello"
    assert pulled.reference == f"{registry}/team/app:1"
    # IfNotPresent keeps what is there; Always asks again and takes what is new.
    skopeo(
        "copy",
        "--dest-tls-verify=false",
        f"oci:{layout(tmp_path / 'n', 'new')}:image",
        f"docker://{registry}/team/app:1",
    )
    assert await store.resolve(f"{registry}/team/app:1", "IfNotPresent") == pulled
    renewed = await store.resolve(f"{registry}/team/app:1", "Always")
    assert (renewed.rootfs / "hello").read_text() == "new"
    assert not pulled.rootfs.exists()
    assert await store.resolve(f"{registry}/team/app:1", "Always") == renewed
    by_digest = await store.resolve(f"{registry}/team/app@{renewed.digest}", "IfNotPresent")
    assert by_digest.rootfs == renewed.rootfs
    steps: list[Progress] = []
    await store.load(f"docker://{registry}/team/app:1", "mine:1", steps.append)
    assert steps[-1].stage == "done"


async def test_pull_failures_say_what_to_do(store: ImageStore, registry: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        await store.resolve(f"{registry}/team/none:1", "")
    assert caught.value.reason is RuntimeReason.ERR_IMAGE_PULL
    assert "isoplane image load" in caught.value.message
    with pytest.raises(RuntimeFailure) as caught:
        await store.resolve(f"127.0.0.1:{free_port()}/x:1", "")
    assert "refused" in caught.value.message
    with pytest.raises(RuntimeFailure) as caught:
        await store.resolve("isoplane.io/never/fetched:1", "Always")
    assert "built on this machine" in caught.value.message


async def test_concurrent_pulls_share_the_work(store: ImageStore, tmp_path: Path, registry: str) -> None:
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout(tmp_path / 'l')}:image", f"docker://{registry}/app:1")
    pulled = await asyncio.gather(*(store.resolve(f"{registry}/app:1", "") for _ in range(8)))
    assert len(set(pulled)) == 1
    assert list((store.root / "tmp").iterdir()) == []


async def test_many_processes_load_at_once(store: ImageStore, tmp_path: Path) -> None:
    source = layout(tmp_path / "l")
    code = (
        "import asyncio, sys; from pathlib import Path; from isoplane.node.images import ImageStore;"
        "asyncio.run(ImageStore(Path(sys.argv[1])).load(sys.argv[2], sys.argv[3]))"
    )
    names = [f"n{number % 2}:1" for number in range(4)]
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(store.root), str(source), name)
        for name in names
    ]
    assert [await process.wait() for process in processes] == [0] * 4
    (stored,) = store.list()
    assert len(stored.names) == 2


async def test_a_killed_load_leaves_nothing_half_done(store: ImageStore, tmp_path: Path) -> None:
    source = str(layout(tmp_path / "l", "z" * 3_000_000))
    code = (
        "import asyncio, sys; from pathlib import Path; from isoplane.node.images import ImageStore;"
        "print('go', flush=True);"
        "asyncio.run(ImageStore(Path(sys.argv[1])).load(sys.argv[2], 'x:1'))"
    )
    for delay in (0.0, 0.02, 0.04, 0.06, 0.08, 0.12):
        victim = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(store.root), source, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert victim.stdout is not None
        await victim.stdout.readline()
        await asyncio.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGKILL)
        await victim.wait()
        found = store.lookup("x:1")
        assert found is None or (found.rootfs / "hello").stat().st_size == 3_000_000
    for path in (store.root / "tmp").iterdir():
        os.utime(path, (1, 1))
    store.prune()
    assert list((store.root / "tmp").iterdir()) == []
    image = await store.load(source, "x:1")
    assert (image.rootfs / "hello").stat().st_size == 3_000_000


async def test_an_image_that_is_held_is_not_removed(store: ImageStore, tmp_path: Path) -> None:
    image = await store.load(str(layout(tmp_path / "l")), "x:1")
    held = image.hold()
    with pytest.raises(ImageError, match="in use"):
        await store.remove("x:1")
    assert store.list()[0].in_use
    assert await store.remove("x:1", force=True) == ("docker.io/library/x:1",)
    assert image.rootfs.exists()
    os.close(held)
    assert len(store.prune()) == 1
    assert not image.rootfs.exists()


async def test_a_damaged_name_is_said(store: ImageStore, tmp_path: Path) -> None:
    await store.load(str(layout(tmp_path / "l")), "x:1")
    for path in (store.root / "names").iterdir():
        path.write_text("{")
    with pytest.raises(RuntimeFailure, match="damaged"):
        await store.resolve("x:1")


def test_the_command_line(tmp_path: Path) -> None:
    require("skopeo", "umoci", root=True)
    runner = CliRunner()
    data = ["--data", str(tmp_path / "data")]
    source = str(layout(tmp_path / "l"))
    assert "no images" in runner.invoke(app, ["list", *data]).output
    loaded = runner.invoke(app, ["load", source, "--name", "example/app:1", *data])
    assert (loaded.exit_code, "docker.io/example/app:1" in loaded.output) == (0, True)
    assert "docker.io/example/app:1" in runner.invoke(app, ["list", *data]).output
    listed = json.loads(runner.invoke(app, ["list", "-o", "json", *data]).output)
    assert listed[0]["names"] == ["docker.io/example/app:1"]
    assert runner.invoke(app, ["rm", "example/app:1", *data]).exit_code == 0
    assert runner.invoke(app, ["rm", "example/app:1", *data]).exit_code == 1
    assert runner.invoke(app, ["load", str(tmp_path / "none"), *data]).exit_code == 2
    assert runner.invoke(app, ["load", source, "--name", "A B", *data]).exit_code == 2
    assert runner.invoke(app, ["load", f"127.0.0.1:{free_port()}/a:1", *data]).exit_code == 1
    assert runner.invoke(app, ["build-demo", "--no-guest", *data]).exit_code == 0
    assert "isoplane.io/demo/web:1" in runner.invoke(app, ["list", *data]).output
    assert "0 images removed" in runner.invoke(app, ["prune", *data]).output


def test_the_guides_image_of_ones_own(tmp_path: Path) -> None:
    require("skopeo", "umoci", root=True)
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "images.md").read_text()
    script = guide.split("```python\n")[1].split("```")[0].replace("/var/lib/isoplane", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("isoplane.io/mine/web@sha256:")
    image = ImageStore(tmp_path / "images").lookup("isoplane.io/mine/web:1")
    assert image is not None
    assert (image.rootfs / "www" / "mine.html").read_text() == "<h1>Mine</h1>\n"
