"""The few questions and changes that the fabric has for an Open vSwitch database: one bridge and its ports (RFC 7047)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoplane.node.network.ovs import jsonrpc
from isoplane.node.network.protocol import FabricFailure

_NAME = "Open_vSwitch"
_PROTOCOLS = ["set", ["OpenFlow10", "OpenFlow13", "OpenFlow14", "OpenFlow15"]]
LOCAL = 65534
ATTEMPTS = 3
"""How often a port that vanishes while it is made is made again."""
Operation = dict[str, Any]


async def transact(database: Path, *operations: Operation, timeout: float = 10) -> list[dict[str, Any]]:
    """One transaction. FabricFailure with the database's words when it is refused."""
    results = await jsonrpc.call(database, "transact", [_NAME, *operations], timeout)
    for result in results:
        if result and result.get("error"):
            raise FabricFailure(f"{database}: {result['error']}: {result.get('details', '')}")
    return list(results)


async def ensure_root(database: Path, other_config: Mapping[str, str]) -> None:
    """The one row that a fresh database lacks, with these settings."""
    row = {"other_config": ["map", [list(pair) for pair in other_config.items()]]}
    (updated,) = await transact(database, {"op": "update", "table": _NAME, "where": [], "row": row})
    if not updated["count"]:
        await transact(database, {"op": "insert", "table": _NAME, "row": row})


@dataclass(frozen=True, slots=True)
class BridgePort:
    """A port as the database has it. ``error`` is the switch's complaint, e.g. that the device does not exist."""

    name: str
    number: int
    uid: str
    error: str


