"""Regenerate tests/golden/patch/three_way.json.gz: random Pods through Kubernetes' own strategic merge patch.

cd tools/strategic_fixtures && go build -o /tmp/strategic . && python scenarios.py /tmp/strategic 600
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from pod_scenarios import pod

TARGET = Path(__file__).resolve().parents[2] / "tests/golden/patch/three_way.json.gz"


def main() -> None:
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    triples = [[pod(rng) for _ in range(3)] for _ in range(int(sys.argv[2]))]
    printed = subprocess.run([sys.argv[1]], input=json.dumps(triples).encode(), capture_output=True, check=True).stdout
    cases = [
        {"live": triple[2], **result}
        for triple, result in zip(triples, json.loads(printed), strict=True)
        if not result.get("error")
    ]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(gzip.compress(json.dumps(cases, separators=(",", ":")).encode(), mtime=0))
    print(f"{len(cases)} cases of {len(triples)}")


if __name__ == "__main__":
    main()
