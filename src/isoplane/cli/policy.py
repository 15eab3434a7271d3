"""``isoplane policy``: check, reach, explain, diff and render NetworkPolicies from manifests; no plane, no root.

Reads files, calls the pure core, prints.  Exit codes: 0 done, 1 the answer is a finding (blocked, a difference, a
failed check), 2 bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
import yaml

from isoplane.objects.errors import ApiError
from isoplane.policy import addresses, picture, snapshot
from isoplane.policy import check as checks
from isoplane.policy import diff as diffs
from isoplane.policy.attachments import Attachment, NodeNetwork
from isoplane.policy.compile import compile_tables
from isoplane.policy.example import example_node
from isoplane.policy.explain import Explanation, name_of
from isoplane.policy.explain import explain as explain_connection
from isoplane.policy.iptables import render_iptables
from isoplane.policy.model import Cluster, Endpoint
from isoplane.policy.nftables import render_nftables
from isoplane.policy.openflow import render_openflow
from isoplane.policy.reach import Port, Reach, ports_of
from isoplane.policy.rules import OTHER, PORT_PROTOCOLS, PROTOCOLS
from isoplane.policy.table import Tables
from isoplane.policy.universe import primary, short_names
from isoplane.policy.verdict import Judgement, Party, party

app = typer.Typer(
    help="Check, explain and compare NetworkPolicies from manifests, for Pods and virtual machines alike.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

FINDING, BAD_INPUT = 1, 2
_PAIRS = 40_000
"""Rows up to which ``reach`` lists every pair; beyond, classes of equal endpoints answer unless --expand is given."""


class Output(StrEnum):
    json = "json"
    table = "table"


class Picture(StrEnum):
    json = "json"
    table = "table"
    svg = "svg"


class Engine(StrEnum):
    nftables = "nftables"
    iptables = "iptables"
    openflow = "openflow"


Files = Annotated[
    list[str],
    typer.Option("-f", "--filename", help="Manifests: files or directories of YAML or JSON, - for stdin. Repeatable."),
]
More = Annotated[list[str] | None, typer.Argument(metavar="[FILES]...", help="Further manifests, as after -f.")]
OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print the answer.")]


@app.command()
def explain(
    filename: Files,
    source: Annotated[str, typer.Option("--from", help="ns/name, pod/ns/name, vmi/ns/name, vm/ns/name or ip:ADDR.")],
    destination: Annotated[str, typer.Option("--to", help="As --from.")],
    port: Annotated[str, typer.Option("--port", help="N/PROTO such as 443/tcp, a declared port's name, or icmp.")],
    more: More = None,
    output: OutputOption = Output.table,
) -> None:
    """Say whether FROM reaches TO on a port, which policies and rules decide, and what would allow it."""
    with_input(lambda: _explain([*filename, *(more or [])], source, destination, port, output))


def _explain(files: list[str], source: str, destination: str, port: str, output: Output) -> int:
    cluster = load(files)
    ends = _party(cluster, source), _party(cluster, destination)
    protocol, number = _port(port, ends[1])
    answer = explain_connection(cluster, *ends, protocol, number)
    if output is Output.json:
        _json(answer.to_dict())
    else:
        typer.echo("\n".join(_explained(answer)))
    return 0 if answer.verdict.allowed else FINDING


def _explained(answer: Explanation) -> Iterator[str]:
    shown = "ICMP" if answer.protocol == OTHER else f"{answer.port}/{answer.protocol}"
    word = "allowed" if answer.verdict.allowed else "blocked"
    yield f"{answer.source} -> {answer.destination} on {shown}: {word}"
    for name, side in (("egress", answer.verdict.egress), ("ingress", answer.verdict.ingress)):
        yield f"  {name:8} {'allowed' if side.allowed else 'blocked'}: {side.reason}{_deciding(side)}"
    for change in answer.changes:
        yield f"  to allow {change.direction.lower()}: {change.summary}"
        patch = orjson.dumps([dict(step) for step in change.patch]).decode()
        where = "" if change.kind == "ClusterNetworkPolicy" else f" -n {change.policy.partition('/')[0]}"
        name = change.policy.rpartition("/")[2]
        yield f"    kubectl patch {change.kind.lower()}{where} {name} --type=json -p '{patch}'"
    for assumption in answer.assumptions:
        yield f"  assumed: {assumption}"


def _deciding(side: Judgement) -> str:
    listed = side.rules or side.policies
    return f" ({', '.join(listed)})" if listed else ""


@app.command()
def reach(
    filename: Files,
    more: More = None,
    port: Annotated[
        list[str] | None, typer.Option("--port", help="Only these ports, N/PROTO or icmp. Repeatable.")
    ] = None,
    expand: Annotated[bool, typer.Option("--expand", help="List every pair, however many there are.")] = False,
    outside: Annotated[
        bool, typer.Option("--outside", help="Include the outside addresses that policies name.")
    ] = False,
    output: Annotated[Picture, typer.Option("-o", "--output", help="How to print the answer.")] = Picture.table,
) -> None:
    """Print the whole matrix: who reaches whom on the ports that workloads declare and policies name."""
    with_input(lambda: _reach([*filename, *(more or [])], port or [], expand, outside, output))


def _reach(files: list[str], wanted: list[str], expand: bool, outside: bool, output: Picture) -> int:
    cluster = load(files)
    ports = [_port(text, None) for text in wanted] or ports_of(cluster)
    matrix = Reach(cluster, outside=outside)
    names = [someone.name for someone in matrix.parties]
    classes = [[i] for i in range(len(names))]
    if not expand and len(names) ** 2 * len(ports) > _PAIRS:
        classes = matrix.classes(ports)
        typer.echo(f"{len(names)} endpoints in {len(classes)} classes of equal ones; --expand lists pairs", err=True)
    if output is Picture.svg:
        rows = [[_picked(matrix.matrix(*p)[c[0]], classes) for c in classes] for p in ports]
        typer.echo(picture.svg([_class_name(names, c) for c in classes], rows, f"reach: {_listed(ports)}"), nl=False)
    elif output is Picture.json:
        _stream(_class_rows(matrix, ports, classes))
    else:
        _print_matrix(matrix, ports, classes)
    return 0


def _picked(row: int, classes: list[list[int]]) -> int:
    return sum((row >> c[0] & 1) << n for n, c in enumerate(classes))


def _class_name(names: list[str], members: list[int]) -> str:
    return names[members[0]] + (f" (+{len(members) - 1})" if len(members) > 1 else "")


def _class_rows(matrix: Reach, ports: list[Port], classes: list[list[int]]) -> Iterator[dict[str, Any]]:
    """One row for each pair of classes and port; a class is named by its first member and lists the others."""
    names = [someone.name for someone in matrix.parties]
    matrices = [(protocol, number, matrix.matrix(protocol, number)) for protocol, number in ports]
    for sources in classes:
        for targets in classes:
            i, j = sources[0], targets[-1] if sources is targets else targets[0]
            more = {
                key: [names[m] for m in members]
                for key, members in (("fromMembers", sources), ("toMembers", targets))
                if len(members) > 1
            }
            for protocol, number, rows in matrices:
                allowed = bool(rows[i] >> j & 1)
                yield {
                    "from": names[sources[0]],
                    "to": names[targets[0]],
                    "port": number,
                    "protocol": protocol,
                    "allowed": allowed,
                    **more,
                }


def _print_matrix(matrix: Reach, ports: list[Port], classes: list[list[int]]) -> None:
    names = [_class_name([someone.name for someone in matrix.parties], c) for c in classes]
    width = max((len(name) for name in names), default=0)
    for protocol, number in ports:
        rows = matrix.matrix(protocol, number)
        typer.echo(f"{_shown(protocol, number)}  (. reaches, x does not; columns in the order of rows)")
        for n, sources in enumerate(classes):
            marks = "".join(
                " ." if rows[sources[0]] >> (t[-1] if t is sources else t[0]) & 1 else " x" for t in classes
            )
            typer.echo(f"  {n + 1:3} {names[n]:{width}} {marks}")


@app.command()
def diff(
    filename: Files,
    old: Annotated[list[str], typer.Option("--from", help="The manifests before: files or directories. Repeatable.")],
    output: OutputOption = Output.table,
) -> None:
    """Tell what a change of manifests opens and closes: `diff --from OLD -f NEW`; exit code 1 if anything."""
    with_input(lambda: _diff(filename, old, output))


def _diff(new: list[str], old: list[str], output: Output) -> int:
    found = diffs.diff(load(old), load(new))
    if output is Output.json:
        _json(found.to_dict())
    else:
        for line in _changed(found.differences):
            typer.echo(line)
        for names, word in ((found.added, "added"), (found.removed, "removed")):
            for name in names:
                typer.echo(f"  {word}: {name}")
        if not found.differences:
            typer.echo("nothing is opened or closed")
    return FINDING if found.differences else 0


def _changed(differences: Iterable[diffs.Difference]) -> Iterator[str]:
    """One line for each pair: the ports of each protocol, or all."""
    pairs: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for d in differences:
        pairs.setdefault((d.change, d.source, d.destination), {}).setdefault(d.protocol, []).append(d.ports)
    for (change, source, destination), ports in pairs.items():
        told = "; ".join(f"{'ICMP' if p == OTHER else p} {', '.join(listed)}" for p, listed in sorted(ports.items()))
        if len(ports) == len(PROTOCOLS) and all(listed == ["all"] for listed in ports.values()):
            told = "everything"
        yield f"{'+' if change == diffs.OPENED else '-'} {source} -> {destination}: {told}"


@app.command()
def check(filename: Files, more: More = None, output: OutputOption = Output.table) -> None:
    """Find policies that are shadowed, empty, contradictory, without DNS or too wide, and selectors across tenants."""
    with_input(lambda: _check([*filename, *(more or [])], output))


def _check(files: list[str], output: Output) -> int:
    cluster = load(files)
    found = checks.check(cluster)
    if output is Output.json:
        _json([finding.to_dict() for finding in found])
    else:
        for finding in found:
            typer.echo(f"{finding.severity}: {finding.policy} {finding.path}: {finding.message} [{finding.code}]")
        if not found:
            count = len(cluster.policies) + len(cluster.cluster_policies)
            typer.echo(f"{count} policies, nothing to remark")
    return FINDING if any(finding.severity == checks.WARNING for finding in found) else 0


@app.command()
def render(
    filename: Files,
    more: More = None,
    engine: Annotated[Engine, typer.Option("--engine", help="Whose text to print.")] = Engine.nftables,
    output: OutputOption = Output.table,
) -> None:
    """Print the rules that an engine would load for a node that runs all of these workloads.

    Workloads without an address get one from 198.18.0.0/15 (set aside for tests), and every one an interface or port.
    """
    with_input(lambda: _render([*filename, *(more or [])], engine, output))


def _render(files: list[str], engine: Engine, output: Output) -> int:
    addressed, attachments, node = example_node(load(files), bridge=engine is Engine.openflow)
    tables = compile_tables(addressed)
    renderers = {Engine.nftables: render_nftables, Engine.iptables: _iptables, Engine.openflow: render_openflow}
    text = renderers[engine](tables, attachments, node)
    if output is Output.json:
        listed = [
            {"endpoint": a.endpoint, "ips": list(a.ips), "interface": a.interface, "ofport": a.ofport}
            for a in attachments
        ]
        _json({"engine": engine.value, "revision": tables.revision, "attachments": listed, "text": text})
        return 0
    for a in attachments:
        where = f"port {a.ofport}" if a.ofport else a.interface
        typer.echo(f"# {a.endpoint} {', '.join(a.ips)} {where}")
    typer.echo(text, nl=False)
    return 0


def _iptables(tables: Tables, attachments: Iterable[Attachment], node: NodeNetwork) -> str:
    """The four texts one after the other, each under the tool that takes it."""
    steps = render_iptables(tables, attachments, node)
    tools = ("ipset restore", "iptables-restore --noflush", "ip6tables-restore --noflush", "ipset restore")
    texts = (steps.before, steps.v4, steps.v6, steps.after)
    return "".join(f"# {n}. {tool}\n{text}" for n, (tool, text) in enumerate(zip(tools, texts, strict=True), start=1))


def with_input(run: Callable[[], int]) -> NoReturn:
    """Run a command; wrong input is told on stderr, one cause a line, and ends with exit code 2."""
    try:
        code = run()
    except ApiError as error:
        typer.echo(f"error: {error.message}", err=True)
        raise typer.Exit(BAD_INPUT) from error
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from error
    raise typer.Exit(code)


class InputError(Exception):
    """What the user gave cannot be used; the message says what and where."""


def load(files: list[str]) -> Cluster:
    """The snapshot that files, directories and stdin describe together."""
    objects = [obj for name in files for obj in _objects(name)]
    try:
        return snapshot.from_objects(objects)
    except (TypeError, AttributeError, KeyError) as error:
        raise InputError(f"a manifest has an unexpected shape: {error}") from error


def _objects(name: str) -> Iterator[dict[str, Any]]:
    if name == "-":
        yield from _documents("stdin", sys.stdin.buffer.read())
        return
    path = Path(name)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json") and p.is_file())
        if not found:
            raise InputError(f"{name}: no .yaml, .yml or .json file in this directory")
        for each in found:
            for obj in _read(each):
                if obj.get("kind") and obj.get("apiVersion"):
                    yield obj
                else:
                    typer.echo(f"{each}: passed over, not a Kubernetes object", err=True)
        return
    yield from _read(path)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    yield from _documents(str(path), content)


def _documents(name: str, content: bytes) -> Iterator[dict[str, Any]]:
    try:
        for number, document in enumerate(yaml.load_all(content, Loader=yaml.CSafeLoader), start=1):
            if document is None:
                continue
            if not isinstance(document, dict):
                raise InputError(f"{name}: document {number} is not an object with apiVersion, kind and metadata")
            yield document
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: {error}") from error


def _party(cluster: Cluster, written: str) -> Party:
    """The end that a reference means. Raises InputError when there is none, or more than one."""
    if written.startswith("ip:"):
        try:
            family, number = addresses.address(written[3:])
        except ValueError as error:
            raise InputError(f"{written!r}: {error}") from error
        return party(cluster, addresses.text(family, number))
    parts = written.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InputError(f"{written!r} is not ns/name, pod/ns/name, vmi/ns/name, vm/ns/name or ip:ADDR")
    found = [e for e in cluster.endpoints if (e.namespace, e.name) == tuple(parts[-2:])]
    if len(parts) == 3:
        kinds = ("vm", "vmi") if parts[0] in ("vm", "vmi") else (parts[0],)  # a VM and its instance are one
        found = [e for e in found if e.kind in kinds]
    if len(found) > 1:
        raise InputError(f"{written!r} is ambiguous: {', '.join(e.id for e in found)}")
    if not found:
        raise InputError(f"no workload {written!r} in the manifests{_near(cluster, parts[-1])}")
    return primary(found[0])


def _near(cluster: Cluster, name: str) -> str:
    names = short_names(cluster.endpoints)
    near = sorted(names[e.id] for e in cluster.endpoints if name in e.name or e.name in name)
    return f"; did you mean {', '.join(near[:3])}?" if near else f"; there are {len(names)} workloads"


def _port(written: str, target: Party | None) -> Port:
    """(protocol, number) from N/PROTO, N (TCP), icmp, or a name that the target declares."""
    text, _, protocol = written.partition("/")
    if written.lower() in ("icmp", "icmpv6"):
        return OTHER, 0
    wanted = (protocol or "TCP").upper()
    if wanted not in PORT_PROTOCOLS:
        raise InputError(f"--port {written!r}: {protocol!r} is not one of tcp, udp, sctp")
    if text.isdecimal() and 1 <= int(text) <= 65535:
        return wanted, int(text)
    endpoint: Endpoint | None = target.endpoint if target else None
    declared = (
        [p for p in endpoint.ports if p.name == text and (not protocol or p.protocol == wanted)] if endpoint else []
    )
    if not text.lstrip("-").isdecimal() and len(declared) == 1:
        return declared[0].protocol, declared[0].number
    if text and not text.lstrip("-").isdecimal() and target is not None:
        raise InputError(f"--port {written!r}: {name_of(target)} does not declare exactly one such port; write N/PROTO")
    raise InputError(f"--port {written!r} is not N/PROTO with a number between 1 and 65535, such as 443/tcp")


def _shown(protocol: str, number: int) -> str:
    return "ICMP" if protocol == OTHER else f"{number}/{protocol}"


def _listed(ports: list[Port]) -> str:
    return ", ".join(_shown(*port) for port in ports)


def _json(value: object) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _stream(rows: Iterator[dict[str, Any]]) -> None:
    """A JSON list, row by row, so that a large matrix needs no memory of its own."""
    separator = "[\n"
    for row in rows:
        sys.stdout.write(separator + orjson.dumps(row).decode())
        separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")


if __name__ == "__main__":
    app()