class Bridge:
    """One bridge in one database."""

    def __init__(self, database: Path, name: str, owner: str) -> None:
        self._database, self.name, self._owner = database, name, owner

    async def ensure(self, datapath: str, mac: str, mtu: int) -> None:
        """Record the bridge: it forwards nothing by itself (fail_mode=secure). Fine when it is there."""
        here = [["name", "==", self.name]]
        found = await self._select("Bridge", ["external_ids"], here)
        if found:
            if _map(found[0]["external_ids"]).get("isoplane") != self._owner:
                raise FabricFailure(
                    f"the bridge {self.name} belongs to somebody else: remove it, or move the data directory"
                )
            change = {"op": "update", "table": "Bridge", "where": here, "row": {"datapath_type": datapath}}
            await transact(self._database, change)
            return
        interface = {"name": self.name, "type": "internal", "mtu_request": mtu}
        bridge = {
            "name": self.name,
            "ports": ["named-uuid", "port"],
            "datapath_type": datapath,
            "fail_mode": "secure",
            "protocols": _PROTOCOLS,
            "other_config": ["map", [["hwaddr", mac]]],
            "external_ids": ["map", [["isoplane", self._owner]]],
        }
        await transact(
            self._database,
            {"op": "insert", "table": "Interface", "row": interface, "uuid-name": "interface"},
            {
                "op": "insert",
                "table": "Port",
                "row": {"name": self.name, "interfaces": ["named-uuid", "interface"]},
                "uuid-name": "port",
            },
            {"op": "insert", "table": "Bridge", "row": bridge, "uuid-name": "bridge"},
            {
                "op": "mutate",
                "table": _NAME,
                "where": [],
                "mutations": [["bridges", "insert", ["named-uuid", "bridge"]]],
            },
        )

    async def datapath(self) -> str:
        """The type that the bridge is recorded with; '' when there is no bridge."""
        found = await self._select("Bridge", ["datapath_type"], [["name", "==", self.name]])
        return found[0]["datapath_type"] or "system" if found else ""

    async def ready(self, timeout: float = 10) -> None:
        """Wait until the switch has made the bridge. Seconds."""
        if not await self._wait_number(self.name, LOCAL, timeout):
            raise FabricFailure(f"the bridge {self.name} was removed by somebody else while it was set up")

    async def add(self, interface: str, number: int, uid: str, mac: str, timeout: float = 10) -> None:
        """Plug a device of the host in under this OpenFlow number and wait until the switch has it. Fine when it has."""
        for _ in range(ATTEMPTS):
            await self._insert(interface, number, uid, mac)
            if await self._wait_number(interface, number, timeout):
                return
            # Removed meanwhile: by a request that a plane made just before it was killed, say.
        raise FabricFailure(f"the port {interface} of {self.name} is removed by somebody else as often as it is made")

    async def _insert(self, interface: str, number: int, uid: str, mac: str) -> None:
        """The port's rows, unless they are there under this number."""
        found = await self._select("Interface", ["ofport"], [["name", "==", interface]])
        if found and found[0]["ofport"] != number:
            # Its device was not there when the switch looked for it: it gave up.
            await self.remove(interface, settled=True)
            found = []
        if not found:
            row = {
                "name": interface,
                "ofport_request": number,
                "external_ids": ["map", [["iface-id", uid], ["attached-mac", mac]]],
            }
            await transact(
                self._database,
                {"op": "insert", "table": "Interface", "row": row, "uuid-name": "interface"},
                {
                    "op": "insert",
                    "table": "Port",
                    "row": {"name": interface, "interfaces": ["named-uuid", "interface"]},
                    "uuid-name": "port",
                },
                {
                    "op": "mutate",
                    "table": "Bridge",
                    "where": [["name", "==", self.name]],
                    "mutations": [["ports", "insert", ["named-uuid", "port"]]],
                },
            )

    async def remove(self, interface: str, *, settled: bool = False) -> None:
        """Unplug. Fine when it is not there. ``settled`` waits until the switch has let go of the device."""
        found = await self._select("Port", ["_uuid"], [["name", "==", interface]])
        if not found:
            return
        *_, root = await transact(
            self._database,
            {
                "op": "mutate",
                "table": "Bridge",
                "where": [["name", "==", self.name]],
                "mutations": [["ports", "delete", found[0]["_uuid"]]],
            },
            {"op": "mutate", "table": _NAME, "where": [], "mutations": [["next_cfg", "+=", 1]]},
            {"op": "select", "table": _NAME, "where": [], "columns": ["next_cfg"]},
        )
        if settled:
            await self._until_settled(root["rows"][0]["next_cfg"])

    async def _until_settled(self, configuration: int, timeout: float = 10) -> None:
        """Wait until the switch works by this configuration: it skips over what is undone before it looks."""
        deadline = asyncio.get_running_loop().time() + timeout
        while (await self._select(_NAME, ["cur_cfg"], []))[0]["cur_cfg"] < configuration:
            if asyncio.get_running_loop().time() > deadline:
                raise FabricFailure(f"ovs-vswitchd did not take up a change within {timeout:g} s (is it running?)")
            await asyncio.sleep(0.005)

    async def destroy(self) -> None:
        """Remove the bridge with its ports from the database."""
        found = await self._select("Bridge", ["_uuid"], [["name", "==", self.name]])
        if found:
            await transact(
                self._database,
                {"op": "mutate", "table": _NAME, "where": [], "mutations": [["bridges", "delete", found[0]["_uuid"]]]},
            )

    async def ports(self) -> list[BridgePort]:
        """Every port of the plane in this database, its own LOCAL port aside."""
        columns = ["name", "ofport", "external_ids", "error"]
        found = await self._select("Interface", columns, [["external_ids", "excludes", ["map", [["iface-id", ""]]]]])
        ports = []
        for row in found:
            uid = _map(row["external_ids"]).get("iface-id", "")
            if uid:
                number = row["ofport"] if isinstance(row["ofport"], int) else 0
                ports.append(
                    BridgePort(row["name"], number, uid, row["error"] if isinstance(row["error"], str) else "")
                )
        return ports

    async def _wait_number(self, interface: str, number: int, timeout: float) -> bool:
        """Wait until the switch has taken it up. False when its row is gone. FabricFailure when it is refused."""
        try:
            await transact(
                self._database,
                {
                    "op": "wait",
                    "table": "Interface",
                    "where": [["name", "==", interface]],
                    "columns": ["ofport"],
                    "until": "!=",
                    "rows": [{"ofport": ["set", []]}],
                    "timeout": int(timeout * 1000),
                },
                timeout=timeout + 2,
            )
        except FabricFailure as failure:
            raise FabricFailure(
                f"ovs-vswitchd did not take up {interface} in {timeout:g} s (is it running?): {failure}"
            ) from failure
        rows = await self._select("Interface", ["ofport", "error"], [["name", "==", interface]])
        if not rows:
            return False
        row = rows[0]
        if row["ofport"] != number:
            complaint = row["error"] if isinstance(row["error"], str) else f"it is port {row['ofport']}, not {number}"
            raise FabricFailure(f"Open vSwitch refuses {interface} on {self.name}: {complaint}")
        return True

    async def _select(self, table: str, columns: list[str], where: list[list[Any]]) -> list[dict[str, Any]]:
        (result,) = await transact(self._database, {"op": "select", "table": table, "where": where, "columns": columns})
        return list(result["rows"])


def _map(value: Any) -> dict[str, str]:
    return dict(value[1])
