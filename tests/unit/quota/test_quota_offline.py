"""`isoplane quota explain`: from manifests to an answer, with the decision that the server makes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from typer.testing import CliRunner

from isoplane.cli.quota import app
from isoplane.objects import metadata
from isoplane.objects.kinds import WORKLOADS
from isoplane.objects.quantity import approximate
from isoplane.quota import explain as words
from isoplane.quota.model import Admit, Deny, Wait
from isoplane.quota.offline import Offline, Unreadable, answers
from isoplane.quota.outlook import outlook
from isoplane.workload.view import workload_object
from isoplane.workload.vmi import MachineAdapter

EXAMPLE = Path(__file__).parents[3] / "examples" / "02-quota-preemption"
EXPECTED = yaml.safe_load((EXAMPLE / "expected/outcome.yaml").read_text())


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["explain", *args])


@pytest.mark.parametrize(("name", "code"), [("later/database.yaml", 1), ("later/intern.yaml", 1)])
def test_the_example_is_answered_as_it_must_be(name: str, code: int) -> None:
    result = run("-f", str(EXAMPLE / name), "--state", str(EXAMPLE), "--output", "json")
    assert result.exit_code == code, result.output
    (answer,) = orjson.loads(result.stdout)
    assert answer["decision"] == EXPECTED[name]["decision"]
    if leave := EXPECTED[name].get("leave"):
        assert sorted(v["workload"] for v in answer["victims"]) == sorted(leave)
    if message := EXPECTED[name].get("message"):
        assert answer["message"].startswith(message)


def test_everything_in_one_place() -> None:
    result = run("-f", str(EXAMPLE))
    assert result.exit_code == 0
    # The VirtualMachine counts as the instance that it starts.
    assert "vmi/team-a/build (priority 10) is admitted" in result.stdout


def test_state_files_may_follow_one_flag(tmp_path: Path) -> None:
    files = [str(EXAMPLE / name) for name in ("00-tenants.yaml", "01-priorities.yaml", "10-workloads.yaml")]
    result = run("-f", str(EXAMPLE / "later" / "intern.yaml"), "--state", *files)
    assert result.exit_code == 1
    assert "is refused" in result.stdout
    assert "nobody leaves: priority 100 is not above the eviction threshold 500" in result.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Pod", "apiVersion and kind must be set"),
        ("{apiVersion: v1, kind: Nothing}", 'no matches for kind "Nothing"'),
        ("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {}}", "spec.containers"),
        (": :", "not YAML"),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: n}}", "nothing in"),
    ],
)
def test_bad_input(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    result = run("-f", str(tmp_path / "bad.yaml"))
    assert result.exit_code == 2
    assert said in result.output


def pod(name: str, **fields: Any) -> dict[str, Any]:
    spec = {
        "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}],
        **fields.pop("spec", {}),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a", **fields}, "spec": spec}


QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "q", "namespace": "a"},
    "spec": {"hard": {"requests.cpu": "1", "count/configmaps": "1"}},
}
POLICY = {
    "apiVersion": "isoplane.io/v1alpha1",
    "kind": "QuotaPolicy",
    "metadata": {"name": "default", "namespace": "a"},
    "spec": {"evictionThreshold": 0},
}
OWNER = {"kind": "VirtualMachine", "apiVersion": "kubevirt.io/v1", "name": "guest", "uid": "u", "controller": True}
HIGH = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 9}
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "a"}}


def test_later_ones_see_what_earlier_ones_did() -> None:
    first, second, third = answers(
        [QUOTA, POLICY, HIGH], [pod("one"), pod("two"), pod("three", spec={"priorityClassName": "high"})], 0
    )
    assert isinstance(first.decision, Admit)
    assert isinstance(second.decision, Deny)
    assert isinstance(third.decision, Wait)
    assert [v.charge.id for v in third.decision.victims] == ["pod/a/one"]


def test_objects_are_counted_too() -> None:
    found = answers([QUOTA], [CONFIG, {**CONFIG, "metadata": {"name": "d", "namespace": "a"}}], 0)
    assert [type(a.decision) for a in found] == [Admit, Deny]


def test_holds_are_read_from_the_usage() -> None:
    gated = pod("held", uid="u1", spec={"schedulingGates": [{"name": "isoplane.io/quota"}]})
    usage = {
        "apiVersion": "view.isoplane.io/v1alpha1", "kind": "QuotaUsage", "metadata": {"name": "default", "namespace": "a"},
        "status": {"holds": [{"uid": "u1", "victims": ["pod/a/x"]}]},
    }  # fmt: skip
    (answer,) = answers([QUOTA, gated, usage], [pod("new")], 0)
    assert isinstance(answer.decision, Deny)
    assert answer.decision.lines[0].held == 1000


@pytest.mark.parametrize("annotations", [{"scheduling.k8s.io/priority-class": "low"}, {}])
def test_priorities_are_resolved_as_the_server_does(annotations: dict[str, str]) -> None:
    name = "high" if annotations else "nope"
    with pytest.raises(Unreadable, match=r"differs from|no PriorityClass with name nope"):
        answers([QUOTA, HIGH], [pod("p", annotations=annotations, spec={"priorityClassName": name})], 0)


def test_reclaim_between_tenants() -> None:
    cohort = {
        "apiVersion": "isoplane.io/v1alpha1",
        "kind": "Cohort",
        "metadata": {"name": "default"},
        "spec": {"overcommit": {"cpu": 2}},
    }
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "1"}}}

    def policy(namespace: str) -> dict[str, Any]:
        return {
            **POLICY,
            "metadata": {"name": "default", "namespace": namespace},
            "spec": {"cohort": "default", "guaranteed": {"cpu": "1"}},
        }

    borrowed = [pod("mine"), pod("lent")]
    other = pod("theirs")
    other["metadata"]["namespace"] = "b"
    (answer,) = answers([cohort, node, policy("a"), policy("b"), *borrowed], [other], 0)
    assert isinstance(answer.decision, Wait)
    assert [(v.charge.id, v.rule) for v in answer.decision.victims] == [("pod/a/lent", "reclaim")]


def test_who_is_there_already_is_told_how_it_waits() -> None:
    """A manifest of something that the state has means that one, whatever its uid: it is not asked about twice."""
    gate = {"schedulingGates": [{"name": "isoplane.io/quota"}]}
    state = [
        QUOTA, pod("running", uid="u0"), pod("held", uid="u1", spec=gate),
        pod("second", uid="u3", spec=gate), pod("first", uid="u2", spec={**gate, "priorityClassName": "high"}), HIGH,
    ]  # fmt: skip
    since = "2026-11-28T10:00:00Z"
    usage = {
        "apiVersion": "view.isoplane.io/v1alpha1", "kind": "QuotaUsage", "metadata": {"name": "default", "namespace": "a"},
        "status": {
            "holds": [{"uid": "u1", "victims": ["pod/a/running"], "since": since, "expires": "2026-11-28T10:02:30Z"}],
            "waiting": [{"uid": "u2", "since": since}, {"uid": "u3", "since": since}],
        },
    }  # fmt: skip
    now = metadata.posix(since)
    assert now is not None
    asked = [pod("running"), pod("held"), pod("second"), pod("first", spec={"priorityClassName": "high"})]
    found = answers([*state, usage], asked, now + 65)
    assert [answer.decision.rule for answer in found] == ["already-charged", "given-back", "in-line", "in-line"]
    running, held, second, first = (words.text(a.ask, a.decision, a.standing, now + 65).splitlines() for a in found)
    assert running == ["pod/a/running (priority 0) is admitted: it is charged already"]
    assert f"  waits since {since} (65 s) with a hold until 2026-11-28T10:02:30Z, for pod/a/running to leave" in held
    assert f"  waits since {since} (65 s), number 2 of 2 in line" in second
    assert f"  waits since {since} (65 s), number 1 of 2 in line" in first
    data = words.data(found[1].ask, found[1].decision, found[1].standing)
    assert (data["decision"], data["since"], data["waitsFor"]) == ("wait", since, ["pod/a/running"])
    assert words.data(found[2].ask, found[2].decision, found[2].standing)["place"] == 2


def test_a_recorded_priority_outlives_its_class() -> None:
    old = pod("old", uid="u0", spec={"priorityClassName": "gone", "priority": 3})
    (answer,) = answers([QUOTA, POLICY, HIGH, old], [pod("new", spec={"priorityClassName": "high"})], 0)
    assert isinstance(answer.decision, Wait)
    assert [v.charge.priority for v in answer.decision.victims] == [3]


def test_bytes_that_are_no_round_number_are_told_in_mebibytes() -> None:
    assert approximate("requests.memory", 897974274) == "856.4Mi"
    assert approximate("requests.memory", 2 << 30) == "2Gi"
    assert approximate("requests.memory", (2 << 30) + (1 << 20)) == "2.0Gi"
    assert approximate("requests.memory/vmi", 1330 << 20) == "1.3Gi"
    assert approximate("memory", 306 << 20) == "306Mi"
    assert approximate("memory", 1500 << 30) == "1500Gi"
    assert approximate("requests.cpu", 1500) == "1500m"
    assert approximate("pods", 9_999_999) == "9999999"


def test_a_machines_memory_is_told_with_what_it_consists_of() -> None:
    machine = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "guest", "namespace": "a"},
        "spec": {"domain": {"memory": {"guest": "1Gi"}, "devices": {"autoattachGraphicsDevice": False}}},
    }
    quota = {**QUOTA, "spec": {"hard": {"requests.memory": "1Gi"}}}
    (found,) = answers([quota], [machine], 0)
    told = words.text(found.ask, found.decision, found.standing)
    assert "memory 1.3Gi: guest 1Gi + overhead 269.4Mi" in told
    message = words.data(found.ask, found.decision)["message"]
    assert "requested: requests.memory=1.3Gi" in message
    assert "memory 1.3Gi: guest 1Gi + overhead 269.4Mi" in message
    owned = {**machine, "metadata": {**machine["metadata"], "ownerReferences": [OWNER]}}
    (waiting,) = answers([quota], [owned], 0)
    assert isinstance(waiting.decision, Wait)
    assert "memory 1.3Gi: guest 1Gi + overhead 269.4Mi" in words.data(waiting.ask, waiting.decision)["message"]
    shown = workload_object(MachineAdapter(), machine)
    assert shown["spec"]["guest"] == {"cpu": "1", "memory": "1Gi"}
    assert shown["spec"]["overhead"] == {"cpu": "5m", "ephemeral-storage": "47.7Mi", "memory": "269.4Mi"}
    cells = WORKLOADS.printer.row(shown, 0)
    assert "cpu: 105m, memory: 1.3Gi: guest 1Gi + overhead 269.4Mi" in cells


def test_it_says_who_comes_in_next_and_after_whom(tmp_path: Path) -> None:
    gate = {"schedulingGates": [{"name": "isoplane.io/quota"}]}
    low, other = pod("low", uid="u0"), pod("other", uid="u9")
    low["metadata"]["deletionTimestamp"] = "2026-11-28T10:00:00Z"
    first = pod("first", uid="u2", spec={**gate, "priorityClassName": "high"})
    state = [
        {**QUOTA, "spec": {"hard": {"requests.cpu": "2"}}},
        HIGH,
        low,
        other,
        pod("second", uid="u3", spec=gate),
        first,
    ]
    asked = [pod("first", spec={"priorityClassName": "high"}), pod("second")]
    files = {"state.yaml": state, "new.yaml": asked}
    for name, objects in files.items():
        (tmp_path / name).write_text(yaml.safe_dump_all(objects))
    arguments = ("-f", str(tmp_path / "new.yaml"), "--state", str(tmp_path / "state.yaml"))
    result = run(*arguments)
    told = result.stdout.splitlines()
    assert result.exit_code == 1, result.output
    assert "  comes in once pod/a/low has left" in told
    assert (
        "  comes in once somebody leaves who stays as yet, or a limit grows, and after pod/a/first in the queue" in told
    )
    assert "  next: pod/a/first once pod/a/low has left" in told
    data = orjson.loads(run(*arguments, "--output", "json").stdout)
    assert [(answer["next"], answer["ahead"]) for answer in data] == [
        ([{"workload": "pod/a/first", "after": ["pod/a/low"]}], []),
        ([{"workload": "pod/a/first", "after": ["pod/a/low"]}], ["pod/a/first"]),
    ]


def test_trying_out_who_comes_in_next_changes_nothing() -> None:
    gate = {"schedulingGates": [{"name": "isoplane.io/quota"}]}
    leaving = pod("low", uid="u0")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-28T10:00:00Z"
    there = Offline([QUOTA, leaving, pod("next", uid="u1", spec=gate)], 0)
    before = copy.deepcopy((there.ledger.book("a"), list(there.ledger.charges("a")), list(there.ledger.waiting("a"))))
    assert [one.pending.charge.id for one in outlook(there.ledger, "a", 0).released] == ["pod/a/next"]
    assert (there.ledger.book("a"), list(there.ledger.charges("a")), list(there.ledger.waiting("a"))) == before
