"""The command line's contract: outputs, exit codes and messages, and the example's expected table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from isoplane.cli.policy import app

EXAMPLE = Path(__file__).parents[3] / "examples" / "03-tenant-isolation"
WORKLOADS, POLICY, CORRECTED = (
    EXAMPLE / "workloads.yaml",
    EXAMPLE / "policy.yaml",
    EXAMPLE / "corrected" / "policy.yaml",
)
POD, MACHINE = "apiVersion: v1\nkind: Pod\n", "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\n"
NETPOL = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
FOUNDING = ("-f", str(WORKLOADS), "-f", str(POLICY))


def run(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(args), input=stdin)


def expected() -> list[tuple[str, dict[str, Any]]]:
    listed = yaml.load((EXAMPLE / "expected/outcome.yaml").read_text(), Loader=yaml.CSafeLoader)
    return [(policy, row) for policy, rows in listed.items() for row in rows]


@pytest.mark.parametrize(
    ("policy", "row"), expected(), ids=lambda v: v if isinstance(v, str) else f"{v['from']}-{v['to']}"
)
def test_example_has_its_expected_outcome(policy: str, row: dict[str, Any]) -> None:
    files = ("-f", str(WORKLOADS), "-f", str(EXAMPLE / policy))
    done = run("explain", *files, "--from", row["from"], "--to", row["to"], "--port", row["port"], "-o", "json")
    answer = json.loads(done.stdout)
    assert answer["allowed"] is row["allowed"]
    assert done.exit_code == (0 if row["allowed"] else 1)
    assert answer["allowed"] is (answer["egress"]["allowed"] and answer["ingress"]["allowed"])


def test_explain_names_what_decides() -> None:
    args = ("--from", "tenant-a/client", "--to", "shared/resolver", "-o", "json")
    answer = json.loads(run("explain", *FOUNDING, *args, "--port", "53/udp").stdout)
    assert answer["egress"]["policies"] == ["tenant-a/tenant-isolation"]
    assert answer["egress"]["rules"] == ["tenant-a/tenant-isolation/egress[0]"]
    assert answer["ingress"]["policies"] == answer["ingress"]["rules"] == []
    blocked = json.loads(run("explain", *FOUNDING, *args, "--port", "53/tcp").stdout)
    assert blocked["egress"]["policies"] == ["tenant-a/tenant-isolation"]
    assert blocked["egress"]["rules"] == []


def test_explain_in_words() -> None:
    done = run("explain", *FOUNDING, "--from", "shared/backup", "--to", "vm/tenant-a/database", "--port", "http")
    assert "blocked" in done.stdout
    assert "ingress  blocked: isolated, and no rule allows it (tenant-a/tenant-isolation)" in done.stdout
    assert "kubectl patch networkpolicy -n tenant-a tenant-isolation --type=json" in done.stdout


def test_reach_lists_every_pair() -> None:
    done = run("reach", *FOUNDING, "--output", "json")
    rows = json.loads(done.stdout)
    assert done.exit_code == 0
    assert len(rows) == 7 * 7 * 2
    assert set(rows[0]) == {"from", "to", "port", "protocol", "allowed"}
    answers = {(r["from"], r["to"], r["port"], r["protocol"]): r["allowed"] for r in rows}
    assert answers["tenant-a/client", "shared/resolver", 53, "UDP"] is True
    assert answers["tenant-b/intruder", "tenant-a/database", 8080, "TCP"] is False


def test_reach_as_a_picture_and_as_a_table() -> None:
    assert run("reach", *FOUNDING, "-o", "svg").stdout.startswith("<svg ")
    assert "tenant-a/database" in run("reach", *FOUNDING).stdout


def test_check_notices_the_founding_mistake() -> None:
    done = run("check", *FOUNDING, "-o", "json")
    assert done.exit_code == 1
    found = {(finding["code"], finding["path"]) for finding in json.loads(done.stdout)}
    assert found == {("namespace-missing", "spec.ingress[0].from[1]"), ("no-dns", "spec.egress")}
    assert run("check", "-f", str(POLICY)).exit_code == 1, "also without the workloads"
    assert run("check", "-f", str(WORKLOADS), "-f", str(CORRECTED)).exit_code == 0


def test_diff_tells_what_opens() -> None:
    args = ("diff", "--from", str(WORKLOADS), "--from", str(POLICY), "-f", str(WORKLOADS))
    done = run(*args, "-f", str(CORRECTED), "-o", "json")
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert {
        "change": "opened",
        "from": "pod/shared/backup",
        "to": "vm/tenant-a/database",
        "protocol": "TCP",
        "ports": "8080",
    } in answer["opened"]
    assert answer["closed"] == []
    same = run(*args, "-f", str(POLICY))
    assert (same.exit_code, same.stdout) == (0, "nothing is opened or closed\n")


def test_diff_without_workloads_answers_nothing() -> None:
    """ "Nothing is opened" would be believed."""
    done = run("diff", "--from", str(POLICY), "-f", str(CORRECTED))
    assert done.exit_code == 2
    assert "no workloads on either side" in done.stderr


@pytest.mark.parametrize(("engine", "token"), [("nftables", "table inet isoplane"), ("openflow", "table=0")])
def test_render_prints_an_engines_text(engine: str, token: str) -> None:
    done = run("render", *FOUNDING, "--engine", engine)
    assert done.exit_code == 0
    assert token in done.stdout
    assert set(json.loads(run("render", *FOUNDING, "-o", "json").stdout)) == {
        "engine",
        "revision",
        "interfaces",
        "text",
    }


def test_reads_stdin_directories_lists_and_several_files() -> None:
    documents = list(yaml.load_all(WORKLOADS.read_text() + "---\n" + POLICY.read_text(), Loader=yaml.CSafeLoader))
    whole = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": documents})
    ends = ("--from", "tenant-b/intruder", "--to", "tenant-a/web", "--port", "8080")
    assert run("explain", "-f", "-", *ends, stdin=whole).exit_code == 1
    assert run("explain", "-f", str(EXAMPLE), *ends).exit_code == 1
    assert run("explain", "-f", str(WORKLOADS), str(POLICY), *ends).exit_code == 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--from", "tenant-a/nobody", "--to", "tenant-a/web", "--port", "80"), "no workload 'tenant-a/nobody'"),
        (("--from", "web", "--to", "tenant-a/web", "--port", "80"), "is not ns/name"),
        (("--from", "ip:10.0.0.300", "--to", "tenant-a/web", "--port", "80"), "10.0.0.300"),
        (("--from", "tenant-a/client", "--to", "tenant-a/web", "--port", "0/tcp"), "between 1 and 65535"),
        (("--from", "tenant-a/client", "--to", "tenant-a/web", "--port", "80/quic"), "is not one of tcp, udp, sctp"),
        (("--from", "tenant-a/client", "--to", "tenant-a/web", "--port", "grpc"), "does not declare exactly one"),
    ],
)
def test_bad_references_are_refused(args: tuple[str, ...], told: str) -> None:
    done = run("explain", *FOUNDING, *args)
    assert done.exit_code == 2
    assert told in done.stderr


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("{", "isoplane: standard input: not YAML"),
        ("- a\n", "an object is needed"),
        (
            NETPOL + "metadata: {name: p}\nspec: {ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}",
            "from[0].ipBlock.cidr",
        ),
        (NETPOL + "metadata: {name: p}\nspec: {egress: [{ports: [{port: 80, endPort: 79}]}]}", "endPort"),
        (POD + "metadata: {name: p, labels: {a: true}}", "label values are strings"),
        (
            POD + "metadata: {name: p}\nspec: {containers: 3}",
            "document 1: Pod default/p: spec.containers: Invalid type",
        ),
    ],
)
def test_bad_manifests_are_refused(manifest: str, told: str) -> None:
    done = run("check", "-f", "-", stdin=manifest)
    assert done.exit_code == 2
    assert told in done.stderr


def test_missing_file_and_ambiguous_name() -> None:
    assert run("check", "-f", "/nonexistent.yaml").exit_code == 2
    twins = f"{POD}metadata: {{name: x}}\n---\n{MACHINE}metadata: {{name: x}}\n"
    done = run("explain", "-f", "-", "--from", "default/x", "--to", "ip:192.0.2.1", "--port", "80", stdin=twins)
    assert done.exit_code == 2
    assert "pod/default/x, vm/default/x" in done.stderr
    clear = ("--from", "pod/default/x", "--to", "vm/default/x", "--port", "80")
    assert run("explain", "-f", "-", *clear, stdin=twins).exit_code == 0


def test_what_is_no_object_is_passed_over_in_a_directory_only(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("replicas: 3\n")
    (tmp_path / "pod.yaml").write_text(POD + "metadata: {name: x}\n")
    done = run("check", "-f", str(tmp_path))
    assert done.exit_code == 0
    assert "values.yaml, document 1: passed over" in done.stderr
    assert run("check", "-f", str(tmp_path / "values.yaml")).exit_code == 2


def test_typed_lists_say_what_their_items_are() -> None:
    listed = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: x}\n"
    done = run("explain", "-f", "-", "--from", "default/x", "--to", "ip:192.0.2.1", "--port", "80", stdin=listed)
    assert done.exit_code == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("check",), "give manifests with -f FILE"),
        (("diff", "-f", str(POLICY)), "--from FILE or --kubeconfig FILE"),
        (("diff", "--from", str(POLICY)), "give the manifests after the change"),
        (("status", "--kubeconfig", "/nonexistent"), "/nonexistent"),
        (("hits", "--kubeconfig", "/nonexistent"), "/nonexistent"),
        (("reach", "--kubeconfig", str(POLICY)), "policy.yaml"),
    ],
)
def test_says_what_is_missing(args: tuple[str, ...], told: str) -> None:
    done = run(*args)
    assert done.exit_code == 2
    assert told in done.stderr


def test_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "isoplane.cli.policy", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    for command in ("explain", "reach", "diff", "check", "render", "status"):
        assert command in done.stdout
