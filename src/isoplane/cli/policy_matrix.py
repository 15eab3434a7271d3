"""``isoplane policy reach``: the whole matrix as a table, as JSON rows, as a picture.

Large clusters are answered by classes of endpoints that reach and are reached alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import orjson
import typer

from isoplane.cli.policy_inputs import find_port, listed, shown
from isoplane.cli.terminal import DONE
from isoplane.policy import picture
from isoplane.policy.model import Cluster
from isoplane.policy.reach import Port, Reach, ports_of

_PAIRS = 40_000
"""Rows up to which every pair is listed; beyond, classes of equal endpoints answer unless all are asked for."""


def print_reach(cluster: Cluster, wanted: list[str], expand: bool, outside: bool, output: str) -> int:
    """Print who reaches whom on the ports ``wanted``, or all that are declared or named. Raises InputError."""
    ports = [find_port(text, None) for text in wanted] or ports_of(cluster)
    matrix = Reach(cluster, outside=outside)
    names = [someone.name for someone in matrix.parties]
    classes = [[i] for i in range(len(names))]
    if not expand and len(names) ** 2 * len(ports) > _PAIRS:
        classes = matrix.classes(ports)
        typer.echo(f"{len(names)} endpoints in {len(classes)} classes of equal ones; --expand lists pairs", err=True)
    if output == "svg":
        rows = [[_picked(matrix.matrix(*p)[c[0]], classes) for c in classes] for p in ports]
        typer.echo(picture.svg([_class_name(names, c) for c in classes], rows, f"reach: {listed(ports)}"), nl=False)
    elif output == "json":
        _stream(_class_rows(matrix, ports, classes))
    else:
        _print_matrix(matrix, ports, classes)
    return DONE


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
        typer.echo(f"{shown(protocol, number)}  (. reaches, x does not; columns in the order of rows)")
        for n, sources in enumerate(classes):
            marks = "".join(
                " ." if rows[sources[0]] >> (t[-1] if t is sources else t[0]) & 1 else " x" for t in classes
            )
            typer.echo(f"  {n + 1:3} {names[n]:{width}} {marks}")


def _stream(rows: Iterator[dict[str, Any]]) -> None:
    """A JSON list, row by row, so that a large matrix needs no memory of its own."""
    separator = "[\n"
    for row in rows:
        sys.stdout.write(separator + orjson.dumps(row).decode())
        separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")
