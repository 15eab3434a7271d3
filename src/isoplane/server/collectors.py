"""What the server can tell of itself at a scrape: its store, and its process."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from isoplane.objects.exposition import Family, Histogram, counter, gauge
from isoplane.store import Store

_SIZES = 15
"""Buckets of batch sizes: up to 2**14 changes, more than a loop's turn ever gathered."""


def store_families(store: Store) -> Iterator[Family]:
    """Revision, commits, batches and queue of the store."""
    stats = store.stats
    yield gauge("isoplane_store_revision", "The newest revision that readers see.", store.revision)
    yield gauge(
        "isoplane_store_compacted_revision", "The oldest revision that can still be watched from.", store.compacted
    )
    yield counter("isoplane_store_commits_total", "Transactions of the database, each for a batch.", stats.commits)
    yield counter("isoplane_store_commit_failures_total", "Commits that the disk refused.", stats.failures)
    yield counter("isoplane_store_changes_total", "Changes of objects that were committed.", stats.changes)
    yield counter("isoplane_store_commit_seconds_total", "Time spent waiting for commits.", stats.seconds)
    sizes = Histogram([2.0**n for n in range(_SIZES)])
    for n, count in stats.sizes.items():
        sizes.counts[min(n, _SIZES)] += count
    sizes.sum = stats.changes
    yield Family(
        "isoplane_store_batch_changes", "histogram", "Changes that became durable together.", list(sizes.samples({}))
    )
    yield gauge("isoplane_store_queue_depth", "Changes that are evaluated and not durable yet.", store.queued)
    yield gauge("isoplane_store_watches", "Watches on the store, the plane's own included.", store.watches)


def process_families() -> Iterator[Family]:
    """Memory, processor time and descriptors of this process, under the names of Prometheus' client libraries."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    # Counted from the state, which is field 3: utime 14, stime 15, starttime 22, rss 24 (proc(5)).
    ticks = os.sysconf("SC_CLK_TCK")
    with Path("/proc/uptime").open() as file:
        booted = time.time() - float(file.read().split()[0])
    yield gauge(
        "process_resident_memory_bytes", "Resident memory size in bytes.", int(fields[21]) * resource.getpagesize()
    )
    yield counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        (int(fields[11]) + int(fields[12])) / ticks,
    )
    yield gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        booted + int(fields[19]) / ticks,
    )
    yield gauge("process_open_fds", "Number of open file descriptors.", len(os.listdir("/proc/self/fd")))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        float("inf") if limit == resource.RLIM_INFINITY else limit,
    )


def loop_families(stalls: int, longest: float) -> Iterator[Family]:
    """What held the event loop, as the watchdog saw it. ``longest`` in seconds."""
    yield counter("isoplane_event_loop_stalls_total", "Times the event loop was held for longer than a second.", stalls)
    yield gauge("isoplane_event_loop_longest_stall_seconds", "The longest of them since the start.", longest)
