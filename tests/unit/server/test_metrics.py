"""The text exposition: escaping, numbers, histograms; requests counted under upstream's names."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.http import request_info
from isoplane.http.request_metrics import Measured, RequestMetrics
from isoplane.objects.exposition import Family, Histogram, Registry, Sample, counter, gauge, number, render
from isoplane.server.collectors import process_families

GET = ("GET", "", "pods", "")


def begun(requests: RequestMetrics, method: str, url: str, *, served: bool = False) -> Measured:
    path, _, query = url.partition("?")
    info = request_info.read(method, path, query.encode())
    measured = Measured(requests, info)
    if served:
        measured.served(info)
    return measured


def test_a_family_is_written_with_help_type_and_samples() -> None:
    family = Family("isoplane_things", "gauge", "Things.\nAll \\ of them.", [Sample({"a": "x", "b": "y"}, 2.5)])
    assert render([family]) == (
        "# HELP isoplane_things Things.\\nAll \\\\ of them.\n"
        "# TYPE isoplane_things gauge\n"
        'isoplane_things{a="x",b="y"} 2.5\n'
    )


def test_label_values_are_escaped() -> None:
    line = render([Family("m", "gauge", "", [Sample({"l": 'back\\slash "quote"\nline é'}, 1)])]).splitlines()[-1]
    assert line == 'm{l="back\\\\slash \\"quote\\"\\nline é"} 1'


@given(st.text())
def test_any_label_value_reads_back(value: str) -> None:
    text = render([Family("m", "gauge", "", [Sample({"l": value}, 1)])])
    line = text.split("gauge\n", 1)[1]
    assert line.count("\n") == 1
    written = line.removeprefix('m{l="').removesuffix('"} 1\n')
    read, i = "", 0
    while i < len(written):
        step = 2 if written[i] == "\\" else 1
        read += {"\\\\": "\\", '\\"': '"', "\\n": "\n"}[written[i : i + 2]] if step == 2 else written[i]
        i += step
    assert read == value


@given(st.floats(allow_nan=False) | st.integers(-(2**62), 2**62))
def test_numbers_lose_nothing(value: float) -> None:
    assert float(number(value)) == float(value)


def test_special_numbers() -> None:
    assert [number(x) for x in (math.inf, -math.inf, math.nan, 3.0, 0.1, 17_179_869_184)] == [
        "+Inf", "-Inf", "NaN", "3", "0.1", "17179869184",
    ]  # fmt: skip


@given(st.lists(st.floats(0, 100)))
def test_histogram_buckets_are_cumulative_and_add_up(values: list[float]) -> None:
    histogram = Histogram([0.1, 1.0, 10.0])
    for value in values:
        histogram.observe(value)
    *buckets, total, count = histogram.samples({"verb": "GET"})
    assert [b.labels["le"] for b in buckets] == ["0.1", "1", "10", "+Inf"]
    for bucket in buckets:
        assert bucket.value == sum(value <= float(bucket.labels["le"]) for value in values)
    assert (total.suffix, count.suffix) == ("_sum", "_count")
    assert count.value == len(values) == buckets[-1].value
    assert total.value == pytest.approx(sum(values))


def test_the_registry_sorts_refuses_doubles_and_forgets() -> None:
    registry = Registry()
    registry.register(lambda: [gauge("b", "B.", 1)])
    registry.register(lambda: [counter("a_total", "A.", 2)])
    assert [line for line in registry.render().decode().splitlines() if line[0] != "#"] == ["a_total 2", "b 1"]

    def again() -> list[Family]:
        return [gauge("b", "B.", 1)]

    registry.register(again)
    with pytest.raises(ValueError, match="b is collected twice"):
        registry.render()


def test_requests_are_counted_by_code_and_timed_unless_they_last() -> None:
    requests = RequestMetrics()
    requests.finished(GET, 200, 0.004)
    requests.finished(GET, 404, 0.2)
    watch = begun(requests, "GET", "/apis/apps/v1/deployments?watch=1", served=True)
    for method, path in (("GET", "/api/v1/pods"), ("BREW", "/")):
        refused = begun(requests, method, path)
        refused.code = 401
        refused.end()
    begun(requests, "GET", "/api/v1/pods").end()  # its client left
    text = render(requests.collect())
    for line in (
        'apiserver_request_total{verb="GET",group="",resource="pods",subresource="",code="200"} 1',
        'apiserver_request_total{verb="GET",group="",resource="pods",subresource="",code="404"} 1',
        'apiserver_request_total{verb="LIST",group="",resource="",subresource="",code="401"} 1',
        'apiserver_request_total{verb="OTHER",group="",resource="",subresource="",code="401"} 1',
        'apiserver_request_duration_seconds_bucket{verb="GET",group="",resource="pods",subresource="",le="0.005"} 1',
        'apiserver_request_duration_seconds_count{verb="GET",group="",resource="pods",subresource=""} 2',
        'apiserver_longrunning_requests{verb="WATCH",group="apps",resource="deployments",subresource=""} 1',
    ):
        assert line in text.splitlines()
    watch.code = 200
    watch.end()
    text = render(requests.collect())
    assert 'apiserver_longrunning_requests{verb="WATCH",group="apps",resource="deployments",subresource=""} 0' in text
    assert 'apiserver_request_duration_seconds_count{verb="WATCH"' not in text


def test_the_process_tells_of_itself() -> None:
    values = {family.name: family.samples[0].value for family in process_families()}
    assert 1 << 20 < values["process_resident_memory_bytes"] < 1 << 40
    assert values["process_cpu_seconds_total"] > 0
    assert 3 <= values["process_open_fds"] <= values["process_max_fds"]
    assert 1_000_000_000 < values["process_start_time_seconds"] < 1e11
