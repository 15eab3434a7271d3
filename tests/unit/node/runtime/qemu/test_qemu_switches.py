"""What a spec switches off is off, and its disks are opened as it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.node.runtime.qemu.command import TCG, Identity, Run, build
from isoplane.node.runtime.qemu.disks import BootFiles, DiskFile
from isoplane.node.runtime.qemu.domain import parse

BOOT = {"kernelBoot": {"container": {"image": "i:1", "kernelPath": "/k"}}}
TAP = NetworkInterface(tap="tap0", mac="52:54:00:00:00:01", address="10.0.0.2", prefix_length=24)


def spec(**domain: Any) -> dict[str, Any]:
    return {"domain": {"memory": {"guest": "64Mi"}, "firmware": BOOT, **domain}}


def argv(asked: dict[str, Any], *, paused: bool = False) -> list[str]:
    files = BootFiles("/k", "", {"d": DiskFile("/d.img", "raw")})
    run = Run("qemu", TCG, "/qemu.pid", "serial.log", paused=paused)
    return build(parse(asked), files, Identity("u", "default", "vm"), TAP, run)


def test_what_is_switched_off_is_off() -> None:
    def machine(features: dict[str, Any]) -> str:
        line = argv(spec(features=features))
        return line[line.index("-machine") + 1]

    assert machine({"acpi": {"enabled": False}}).endswith(",acpi=off")
    assert "acpi" not in machine({"acpi": {"enabled": True}})
    assert "acpi" not in machine({})
    assert "-S" in argv(spec(), paused=True)
    assert "-S" not in argv(spec())

    def card(state: str) -> dict[str, Any]:
        return spec(devices={"interfaces": [{"name": "default", "masquerade": {}, "state": state}]})

    assert parse(card("up")).link_up
    assert not parse(card("down")).link_up
    assert "-netdev" in argv(card("down")), "the card is there, its cable is not plugged in"
    assert "-netdev" not in argv(card("absent"))


@pytest.mark.parametrize(
    ("disk", "aio", "direct", "shared"),
    [
        ({}, None, False, False),
        ({"io": "default"}, None, False, False),
        ({"io": "native"}, "native", True, False),
        ({"io": "native", "cache": "none"}, "native", True, False),
        ({"io": "threads"}, "threads", False, False),
        ({"shareable": True}, None, False, True),
        ({"shareable": True, "cdrom": {"bus": "sata"}}, None, False, False),
    ],
    ids=str,
)
def test_how_a_disk_is_opened(disk: dict[str, Any], aio: str | None, direct: bool, shared: bool) -> None:
    asked = spec(devices={"disks": [{"name": "d", **disk}]})
    asked["volumes"] = [{"name": "d", "hostDisk": {"path": "/d.img", "type": "Disk"}}]
    line = argv(asked)
    nodes = [json.loads(word) for word in line if word.startswith("{")]
    (file,) = [node for node in nodes if node["driver"] == "file"]
    assert (file.get("aio"), file.get("cache") == {"direct": True}) == (aio, direct)
    device = line[[i for i, word in enumerate(line) if word.startswith("{")][-1] + 2]
    assert ("share-rw=on" in device) is shared
