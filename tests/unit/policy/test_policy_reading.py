# ruff: noqa: E501 - tables of one-line manifests
"""What is read, and how what cannot be read is told: file, document, object and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from isoplane.cli.policy import app
from isoplane.cli.yaml_documents import ALIASED_VALUES, NESTING, ManifestError, documents
from isoplane.objects.errors import BadRequest
from isoplane.objects.yaml_decode import decode_yaml

POD = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: a}}\n"
NETPOL = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: own, namespace: a}\n"
BOMB = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


def run(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(args), input=stdin)


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (NETPOL + "spec:\n  podSelector: {matchLabels: {app: web}}\nspec:\n  podSelector: {}\n", "document 1, line 6: the key 'spec' is given twice, first in line 4"),
        (POD + "---\n" + NETPOL + "spec: {podSelector: {matchLabels: {a: x, a: y}}}", "document 2, line 6: the key 'a' is given twice"),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n---\n" * 2, "standard input, document 1 and standard input, document 2: Namespace a is given twice"),
        (BOMB, f"its aliases stand for more than {ALIASED_VALUES} values"),
        ("a: &a [*a]", "an alias stands inside what it stands for"),
        ("[" * (NESTING + 2) + "]" * (NESTING + 2), f"more than {NESTING} levels"),
        ("[" * 100_000, f"more than {NESTING} levels"),
        ("- " * 100_000, f"more than {NESTING} levels"),
        ("? " * 100_000, f"more than {NESTING} levels"),
        ("".join(f"{' ' * n}a:\n" for n in range(1500)), f"more than {NESTING} levels"),
        ("kind: Pod\nmetadata:\n  name: {{ .Values.name }}\n", "line 3: this is an unrendered template"),
        ("{{- if .Values.enabled }}\nkind: Pod\n{{- end }}\n", "line 1: this is an unrendered template"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: '{{ .Release.Name }}', namespace: a}}", "metadata.name: Invalid value"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: x, labels: {app: '{{ .Chart.Name }}'}}}", "unrendered template"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: q, namespace: a}, spec: {containers: [{name: c, ports: [{containerPort: '80'}]}]}}", "document 1: Pod a/q: spec.containers[0].ports[0].containerPort: Invalid type"),
        ("{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: x, labels: [1]}}]}", "document 1, items[0]: Pod default/x: metadata.labels: Invalid type"),
        ("{apiVersion: kubevirt.io/v1, kind: VirtualMachine, metadata: {name: v}, spec: {template: {spec: {domain: {devices: {interfaces: [{ports: [{port: 0}]}]}}}}}}", "VirtualMachine default/v: spec.template.spec.domain.devices.interfaces[0].ports[0].port"),
        ("{apiVersion: v1, kind: Node, metadata: {name: n}, status: {addresses: [7]}}", "Node n: status.addresses: Invalid type"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}", "no workload found"),
        ("", "no workload found"),
        ("a: !!int x", "cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_its_place(manifest: str, told: str) -> None:
    done = run("reach", "-f", "-", stdin=manifest)
    assert (done.exit_code, done.exception) == (2, None) or isinstance(done.exception, SystemExit)
    assert done.exit_code == 2
    assert told in done.stderr


def test_both_files_of_twins_are_named(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text(POD)
    done = run("reach", "-f", str(tmp_path))
    assert done.exit_code == 2
    told = f"{tmp_path}/one.yaml, document 1 and {tmp_path}/two.yaml, document 1: Pod a/web is given twice"
    assert told in done.stderr


def test_merge_keys_and_templates_in_foreign_data_are_no_mistake() -> None:
    manifest = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: &l {app: x}}\ndata: {rule: '{{ $value }}'}\n---\n"
        "apiVersion: v1\nkind: Pod\nmetadata: &m {name: p, namespace: a}\nx: {<<: *m, name: q}\n"
    )
    assert run("reach", "-f", "-", stdin=manifest).exit_code == 0


def test_directories_inside_are_named_and_read_on_request(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "workloads.yaml").write_text(POD + "---\n" + POD.replace("web", "fe"))
    (tmp_path / "sub" / "deep" / "policy.yaml").write_text(NETPOL + "spec: {podSelector: {}}")
    ends = ("--from", "a/fe", "--to", "a/web", "--port", "80")
    flat = run("explain", "-f", str(tmp_path), *ends)
    assert flat.exit_code == 0
    assert f"{tmp_path}: not read, as they lie in directories of their own: sub; -R reads them too" in flat.stderr
    deep = run("explain", "-R", "-f", str(tmp_path), *ends)
    assert (deep.exit_code, deep.stderr) == (1, "")
    none = run("reach", "-f", str(tmp_path / "sub"))
    assert none.exit_code == 2
    assert "files in this directory (not read, as they lie in directories of their own: deep; -R" in none.stderr


KINDS = {
    "apps.openshift.io/v1 DeploymentConfig": "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c}]}}",
    "argoproj.io/v1alpha1 Rollout": "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c}]}}",
    "apps/v1 Deployment": "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c}]}}",
    "apps/v1 ReplicaSet": "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c}]}}",
    "apps/v1 StatefulSet": "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c}]}}",
    "apps/v1 DaemonSet": "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c}]}}",
    "v1 ReplicationController": "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c}]}}",
    "batch/v1 Job": "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c}]}}",
    "batch/v1 CronJob": "jobTemplate: {spec: {template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c}]}}}}",
    "kubevirt.io/v1 VirtualMachineInstanceReplicaSet": "replicas: 2, template: {metadata: {labels: {app: x}}, spec: {domain: {devices: {}}}}",
    "pool.kubevirt.io/v1alpha1 VirtualMachinePool": "virtualMachineTemplate: {spec: {template: {metadata: {labels: {app: x}}, spec: {domain: {devices: {}}}}}}",
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_makes_workloads_is_one(kind: str) -> None:
    version, _, name = kind.partition(" ")
    manifest = f"{{apiVersion: {version}, kind: {name}, metadata: {{name: n, namespace: a}}, spec: {{{KINDS[kind]}}}}}"
    policy = NETPOL + "spec: {podSelector: {matchLabels: {app: x}}}"
    ends = ("--from", "ip:192.0.2.1", "--to", f"{name.lower()}/a/n", "--port", "80", "-o", "json")
    done = run("explain", "-f", "-", *ends, stdin=f"{manifest}\n---\n{policy}")
    assert done.exit_code == 1, done.stderr
    assert json.loads(done.stdout)["ingress"]["policies"] == ["a/own"]


def test_pod_templates_in_places_of_their_own_are_named() -> None:
    ray = "{apiVersion: ray.io/v1, kind: RayCluster, metadata: {name: r, namespace: a}, spec: {headGroupSpec: {template: {spec: {containers: [{name: c}]}}}}}"
    done = run("reach", "-f", "-", stdin=f"{POD}---\n{ray}")
    assert done.exit_code == 0
    assert "RayCluster a/r: its Pod templates (spec.headGroupSpec.template) are not read" in done.stderr


def test_instances_stand_for_the_pool_that_made_them() -> None:
    made = "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: i, namespace: a, ownerReferences: [{kind: VirtualMachineInstanceReplicaSet, name: n}]}}"
    maker = "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstanceReplicaSet, metadata: {name: n, namespace: a}, spec: {template: {spec: {}}}}"
    rows = json.loads(run("reach", "-f", "-", "-o", "json", stdin=f"{made}\n---\n{maker}").stdout)
    assert {row["from"] for row in rows} == {"a/i"}


@pytest.mark.parametrize(
    "text",
    ["2001-01-01", "2001-01-01T10:00:00Z", "22:30", "190:20:30", "1.5:30", "=", "1e3", "1.", ".5", "+12", "-0x1F", "0o17", "017",
     "0b11", "1_000", "yes", "Off", "~", "null", "", "0", "08", ".inf", ".nan", "1.2.3", "10.0.0.1", "-", "+", "8e", "0x", "<<x"],
)  # fmt: skip
def test_an_unquoted_value_is_read_as_the_api_server_reads_it(text: str) -> None:
    content = f"a: {text}\n".encode()
    try:
        expected = decode_yaml(content)[0]
    except BadRequest:
        with pytest.raises(ManifestError):
            list(documents("f", content))
        return
    ((_, read),) = documents("f", content)
    assert read == expected
    assert type(read["a"]) is type(expected["a"])
