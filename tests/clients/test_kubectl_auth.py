"""kubectl auth: what may I do, and who am I."""

from __future__ import annotations

import json

from client_support import Run

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
MAY = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def test_can_i(kubectl: Run) -> None:
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    assert kubectl("auth", "can-i", "delete", "virtualmachines.kubevirt.io/start", "-A").strip() == "yes"
    assert kubectl("auth", "can-i", "get", "/metrics").strip() == "yes"
    assert "*.*" in kubectl("auth", "can-i", "--list")
    assert "impersonation is not supported" in kubectl.fails("auth", "can-i", "get", "pods", "--as", "somebody")


def test_nobody_is_answered_with_greater_rights_than_asked_for(kubectl: Run) -> None:
    for command in (("get", "pods"), ("get", "namespace", "default"), ("get", "--raw", "/api/v1/namespaces/default")):
        refusal = kubectl.fails(*command, "--as", "somebody")
        # 1.29 and 1.30 fail in discovery already, and show no more of its answer than its reason.
        assert "impersonation is not supported" in refusal or "(Forbidden)" in refusal


def test_whoami(kubectl: Run) -> None:
    review = json.loads(kubectl("auth", "whoami", "-o", "json"))
    assert review["status"]["userInfo"] == {
        "username": "isoplane-admin",
        "groups": ["system:masters", "system:authenticated"],
    }
    assert "isoplane-admin" in kubectl("auth", "whoami")


def test_reviews_are_questions_only(kubectl: Run) -> None:
    assert "selfsubjectaccessreviews.authorization.k8s.io" in kubectl("api-resources", "-o", "name").split()
    for path in (WHO, MAY):
        assert "MethodNotAllowed" in kubectl.fails("get", "--raw", path)
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    both = {"resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"verb": "get"}}
    for spec in ({}, both):
        error = kubectl.fails("create", "--raw", MAY, "-f", "-", stdin=json.dumps({**body, "spec": spec}))
        assert "exactly one of" in error
    wrong = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
    assert "cannot be handled" in kubectl.fails("create", "--raw", MAY, "-f", "-", stdin=wrong)
