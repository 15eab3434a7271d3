"""Golden data of tools/kubevirt_charges.sh: ``machines`` prints them as JSON, ``launchers FILES…`` packs what came of them."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import orjson
import yaml

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "kubevirt"


def machines() -> dict[str, dict[str, Any]]:
    """Name → VirtualMachineInstance."""
    written: dict[str, dict[str, Any]] = yaml.safe_load((GOLDEN / "machines.yaml").read_text())
    return {
        name: {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": name, "namespace": "a", "uid": name, "annotations": case.get("annotations") or {}},
            "spec": {**case.get("spec", {}), "domain": {"devices": {}, **case["domain"]}},
        }
        for name, case in written.items()
    }


def pack(files: list[str]) -> None:
    """Version → machine → its launcher's containers."""
    found = {Path(file).stem: orjson.loads(Path(file).read_bytes()) for file in sorted(files)}
    text = orjson.dumps(found, option=orjson.OPT_SORT_KEYS)
    (GOLDEN / "launchers.json.gz").write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
    if sys.argv[1] == "machines":
        sys.stdout.buffer.write(orjson.dumps(machines()))
    else:
        pack(sys.argv[2:])
