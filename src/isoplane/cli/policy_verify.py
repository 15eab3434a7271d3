"""``isoplane policy verify``: real packets through every engine of this host, compared with the reference verdict."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import orjson
import typer
import yaml

from isoplane.cli.manifests import located, read
from isoplane.cli.policy_inputs import InputError, snapshot_of, unless_unjudged
from isoplane.cli.scenes.theatre import example_dir
from isoplane.cli.terminal import DONE, FINDING, Output, say
from isoplane.node.network.verify.lab import MIXES
from isoplane.node.network.verify.report import MOST_ENDPOINTS, Objects, Outcome, ports, verify

_SHOWN = 10


def print_verified(files: list[str], engines: list[str], recursive: bool, output: Output) -> int:
    """Try them one after the other, print as they end. Raises InputError."""
    for engine in engines:
        if engine not in MIXES:
            raise InputError(f"--engines {engine!r} is not one of {', '.join(sorted(MIXES))}")
    stages = _stages(files, recursive)
    snapshots = [snapshot_of(objects) for _, objects in stages]
    for each in snapshots:
        if unless_unjudged(each.unjudged, DONE) != DONE:
            raise InputError("the packets cannot be compared with policies that are not judged")
    clusters = [each.cluster for each in snapshots]
    count = sum(endpoint.governed for endpoint in clusters[0].endpoints)
    if not 2 <= count <= MOST_ENDPOINTS:
        raise InputError(f"{count} workloads: every pair is tried, so give 2 to {MOST_ENDPOINTS}")
    if os.geteuid() != 0:
        raise InputError("verify makes network namespaces and loads rules: run it as root")
    found: list[Outcome] = []
    for mix in engines or list(MIXES):
        for outcome in asyncio.run(verify(mix, stages, ports(clusters))):
            found.append(outcome)
            if output is Output.TABLE:
                typer.echo("\n".join(_told(outcome)))
    if output is Output.JSON:
        typer.echo(orjson.dumps([outcome.to_dict() for outcome in found], option=orjson.OPT_INDENT_2).decode())
    else:
        wrong = sum(len(outcome.disagreements) for outcome in found)
        failed = sum(bool(outcome.error) for outcome in found)
        typer.echo(
            f"{sum(o.packets for o in found)} packets, {wrong} disagreements"
            + (f", {failed} choices of engines could not be tried" if failed else "")
        )
    return DONE if all(outcome.good for outcome in found) else FINDING


def _stages(files: list[str], recursive: bool) -> list[tuple[str, Objects]]:
    """The manifests given; else the founding example without a policy, with its own, and with the corrected one."""
    if files:
        return [(", ".join(files), [m.obj for m in located(files, recursive=recursive, tell=say)])]
    directory = example_dir("03-tenant-isolation")
    workloads = read([directory / "workloads.yaml"])
    policies = ("policy.yaml", "corrected/policy.yaml")
    return [("workloads.yaml", workloads), *((name, [*workloads, *read([directory / name])]) for name in policies)]


def _told(outcome: Outcome) -> Iterator[str]:
    if outcome.error:
        yield f"{outcome.engines}: not tried: {outcome.error}"
        return
    wrong = len(outcome.disagreements)
    agreed = "all as the reference says" if not wrong else f"{wrong} against the reference"
    yield f"{outcome.engines}: {outcome.manifests}: {outcome.packets} packets, {agreed} ({outcome.seconds:.1f} s)"
    yield from (f"  {line}" for line in outcome.disagreements[:_SHOWN])
    if wrong > _SHOWN:
        yield f"  and {wrong - _SHOWN} more"
    if wrong:
        yield f"  the least that shows it: {outcome.disagreements[0]}"
        least = [dict(one) for one in outcome.smallest]
        yield from (f"    {line}" for line in yaml.safe_dump_all(least, sort_keys=False).splitlines())
