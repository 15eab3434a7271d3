"""Generate the packed schema data of src/isoplane/objects/schema from upstream's published sources.

    pip install kubernetes-validate
    go mod download kubevirt.io/api@v1.8.0
    python tools/generate_schemas.py --kubernetes 1.37.0 --kubevirt "$(go env GOMODCACHE)/kubevirt.io/api@v1.8.0"

kubernetes-validate carries the OpenAPI definitions of every Kubernetes release, 108 MB in all; this keeps the
definitions of one release that the served kinds reach, with their patch-merge and list-map keys, as OpenAPI v3
components.  KubeVirt publishes no such file, so tools/kubevirt_schema reads its Go types.  The custom kinds of
schema/*.yaml are written by hand and not touched here.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isoplane.objects.kinds import BUILT_IN

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET = REPOSITORY / "src/isoplane/objects/schema"
REF = "#/components/schemas/"
EXTRA = (
    # Bodies of subresources and of requests that are not stored.
    ("", "Binding"), ("policy", "Eviction"), ("authentication.k8s.io", "TokenRequest"),
    ("authentication.k8s.io", "SelfSubjectReview"), ("authorization.k8s.io", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "SelfSubjectRulesReview"), ("authentication.k8s.io", "TokenReview"),
    ("authorization.k8s.io", "SubjectAccessReview"), ("authorization.k8s.io", "LocalSubjectAccessReview"),
    ("rbac.authorization.k8s.io", "Role"), ("rbac.authorization.k8s.io", "RoleBinding"),
    ("rbac.authorization.k8s.io", "ClusterRole"), ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
)  # fmt: skip
ALWAYS = (
    # Named by definitions of other sources, or by the paths themselves.
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch", "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Condition", "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
)  # fmt: skip


def without_null(node: Any) -> Any:
    """OpenAPI v3 form: one type, component references, no nulls."""
    if isinstance(node, list):
        return [without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {}
    for key, value in node.items():
        if key == "type" and isinstance(value, list):
            value = next(item for item in value if item != "null")
        elif key == "$ref":
            value = REF + value.rsplit("/", 1)[1]
        elif key == "properties":
            value = {name: without_null(child) for name, child in value.items()}
        elif key == "enum":
            value = [item for item in value if item is not None]
        else:
            value = without_null(value)
        result[key] = value
    return result


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str):
            yield reference.rsplit("/", 1)[1]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def kubernetes(version: str, needed: set[str]) -> dict[str, Any]:
    """The closure of the served kinds' definitions, and of ``needed`` (what other sources refer to)."""
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{version}-local"
    pool = without_null(json.loads((folder / "_definitions.json").read_text())["$defs"])
    wanted = {(r.group, r.kind) for r in BUILT_IN if not r.custom} | {
        (r.group, r.list_kind) for r in BUILT_IN if not r.custom
    }
    wanted |= set(EXTRA)
    pending = [
        name
        for name, definition in pool.items()
        if any(
            (gvk["group"], gvk["kind"]) in wanted and gvk["version"] == "v1"
            for gvk in definition.get("x-kubernetes-group-version-kind", ())
        )
    ]
    pending += [name for name in ALWAYS if name in pool] + sorted(needed & pool.keys())
    kept: dict[str, Any] = {}
    while pending:
        name = pending.pop()
        if name in kept:
            continue
        kept[name] = pool[name]
        pending.extend(references(pool[name]))
    for definition in kept.values():
        for property_name in ("apiVersion", "kind"):
            # Each file of the source pins these by an enum; the definitions are shared, and the server checks both.
            definition.get("properties", {}).get(property_name, {}).pop("enum", None)
    return kept


def kubevirt(module: Path) -> dict[str, Any]:
    """The definitions read from KubeVirt's Go types by tools/kubevirt_schema."""
    with tempfile.TemporaryDirectory() as scratch:
        tool = Path(scratch) / "kubevirt_schema"
        subprocess.run(["go", "build", "-o", tool, REPOSITORY / "tools/kubevirt_schema/main.go"], check=True)
        sources = [module / "core/v1" / name for name in ("types.go", "schema.go")]
        printed = subprocess.run([tool, *sources], check=True, capture_output=True).stdout
    definitions: dict[str, Any] = json.loads(printed)
    for kind in ("VirtualMachine", "VirtualMachineInstance"):
        definitions[f"io.kubevirt.v1.{kind}"]["x-kubernetes-group-version-kind"] = [
            {"group": "kubevirt.io", "version": "v1", "kind": kind}
        ]
    return definitions


def pack(name: str, source: str, definitions: dict[str, Any]) -> None:
    document = {"source": source, "definitions": dict(sorted(definitions.items()))}
    text = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    (TARGET / name).write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
    print(
        f"{name}: {len(definitions)} definitions, {len(text) // 1000} kB, packed {(TARGET / name).stat().st_size // 1000} kB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubernetes", default="1.37.0", help="release, as kubernetes-validate names it")
    parser.add_argument("--kubevirt", type=Path, required=True, help="directory of the Go module kubevirt.io/api")
    options = parser.parse_args()
    machines = kubevirt(options.kubevirt)
    core = kubernetes(options.kubernetes, set(references(machines)))
    missing = set(references({**core, **machines})) - core.keys() - machines.keys()
    if missing:
        raise SystemExit(f"definitions referred to and not found: {sorted(missing)}")
    pack("kubernetes.json.gz", f"Kubernetes {options.kubernetes}", core)
    pack("kubevirt.json.gz", f"KubeVirt API {options.kubevirt.name.rpartition('@')[2]}", machines)


if __name__ == "__main__":
    main()
