# ruff: noqa: E501 - tables of one-line manifests
"""Policies that are not judged are named and the exit code is 2, by group, version and kind, in every command."""

from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner, Result

from isoplane.cli.policy import app
from isoplane.policy.foreign import could_select, is_unjudged, unjudged
from isoplane.policy.model import Endpoint, cluster

WORKLOADS = """
{apiVersion: v1, kind: Namespace, metadata: {name: a}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: a}
spec:
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cli, namespace: a}
spec: {template: {metadata: {labels: {app: cli}}, spec: {containers: [{name: c, image: x}]}}}
---
"""
ASKED = ("-f", "-", "--from", "a/cli", "--to", "a/web", "--port", "80")
KINDS = {
    "policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy": "priority: 1, subject: {namespaces: {}}",
    "policy.networking.k8s.io/v1alpha1 BaselineAdminNetworkPolicy": "subject: {namespaces: {}}",
    "cilium.io/v2 CiliumNetworkPolicy": "endpointSelector: {}, ingress: [{}]",
    "cilium.io/v2 CiliumClusterwideNetworkPolicy": "endpointSelector: {}, ingressDeny: [{}]",
    "projectcalico.org/v3 NetworkPolicy": "selector: app == 'web', types: [Ingress], ingress: [{action: Deny}]",
    "projectcalico.org/v3 GlobalNetworkPolicy": "types: [Ingress]",
    "crd.antrea.io/v1beta1 ClusterNetworkPolicy": "priority: 5, appliedTo: [{namespaceSelector: {}}]",
    "k8s.cni.cncf.io/v1beta1 MultiNetworkPolicy": "podSelector: {}",
    "extensions/v1beta1 NetworkPolicy": "podSelector: {}",
    "policy.networking.k8s.io/v1beta7 ClusterNetworkPolicy": "tier: Admin",
    "k8s.ovn.org/v1 EgressFirewall": "egress: [{type: Deny, to: {cidrSelector: 0.0.0.0/0}}]",
    "security.istio.io/v1 AuthorizationPolicy": "action: DENY",
    "vendor.example/v1 TrafficPolicy": "ingress: [{from: nobody}]",
}


def run(*args: str, stdin: str) -> Result:
    return CliRunner().invoke(app, list(args), input=stdin)


def policy(kind: str, namespace: str = "a", spec: str = "") -> str:
    version, _, name = kind.partition(" ")
    meta = f"name: deny, namespace: {namespace}" if namespace else "name: deny"
    return f"{{apiVersion: {version}, kind: {name}, metadata: {{{meta}}}, spec: {{{spec or KINDS[kind]}}}}}"


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_named_and_the_exit_code_is_2(kind: str) -> None:
    done = run("explain", *ASKED, stdin=WORKLOADS + policy(kind))
    assert done.exit_code == 2
    assert f"not judged: {kind} a/deny" in done.stderr


@pytest.mark.parametrize(
    "args",
    [ASKED, ("reach",), ("check",), ("render",), ("diff", "--from", "-")],
    ids=lambda a: a[0] if a is not ASKED else "explain",
)
def test_every_command_says_so(args: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> None:
    manifests = WORKLOADS + policy("cilium.io/v2 CiliumNetworkPolicy")
    file = tmp_path_factory.mktemp("foreign") / "all.yaml"
    file.write_text(manifests)
    command = ("explain", *args) if args is ASKED else (*args, "-f", str(file))
    done = run(*command, stdin=manifests)
    assert done.exit_code == 2
    assert "not judged: cilium.io/v2 CiliumNetworkPolicy a/deny" in done.stderr


def test_programs_are_told_too() -> None:
    done = run("explain", *ASKED, "-o", "json", stdin=WORKLOADS + policy("projectcalico.org/v3 NetworkPolicy"))
    assert json.loads(done.stdout)["notJudged"] == [
        {"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "namespace": "a", "name": "deny"}
    ]
    assert json.loads(run("explain", *ASKED, "-o", "json", stdin=WORKLOADS).stdout)["notJudged"] == []


def test_what_is_judged_and_what_is_no_policy_is_not_named() -> None:
    others = """
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: a}, spec: {podSelector: {}, ingress: [{}]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i, namespace: a}, spec: {rules: []}}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b, namespace: a}, spec: {maxUnavailable: 1}}
---
{apiVersion: kyverno.io/v1, kind: ClusterPolicy, metadata: {name: k}, spec: {rules: [{name: x}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: a}, spec: {http: []}}
"""
    done = run("explain", *ASKED, stdin=WORKLOADS + others)
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("kind", "namespace", "spec", "could"),
    [
        ("projectcalico.org/v3 NetworkPolicy", "a", "selector: all()", True),
        ("projectcalico.org/v3 NetworkPolicy", "b", "selector: all()", False),
        ("projectcalico.org/v3 GlobalNetworkPolicy", "", "selector: app == 'x'", True),
        ("k8s.cni.cncf.io/v1beta1 MultiNetworkPolicy", "a", "podSelector: {matchLabels: {app: other}}", False),
        ("k8s.cni.cncf.io/v1beta1 MultiNetworkPolicy", "a", "podSelector: {matchLabels: {app: web}}", True),
        ("policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy", "", "subject: {namespaces: {matchLabels: {team: x}}}", True),
        ("policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy", "", "subject: {namespaces: {matchLabels: {team: y}}}", False),
        ("policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy", "", "subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: z}}}}", False),
        ("policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy", "", "subject: {namespaces: 7}", True),
        ("cilium.io/v2 CiliumNetworkPolicy", "a", "endpointSelector: {matchLabels: {'k8s:app': other}}", True),
        ("security.istio.io/v1 AuthorizationPolicy", "istio-system", "action: DENY", True),
    ],
)  # fmt: skip
def test_only_what_surely_concerns_nobody_is_ruled_out(kind: str, namespace: str, spec: str, could: bool) -> None:
    written = yaml.load(policy(kind, namespace, spec), Loader=yaml.CSafeLoader)
    assert is_unjudged(written)
    end = Endpoint("pod", "a", "web", {"app": "web"})
    assert could_select(unjudged(written), [end], cluster([end], {"a": {"team": "x"}})) is could
