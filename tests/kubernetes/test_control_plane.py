"""What the other tests of this folder stand on: a real control plane runs here, schedules Pods and runs them."""

from __future__ import annotations

import time

from control_plane_support import ControlPlane

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  containers: [{name: web, image: web, resources: {requests: {cpu: 100m}}}]
"""


def test_a_pod_is_scheduled_and_runs(control_plane: ControlPlane) -> None:
    deadline = time.monotonic() + 60
    while "default" not in control_plane.kubectl("get", "serviceaccounts", "-n", "default", "-o", "name"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    control_plane.kubectl("create", "-f", "-", stdin=POD)
    control_plane.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    assert control_plane.kubectl("get", "pod", "web", "-o", "jsonpath={.spec.nodeName}").startswith("node-")
    control_plane.kubectl("delete", "pod", "web", "--wait=true", "--timeout=30s")
