"""Requests counted and timed, under the names and labels of the Kubernetes API server.

A finished request costs two dictionary look-ups and a bisection.  Requests that last as long as their client likes (watch, log,
exec) are counted when they end, and never timed.  What is not served has no name here: labels are never a client's invention.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from isoplane.http.request_info import RequestInfo
from isoplane.objects.exposition import Family, Histogram, Sample

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Seconds. Finer at the short end than upstream's: most answers here take less than upstream's first bucket of 5 ms."""
_VERBS = {
    "get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE",
    "deletecollection": "DELETECOLLECTION", "head": "GET", "post": "POST", "put": "PUT",
}  # fmt: skip
_LONG_RUNNING = frozenset(("log", "exec"))
Labels = tuple[str, str, str, str]
"""verb, group, resource, subresource."""
_NAMES = ("verb", "group", "resource", "subresource")


class Measured:
    """One request from its beginning to its end."""

    __slots__ = ("_began", "_labels", "_lasting", "_metrics", "code")

    def __init__(self, metrics: RequestMetrics, info: RequestInfo) -> None:
        self._metrics = metrics
        self._labels: Labels = (_VERBS.get(info.verb, "OTHER"), "", "", "")
        self._lasting = False
        self.code = 0
        """The answer; 0 while there is none. Whoever leaves before it came got none, and counts as none."""
        self._began = time.perf_counter()

    def served(self, info: RequestInfo) -> None:
        """It may be asked, and there is such a thing."""
        if info.resource:
            self._labels = labels = labels_of(info)
            if long_running(labels):
                self._lasting = True
                self._metrics.open[labels] += 1

    def end(self) -> None:
        if self._lasting:
            self._metrics.open[self._labels] -= 1
        if self.code:
            self._metrics.finished(self._labels, self.code, time.perf_counter() - self._began)


class RequestMetrics:
    """The counters of one server. Belongs to its event loop."""

    def __init__(self) -> None:
        self._total: Counter[tuple[Labels, int]] = Counter()
        self._seconds: dict[Labels, Histogram] = {}
        self.open: Counter[Labels] = Counter()
        """Long-running requests that have begun and not ended."""

    def finished(self, labels: Labels, code: int, seconds: float) -> None:
        """An answer was given."""
        self._total[labels, code] += 1
        if long_running(labels):
            return
        histogram = self._seconds.get(labels)
        if histogram is None:
            histogram = self._seconds[labels] = Histogram(BUCKETS)
        histogram.observe(seconds)

    def collect(self) -> Iterator[Family]:
        """The families."""
        yield Family(
            "apiserver_request_total",
            "counter",
            "Requests answered, by what was asked and the HTTP status code.",
            [
                Sample({**_named(labels), "code": str(code)}, count)
                for (labels, code), count in sorted(self._total.items())
            ],
        )
        yield Family(
            "apiserver_request_duration_seconds",
            "histogram",
            "Time from a request's headers to its answer; long-running requests are not timed.",
            [s for labels, histogram in sorted(self._seconds.items()) for s in histogram.samples(_named(labels))],
        )
        yield Family(
            "apiserver_longrunning_requests",
            "gauge",
            "Watches, logs and commands that clients hold open now.",
            [Sample(_named(labels), count) for labels, count in sorted(self.open.items())],
        )


def labels_of(info: RequestInfo) -> Labels:
    """Upstream's labels of a request for something that is served."""
    verb = "CONNECT" if info.subresource == "exec" else _VERBS.get(info.verb, "OTHER")
    return verb, info.group, info.resource, info.subresource


def long_running(labels: Labels) -> bool:
    """Whether a request lasts as long as its client likes."""
    return labels[0] == "WATCH" or labels[3] in _LONG_RUNNING


def _named(labels: Labels) -> dict[str, str]:
    return dict(zip(_NAMES, labels, strict=True))
