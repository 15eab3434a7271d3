"""``isoplane policy``: check, reach, explain, diff and render NetworkPolicies, from manifests or beside a running plane.

Takes a snapshot (``policy_inputs``), calls the pure core, prints.  From manifests it needs no plane, and never root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from isoplane.cli.policy_inputs import (
    Files,
    InputError,
    Kubeconfig,
    More,
    Recursive,
    Source,
    answer,
    find_party,
    find_port,
    unless_unjudged,
    with_input,
    with_workloads,
)
from isoplane.cli.terminal import DONE, FINDING, Output, command_line, say
from isoplane.policy.explain import Explanation
from isoplane.policy.explain import explain as explain_connection
from isoplane.policy.foreign import could_select
from isoplane.policy.model import Cluster
from isoplane.policy.rules import OTHER, PROTOCOLS
from isoplane.policy.verdict import Judgement

if TYPE_CHECKING:
    from isoplane.cli.policy_hits import RuleRow
    from isoplane.cli.policy_live import Enforcement
    from isoplane.policy.diff import Difference
    from isoplane.policy.interfaces import EndpointInterface, NodeNetwork
    from isoplane.policy.table import Tables

# Each command imports what it alone needs when it runs: three manifests are explained before HTTP and TLS are loaded.
app = command_line(
    "Explain, compare and check NetworkPolicies for Pods and virtual machines alike, offline or live.", group=True
)


class Picture(StrEnum):
    """``--output`` of the matrix."""

    JSON = "json"
    TABLE = "table"
    SVG = "svg"


class Engine(StrEnum):
    """``--engine``."""

    NFTABLES = "nftables"
    IPTABLES = "iptables"
    OPENFLOW = "openflow"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print the answer.")]


@app.command()
def explain(
    source: Annotated[str, typer.Option("--from", help="ns/name, pod/ns/name, vmi/ns/name, vm/ns/name or ip:ADDR.")],
    destination: Annotated[str, typer.Option("--to", help="As --from.")],
    port: Annotated[str, typer.Option("--port", help="N/PROTO such as 443/tcp, a declared port's name, or icmp.")],
    filename: Files = None,
    more: More = None,
    kubeconfig: Kubeconfig = None,
    recursive: Recursive = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether FROM reaches TO on a port, which policies and rules decide, and what would allow it."""
    with_input(lambda: _explain(Source.of(filename, more, kubeconfig, recursive), source, destination, port, output))


def _explain(given: Source, source: str, destination: str, port: str, output: Output) -> int:
    found = given.snapshot()
    cluster = with_workloads(found.cluster)
    ends = find_party(cluster, source), find_party(cluster, destination)
    protocol, number = find_port(port, ends[1])
    told = explain_connection(cluster, *ends, protocol, number)
    governed = [end.endpoint for end in ends if end.endpoint is not None]
    # Of a running cluster only what may concern the two ends; of manifests, all that were given to be looked at.
    left_out = [p for p in found.unjudged if not given.live or could_select(p, governed, cluster)]
    if output is Output.JSON:
        _json({**told.to_dict(), "notJudged": [policy.to_dict() for policy in left_out]})
    else:
        typer.echo("\n".join(_explained(told)))
    return unless_unjudged(left_out, DONE if told.verdict.allowed else FINDING)


def _explained(answer: Explanation) -> Iterator[str]:
    shown = "ICMP" if answer.protocol == OTHER else f"{answer.port}/{answer.protocol}"
    word = "allowed" if answer.verdict.allowed else "blocked"
    if answer.port_name:
        shown = f"{shown} ({answer.port_name})"
    yield f"{answer.source} -> {answer.destination} on {shown}: {word}"
    for name, side in (("egress", answer.verdict.egress), ("ingress", answer.verdict.ingress)):
        yield f"  {name:8} {'allowed' if side.allowed else 'blocked'}: {side.reason}{_deciding(side)}"
    for change in answer.changes:
        yield f"  to allow {change.direction.lower()}: {change.summary}"
        patch = orjson.dumps([dict(step) for step in change.patch]).decode()
        where = "" if change.kind == "ClusterNetworkPolicy" else f" -n {change.policy.partition('/')[0]}"
        name = change.policy.rpartition("/")[2]
        yield f"    kubectl patch {change.kind.lower()}{where} {name} --type=json -p '{patch}'"
    if answer.also_opens:
        yield "  also opens:"
        yield from (f"    {line}" for line in _changed(answer.also_opens))
    elif answer.changes:
        yield "  opens nothing else"
    for line in answer.named:
        yield f"  named: {line}"
    for assumption in answer.assumptions:
        yield f"  assumed: {assumption}"


def _deciding(side: Judgement) -> str:
    listed = side.rules or side.policies
    return f" ({', '.join(listed)})" if listed else ""


