"""``isoplane quota``: what a quota would admit, whom it would evict, and why; from manifests, or beside a live plane.

Reads files, calls the same decision as the server, prints.  Exit codes: 0 everything is admitted, 1 something waits or is
refused, 2 bad input.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from isoplane.cli.manifests import ManifestError, read
from isoplane.cli.terminal import FINDING, Output, command_line, fail, say
from isoplane.client.http import HttpApi
from isoplane.client.kubeconfig import load
from isoplane.client.problems import KubeconfigProblem
from isoplane.objects.defaults import apply_defaults
from isoplane.objects.errors import ApiError, NotFound
from isoplane.objects.kinds import (
    COHORTS,
    CONFIGMAPS,
    NODES,
    PODDISRUPTIONBUDGETS,
    PRIORITYCLASSES,
    QUOTAPOLICIES,
    QUOTAUSAGES,
    RESOURCEQUOTAS,
    SECRETS,
    TENANTQUOTAS,
    VIRTUALMACHINEINSTANCES,
    VIRTUALMACHINES,
)
from isoplane.objects.metadata import Object
from isoplane.objects.validation import validate
from isoplane.quota import explain as words
from isoplane.quota.model import Admit
from isoplane.quota.offline import Answer, Unreadable, answers, describe, namespace_of, resource_of
from isoplane.quota.outlook_words import outlook_data, outlook_rows
from isoplane.workload.bodies import without_bodies
from isoplane.workload.registry import workload_resources

app = command_line("Explain what a quota would admit, whom it would evict, and why.", group=True)

LOOKED_AT = (
    RESOURCEQUOTAS,
    TENANTQUOTAS,
    QUOTAPOLICIES,
    COHORTS,
    NODES,
    PRIORITYCLASSES,
    PODDISRUPTIONBUDGETS,
    QUOTAUSAGES,
    CONFIGMAPS,
    SECRETS,
)
"""What a live answer reads beside the workloads."""
HALTED = ("Halted", "Manual", "WaitAsReceiver")
"""Run strategies under which a VirtualMachine does not start its instance by itself."""


@app.callback()
def _group() -> None:
    """Explain what a quota would admit, whom it would evict, and why."""


@app.command()
def explain(
    filename: Annotated[
        list[str],
        typer.Option("-f", "--filename", help="What is to be created: files or directories, - for stdin. Repeatable."),
    ],
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="What is there already: quotas, policies, classes, workloads. Repeatable."),
    ] = None,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[FILES]...", help="More files, as after --state.")
    ] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", help="Take what is there from a running plane or cluster instead.")
    ] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="How to print the answer.")] = Output.TABLE,
) -> None:
    """Say what would happen to each object of FILE: admitted, waiting (for whom), or refused (what is short by how much)."""
    try:
        there = prepared([*(state or []), *(more or [])])
        if kubeconfig is not None:
            there += asyncio.run(live(kubeconfig))
        found = answers(there, prepared(filename), time.time())
    except (ManifestError, Unreadable, KubeconfigProblem, OSError) as error:
        fail(str(error))
    except ApiError as error:
        fail(f"{kubeconfig}: {error.message}")
    if not found:
        fail(
            f"nothing in {', '.join(filename)} is what a quota looks at; give a Pod, a VirtualMachine or an instance of one"
        )
    if output is Output.JSON:
        typer.echo(orjson.dumps([_data(a) for a in found], option=orjson.OPT_INDENT_2))
    else:
        now = time.time()
        typer.echo("\n".join(_text(answer, now) for answer in found))
    raise typer.Exit(0 if all(admitted(answer) for answer in found) else FINDING)


def _data(answer: Answer) -> dict[str, Any]:
    told = words.data(answer.ask, answer.decision, answer.standing)
    return told if answer.outlook is None else {**told, **outlook_data(answer.ask.charge, answer.outlook)}


def _text(answer: Answer, now: float) -> str:
    told = words.text(answer.ask, answer.decision, answer.standing, now)
    rows = [] if answer.outlook is None else outlook_rows(answer.ask.charge, answer.outlook)
    return "\n".join([told, *rows])


def admitted(answer: Answer) -> bool:
    return isinstance(answer.decision, Admit)


def prepared(sources: Iterable[str]) -> list[Object]:
    """The objects of the files, defaulted and checked as the server would, each running VM with its instance.

    Raises ManifestError, Unreadable.
    """
    objects = read(sources, tell=say)
    for obj in objects:
        resource = resource_of(obj)
        obj.setdefault("metadata", {})
        if resource.namespaced:
            obj["metadata"]["namespace"] = namespace_of(obj)
        if resource.computed:
            continue
        try:
            apply_defaults(resource, obj)
            causes = validate(resource, obj)
        except ApiError as error:
            raise Unreadable(f"{describe(obj)}: {error.message}") from error
        if causes:
            raise Unreadable(f"{describe(obj)}: {'; '.join(f'{c.field}: {c.message}' for c in causes)}")
    objects = without_bodies(objects)
    return [*objects, *instances(objects)]


async def live(path: Path) -> list[Object]:
    """Everything that quota looks at, from the API server of a kubeconfig. Raises ApiError, KubeconfigProblem, OSError."""
    async with HttpApi(load(path)) as api:
        found: list[Object] = []
        for resource in (*LOOKED_AT, *workload_resources()):
            try:
                page = await api.list(resource)
            except NotFound:
                continue  # A cluster without isoplane, or without KubeVirt, does not serve them all.
            # Items of a list need not say what they are.
            kind = {"apiVersion": resource.api_version, "kind": resource.kind}
            found += [{**kind, **item} for item in page.items]
        return without_bodies(found)


def instances(objects: Iterable[Object]) -> list[Object]:
    """The instances that the running VMs among ``objects`` would have, where they are not among them already."""
    from isoplane.controllers.virtualmachine_plan import instance_of, run_strategy

    everything = list(objects)
    known = {
        (namespace_of(obj), obj["metadata"].get("name"))
        for obj in everything
        if resource_of(obj) is VIRTUALMACHINEINSTANCES
    }
    found = []
    for obj in everything:
        key = (namespace_of(obj), obj["metadata"].get("name"))
        if resource_of(obj) is VIRTUALMACHINES and run_strategy(obj) not in HALTED and key not in known:
            instance = instance_of(obj)
            apply_defaults(VIRTUALMACHINEINSTANCES, instance)
            found.append(instance)
    return found
