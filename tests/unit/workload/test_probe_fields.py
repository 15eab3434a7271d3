"""A declared probe is read whole, of containers and of machines alike."""

from __future__ import annotations

from isoplane.workload.common import probe
from isoplane.workload.shape import HttpGet


def test_a_probe_is_read_whole() -> None:
    counts = {
        "initialDelaySeconds": 1, "periodSeconds": 2, "timeoutSeconds": 3, "successThreshold": 4, "failureThreshold": 5,
    }  # fmt: skip
    found = probe({"exec": {"command": ["a", "b"]}, "terminationGracePeriodSeconds": 6, **counts}, {})
    assert found is not None
    assert found.command == ("a", "b")
    assert (found.initial_delay, found.period, found.timeout) == (1, 2, 3)
    assert (found.success_threshold, found.failure_threshold, found.grace_seconds) == (4, 5, 6)
    asked = {
        "port": "web", "path": "/x", "scheme": "HTTPS", "host": "192.0.2.1", "httpHeaders": [{"name": "A", "value": "b"}],
    }  # fmt: skip
    found = probe({"httpGet": asked}, {"web": 8080})
    assert found is not None
    assert found.http == HttpGet(8080, "/x", "HTTPS", "192.0.2.1", (("A", "b"),))
    found = probe({"tcpSocket": {"port": 9, "host": "192.0.2.2"}}, {})
    assert found is not None
    assert (found.tcp_port, found.tcp_host) == (9, "192.0.2.2")