@app.command()
def reach(
    filename: Files = None,
    more: More = None,
    kubeconfig: Kubeconfig = None,
    recursive: Recursive = False,
    port: Annotated[
        list[str] | None, typer.Option("--port", help="Only these ports, N/PROTO or icmp. Repeatable.")
    ] = None,
    expand: Annotated[bool, typer.Option("--expand", help="List every pair, however many there are.")] = False,
    outside: Annotated[
        bool, typer.Option("--outside", help="Include the outside addresses that policies name.")
    ] = False,
    output: Annotated[Picture, typer.Option("-o", "--output", help="How to print the answer.")] = Picture.TABLE,
) -> None:
    """Print the whole matrix: who reaches whom on the ports that workloads declare and policies name."""
    from isoplane.cli.policy_matrix import print_reach

    with_input(
        lambda: answer(
            Source.of(filename, more, kubeconfig, recursive),
            lambda cluster: print_reach(with_workloads(cluster), port or [], expand, outside, output.value),
        )
    )


@app.command()
def diff(
    filename: Files = None,
    old: Annotated[
        list[str] | None, typer.Option("--from", help="The manifests before: files or directories. Repeatable.")
    ] = None,
    kubeconfig: Kubeconfig = None,
    recursive: Recursive = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell what a change opens and closes: `diff --from OLD -f NEW`, or `diff --kubeconfig FILE -f NEW` for what
    applying NEW to a running plane would; exit code 1 if anything.
    """
    with_input(lambda: _diffed(old, filename, kubeconfig, recursive, output))


def _diffed(
    old: list[str] | None, new: list[str] | None, kubeconfig: Path | None, recursive: bool, output: Output
) -> int:
    """Before and after; both on top of the running cluster when there is one."""
    if not new:
        raise InputError("nothing to compare with: give the manifests after the change with -f FILE")
    if not old and kubeconfig is None:
        raise InputError("nothing to compare: give what there was before, with --from FILE or --kubeconfig FILE")
    before, after = (Source.of(files, None, kubeconfig, recursive).snapshot() for files in (old, new))
    if not before.cluster.endpoints and not after.cluster.endpoints:
        raise InputError(
            "no workloads on either side, so there is nobody for whom a policy could open or close anything: give the "
            "manifests of the workloads as well, on both sides"
        )
    left_out = {policy.id: policy for policy in (*before.unjudged, *after.unjudged)}
    return unless_unjudged(left_out.values(), _diff(before.cluster, after.cluster, output))


def _diff(before: Cluster, after: Cluster, output: Output) -> int:
    from isoplane.policy.diff import diff as compare

    found = compare(before, after)
    if output is Output.JSON:
        _json(found.to_dict())
    else:
        for line in _changed(found.differences):
            typer.echo(line)
        for names, word in ((found.added, "added"), (found.removed, "removed")):
            for name in names:
                typer.echo(f"  {word}: {name}")
        if not found.differences:
            typer.echo("nothing is opened or closed")
    return FINDING if found.differences else DONE


def _changed(differences: Iterable[Difference]) -> Iterator[str]:
    """One line for each pair: the ports of each protocol, or all."""
    from isoplane.policy.diff import OPENED

    pairs: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for d in differences:
        pairs.setdefault((d.change, d.source, d.destination), {}).setdefault(d.protocol, []).append(d.ports)
    for (change, source, destination), ports in pairs.items():
        told = "; ".join(f"{'ICMP' if p == OTHER else p} {', '.join(listed)}" for p, listed in sorted(ports.items()))
        if len(ports) == len(PROTOCOLS) and all(listed == ["all"] for listed in ports.values()):
            told = "everything"
        yield f"{'+' if change == OPENED else '-'} {source} -> {destination}: {told}"


@app.command()
def check(
    filename: Files = None,
    more: More = None,
    kubeconfig: Kubeconfig = None,
    recursive: Recursive = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Find policies that are shadowed, empty, contradictory, without DNS or too wide, and selectors across tenants."""
    with_input(
        lambda: answer(Source.of(filename, more, kubeconfig, recursive), lambda cluster: _check(cluster, output))
    )


def _check(cluster: Cluster, output: Output) -> int:
    from isoplane.policy import check as checks

    if not cluster.policies and not cluster.cluster_policies:
        with_workloads(cluster)
    found = checks.check(cluster)
    if output is Output.JSON:
        _json([finding.to_dict() for finding in found])
    else:
        for finding in found:
            typer.echo(f"{finding.severity}: {finding.policy} {finding.path}: {finding.message} [{finding.code}]")
        if not found:
            count = len(cluster.policies) + len(cluster.cluster_policies)
            typer.echo(f"{count} policies, nothing to remark")
    return FINDING if any(finding.severity == checks.WARNING for finding in found) else DONE


@app.command()
def render(
    filename: Files = None,
    more: More = None,
    kubeconfig: Kubeconfig = None,
    recursive: Recursive = False,
    engine: Annotated[Engine, typer.Option("--engine", help="Whose text to print.")] = Engine.NFTABLES,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print the rules that an engine would load for a node that runs all of these workloads.

    Workloads without an address get one from 198.18.0.0/15 (set aside for tests), and every one an interface or port.
    """
    with_input(
        lambda: answer(
            Source.of(filename, more, kubeconfig, recursive), lambda cluster: _render(cluster, engine, output)
        )
    )


def _render(cluster: Cluster, engine: Engine, output: Output) -> int:
    from isoplane.policy.compile import compile_tables
    from isoplane.policy.example import example_node
    from isoplane.policy.nftables import render_nftables
    from isoplane.policy.openflow import render_openflow

    addressed, interfaces, node = example_node(with_workloads(cluster), bridge=engine is Engine.OPENFLOW)
    tables = compile_tables(addressed)
    renderers = {Engine.NFTABLES: render_nftables, Engine.IPTABLES: _iptables, Engine.OPENFLOW: render_openflow}
    text = renderers[engine](tables, interfaces, node)
    if output is Output.JSON:
        listed = [
            {"endpoint": a.endpoint, "ips": list(a.ips), "interface": a.device, "ofport": a.ofport} for a in interfaces
        ]
        _json({"engine": engine.value, "revision": tables.revision, "interfaces": listed, "text": text})
        return DONE
    for a in interfaces:
        where = f"port {a.ofport}" if a.ofport else a.device
        typer.echo(f"# {a.endpoint} {', '.join(a.ips)} {where}")
    typer.echo(text, nl=False)
    return DONE


def _iptables(tables: Tables, interfaces: Iterable[EndpointInterface], node: NodeNetwork) -> str:
    """The four texts one after the other, each under the tool that takes it."""
    from isoplane.policy.iptables import render_iptables

    steps = render_iptables(tables, interfaces, node)
    tools = ("ipset restore", "iptables-restore --noflush", "ip6tables-restore --noflush", "ipset restore")
    texts = (steps.before, steps.v4, steps.v6, steps.after)
    return "".join(f"# {n}. {tool}\n{text}" for n, (tool, text) in enumerate(zip(tools, texts, strict=True), start=1))


@app.command()
def status(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            "--kubeconfig", help="Which API server.", show_default="$KUBECONFIG, else that of the data directory"
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say for every workload of a running plane whether its policies are enforced, at which revision and since when.

    Exit code 1 when one that has a place in the network is not enforced. On a simulated plane nothing is, and on Kubernetes
    its network plugin enforces: that is said, and the exit code is 0.
    """
    from isoplane.cli.policy_live import enforcement

    with_input(lambda: _status(enforcement(kubeconfig), output))


def _status(found: Enforcement, output: Output) -> int:
    rows = found.rows
    if found.notice:
        say(found.notice)
    if output is Output.JSON:
        _json([row.to_dict() for row in rows])
    else:
        heads = ("WORKLOAD", "NODE", "STATE", "REVISION", "SINCE")
        _columns(
            [
                heads,
                *((row.workload, row.node or "-", row.state, row.revision or "-", row.since or "-") for row in rows),
            ]
        )
        for row in rows:
            if row.lacking and row.message:
                typer.echo(f"{row.workload}: {row.message}", err=True)
    return FINDING if any(row.lacking for row in rows) else DONE


def _columns(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    for line in lines:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


@app.command()
def hits(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            "--kubeconfig", help="Which API server.", show_default="$KUBECONFIG, else that of the data directory"
        ),
    ] = None,
    never: Annotated[bool, typer.Option("--never", help="Only rules that no engine has seen decide.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say for every rule of a running plane how many connections it decided since the plane began, on each engine.

    Counted are first packets, at most some seconds ago; a connection between two engines' workloads is counted by both.
    """
    from isoplane.cli.policy_hits import fetch

    with_input(lambda: _hits(*fetch(kubeconfig), never, output))


def _hits(rows: list[RuleRow], left_out: int, never: bool, output: Output) -> int:
    shown = [row for row in rows if row.never or not never]
    if output is Output.JSON:
        _json([row.to_dict() for row in shown])
    else:
        from isoplane.cli.policy_hits import table

        _columns(list(table(shown)))
    if left_out:
        typer.echo(f"{left_out} more rules are not told", err=True)
    return DONE


@app.command()
def verify(
    filename: Files = None,
    more: More = None,
    recursive: Recursive = False,
    engines: Annotated[
        list[str] | None,
        typer.Option(
            "--engines",
            help="Only this choice: nftables-and-openvswitch, iptables-and-openvswitch, nftables, iptables or openvswitch. "
            "Repeatable.",
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send real packets between stand-ins for the workloads, through every engine of this host, and compare each with
    what the policies say; as root. Without files: the founding example.

    Exit code 1 when a packet disagrees or a choice of engines could not be tried.
    """
    # Imported here: nothing else of these commands needs what a node needs.
    from isoplane.cli.policy_verify import print_verified

    files = [*(filename or []), *(more or [])]
    with_input(lambda: print_verified(files, engines or [], recursive, output))


def _json(value: object) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    app()
