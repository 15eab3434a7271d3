"""Data directories that earlier versions left (killed with -9, one a format): `up` goes on with them, `down` takes them down.

The archives in tests/golden/data_directories were written by those versions on the simulated runtime: a running Pod ``web`` that
is told to leave and ignores it, a Pod ``waits`` behind a hold, a quota, a Secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isoplane.node import formats
from isoplane.node.formats import RecordsRefused
from isoplane.node.images.shelf import Shelf
from isoplane.node.network.ipam import Ipam
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.runtime.oci import sandbox
from isoplane.node.runtime.oci.layout import Layout
from isoplane.node.runtime.qemu import records
from isoplane.objects.kinds import PODS, SECRETS
from isoplane.objects.metadata import Object
from isoplane.store import Store
from isoplane.store.errors import StoreCorrupt, StoreNewer
from plane_support import PlaneProcess, wait_until

EARLIER = sorted((Path(__file__).parents[1] / "golden" / "data_directories").glob("*.tar.gz"))
NEWER = 99


def unpack(archive: Path, data: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(data, filter="data")


def contents(directory: Path) -> dict[str, str]:
    """What the files say; the lock and SQLite's index of a WAL, which readers make, say nothing."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "lock" and not path.name.endswith("-shm") and path.stat().st_size
    }


@pytest.fixture(params=EARLIER, ids=lambda path: path.name.partition(".")[0])
def plane(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PlaneProcess]:
    unpack(request.param, tmp_path / "data")
    plane = PlaneProcess(tmp_path / "data", "--runtime", "simulated")
    try:
        yield plane
    finally:
        plane.close()


def test_a_plane_goes_on_where_an_earlier_version_was_killed(plane: PlaneProcess) -> None:
    plane.start()

    async def ask() -> tuple[Object, dict[str, Object]]:
        api = plane.api()
        try:
            pods = (await api.list(PODS, "shop")).items
            return await api.get(SECRETS, "token", "shop"), {pod["metadata"]["name"]: pod for pod in pods}
        finally:
            await api.close()

    def settled() -> bool:
        pods = asyncio.run(ask())[1]
        return set(pods) == {"waits"} and pods["waits"]["status"]["phase"] == "Running"

    # web's grace period is long over: it is killed, its charge goes back, and who waited behind the hold runs.
    wait_until(settled, 30, "the end of the one Pod and the start of the other")
    assert asyncio.run(ask())[0]["data"] == {"password": "cGxhaW4tc2VjcmV0LW9mLW9sZA=="}
    plane.kill()
    assert plane.down(grace=1).startswith("removed 1 workload")


def test_down_takes_down_what_an_earlier_version_left(plane: PlaneProcess) -> None:
    assert plane.down(grace=1).startswith("removed 1 workload")


# records of real runtimes, as the versions before IPv6 wrote them


def write(path: Path, fields: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
    return path


OLD_CONTAINER = {"uid": "u", "namespace": "shop", "name": "web", "netns": "", "address": "10.244.0.2", "grace": 30}
OLD_MACHINE = {
    "uid": "u", "namespace": "shop", "name": "guest", "unit": "machine", "address": "10.244.128.2", "mac": "0a:58:00:00:00:01",
    "files": {"kernel": "/k", "initrd": "/i", "images": [],
              "disks": {"root": {"path": "/d", "format": "qcow2", "base": "", "base_format": ""}}},
}  # fmt: skip
OLD_RUN = {"attempt": 1, "accelerator": "tcg", "launched": True, "started_at": 1.5, "pid": 7}
OLD_IMAGE = {"name": "docker.io/library/web:1", "image": "ab", "digest": "sha256:ab", "loadedAt": 1.0}


def test_records_of_real_runtimes_are_brought_up_to_date(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write(layout.sandbox("u"), OLD_CONTAINER)
    machine = write(tmp_path / "qemu/machines/u/sandbox.json", OLD_MACHINE)
    run = write(tmp_path / "qemu/machines/u/run.json", OLD_RUN)
    write(tmp_path / "images/names/x", OLD_IMAGE)
    formats.inspect(tmp_path)
    assert sandbox.record(layout, "u")["addresses"] == ["10.244.0.2"]
    found = records.load_sandbox(machine)
    assert found is not None
    assert found.addresses == ("10.244.128.2",)
    assert found.files.disks["root"].path == "/d"
    assert records.load(run, records.Run) == records.Run(1, "tcg", launched=True, started_at=1.5, pid=7)
    records.save(machine, found)
    assert records.load_sandbox(machine) == found
    assert json.loads(machine.read_text())["format"] == formats.MACHINE_SANDBOX.number
    assert [record["image"] for record in Shelf(tmp_path / "images").records()] == ["ab"]


@pytest.mark.parametrize("place", [
    "oci/pods/u/sandbox.json", "oci/pods/u/units/web/0/record.json", "qemu/machines/u/sandbox.json",
    "qemu/machines/u/run.json", "qemu/machines/u/end.json", "images/names/x", "network/sysctl.json",
])  # fmt: skip
def test_a_record_of_a_newer_version_is_refused_in_words(tmp_path: Path, place: str) -> None:
    write(tmp_path / place, {"format": NEWER, "what": "nobody knows"})
    before = contents(tmp_path)
    with pytest.raises(RecordsRefused, match=rf"{place}: it has format {NEWER}.*up to format") as refused:
        formats.inspect(tmp_path)
    assert "nothing was changed" in str(refused.value)
    assert contents(tmp_path) == before


def test_an_address_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network" / "ipam.sqlite"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={NEWER}")
    with pytest.raises(RecordsRefused, match=rf"ipam\.sqlite: it has format {NEWER}"):
        formats.inspect(tmp_path)
    with pytest.raises(FabricFailure, match=f"format {NEWER}"):
        Ipam(path).open()


def test_up_and_down_refuse_a_newer_directory_and_convert_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    unpack(EARLIER[0], data)
    with (data / "simulated" / "oci.jsonl").open("a") as journal:
        journal.write(json.dumps({"uid": "x", "sandbox": {"format": NEWER}}) + "\n")
    before = contents(data)
    plane = PlaneProcess(data, "--runtime", "simulated")
    with pytest.raises(AssertionError, match=f"oci.jsonl: it has format {NEWER}"):
        plane.start()
    with pytest.raises(AssertionError, match=f"oci.jsonl: it has format {NEWER}"):
        plane.down()
    assert contents(data) == before, "something was converted before everything was read"


# the store


def change(data: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(data / "isoplane.db")) as db:
        db.execute(statement)
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    await Store.open(tmp_path).close()
    change(tmp_path, f"UPDATE fact SET value = '{NEWER}' WHERE name = 'format'")
    before = contents(tmp_path)
    with pytest.raises(StoreNewer, match=f"format {NEWER}, this version reads formats up to"):
        Store.open(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("archive", EARLIER, ids=lambda path: path.name.partition(".")[0])
async def test_an_old_store_with_one_unreadable_row_is_not_converted(archive: Path, tmp_path: Path) -> None:
    unpack(archive, tmp_path)
    change(tmp_path, "UPDATE log SET data = '{no' WHERE revision = (SELECT max(revision) FROM log)")
    before = contents(tmp_path)
    with pytest.raises(StoreCorrupt, match="cannot be decoded"):
        Store.open(tmp_path)
    assert contents(tmp_path) == before
