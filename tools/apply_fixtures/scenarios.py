"""Regenerate tests/golden/patch/apply.json.gz: random applies and updates of Pods through Kubernetes' field manager.

cd tools/apply_fixtures && go build -o /tmp/apply . && python scenarios.py /tmp/apply 150
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from pod_scenarios import pod

from isoplane.objects import openapi

TARGET = Path(__file__).resolve().parents[2] / "tests/golden/patch/apply.json.gz"


def operation(rng: random.Random, first: bool) -> dict[str, Any]:
    applies = first or rng.random() < 0.75
    return {
        "op": "apply" if applies else "update",
        "manager": rng.choice(["m1", "m2", "m3"] if applies else ["u1", "u2"]),
        "force": rng.random() < 0.5,
        "obj": pod(rng),
    }


def main() -> None:
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    scenarios = [[operation(rng, i == 0) for i in range(rng.randint(2, 6))] for _ in range(int(sys.argv[2]))]
    document = json.loads(openapi.document("", "v1"))
    port = document["components"]["schemas"]["io.k8s.api.core.v1.ContainerPort"]
    port["properties"]["protocol"]["default"] = "TCP"  # a key of the list; the published data has no defaults
    with tempfile.NamedTemporaryFile("w", suffix=".json") as schema:
        json.dump(document, schema)
        schema.flush()
        command = [sys.argv[1], schema.name]
        printed = subprocess.run(command, input=json.dumps(scenarios).encode(), capture_output=True, check=True).stdout
    steps = [
        [{**done, "result": result} for done, result in zip(scenario, results, strict=True)]
        for scenario, results in zip(scenarios, json.loads(printed), strict=True)
    ]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(gzip.compress(json.dumps(steps, separators=(",", ":")).encode(), mtime=0))
    print(f"{len(steps)} scenarios, {sum(map(len, steps))} operations")


if __name__ == "__main__":
    main()
