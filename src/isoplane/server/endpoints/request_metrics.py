"""Requests counted and timed, under the names and labels of the Kubernetes API server.

The listener's application tells what it answered; a finished request costs two dictionary look-ups and a bisection.
Requests that last as long as their client likes (watch, log, exec) are counted when they end, and never timed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from isoplane.http import query
from isoplane.http.request import Request
from isoplane.objects.errors import ApiError
from isoplane.objects.exposition import Family, Histogram, Sample
from isoplane.server.endpoints.routes import Route

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Seconds. Finer at the short end than upstream's: most answers here take less than upstream's first bucket of 5 ms."""
_VERBS = {"POST": "POST", "PUT": "PUT", "PATCH": "PATCH"}
_LONG_RUNNING = frozenset(("log", "exec"))
What = tuple[str, str, str, str]
"""verb, group, resource, subresource."""
_LABELS = ("verb", "group", "resource", "subresource")


class RequestMetrics:
    """The counters of one server. Belongs to its event loop."""

    def __init__(self) -> None:
        self._total: Counter[tuple[What, int]] = Counter()
        self._seconds: dict[What, Histogram] = {}
        self._open: Counter[What] = Counter()

    def finished(self, what: What, code: int, seconds: float) -> None:
        """An answer was given."""
        self._total[what, code] += 1
        if long_running(what):
            return
        histogram = self._seconds.get(what)
        if histogram is None:
            histogram = self._seconds[what] = Histogram(BUCKETS)
        histogram.observe(seconds)

    def refused(self, method: str, code: int) -> None:
        """A request was refused before it was looked at: nobody may ask."""
        self._total[(_VERBS.get(method, method if method in ("GET", "DELETE") else "OTHER"), "", "", ""), code] += 1

    def opened(self, what: What) -> None:
        """A long-running request began."""
        self._open[what] += 1

    def closed(self, what: What) -> None:
        """A long-running request ended."""
        self._open[what] -= 1

    def collect(self) -> Iterator[Family]:
        """The families."""
        yield Family(
            "apiserver_request_total",
            "counter",
            "Requests answered, by what was asked and the HTTP status code.",
            [
                Sample({**_labels(what), "code": str(code)}, count)
                for (what, code), count in sorted(self._total.items())
            ],
        )
        yield Family(
            "apiserver_request_duration_seconds",
            "histogram",
            "Time from a request's headers to its answer; long-running requests are not timed.",
            [s for what, histogram in sorted(self._seconds.items()) for s in histogram.samples(_labels(what))],
        )
        yield Family(
            "apiserver_longrunning_requests",
            "gauge",
            "Watches, logs and commands that clients hold open now.",
            [Sample(_labels(what), count) for what, count in sorted(self._open.items())],
        )


def what_is_asked(request: Request, route: Route) -> What:
    """Upstream's verb for a request, and what it is about."""
    resource, method = route.resource, request.method
    if route.subresource == "exec":
        verb = "CONNECT"
    elif method in ("GET", "HEAD"):
        verb = "GET" if route.name else "WATCH" if _watches(request) else "LIST"
    elif method == "DELETE":
        verb = "DELETE" if route.name else "DELETECOLLECTION"
    else:
        verb = _VERBS.get(method, "OTHER")
    return verb, resource.group, resource.plural, route.subresource


def long_running(what: What) -> bool:
    """Whether a request lasts as long as its client likes."""
    return what[0] == "WATCH" or what[3] in _LONG_RUNNING


def _watches(request: Request) -> bool:
    try:
        return query.boolean(request.query, "watch")
    except ApiError:
        return False  # The handler refuses it and says why.


def _labels(what: What) -> dict[str, str]:
    return dict(zip(_LABELS, what, strict=True))
