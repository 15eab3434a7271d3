"""What the policy commands work on: a snapshot from manifests or a running cluster, and the ends and ports people write.

Exit codes: 0 done, 1 the answer is a finding (blocked, a difference, a failed check), 2 bad input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from isoplane.cli import manifests
from isoplane.cli.manifests import ManifestError
from isoplane.cli.terminal import BAD_INPUT, fail, say
from isoplane.client.problems import KubeconfigProblem
from isoplane.objects.errors import ApiError
from isoplane.policy import addresses, snapshot
from isoplane.policy.explain import name_of
from isoplane.policy.foreign import Unjudged
from isoplane.policy.model import Cluster, Endpoint
from isoplane.policy.reach import Port
from isoplane.policy.rules import OTHER, PORT_PROTOCOLS
from isoplane.policy.snapshot import Snapshot
from isoplane.policy.universe import primary, short_names
from isoplane.policy.verdict import Party, party

Files = Annotated[
    list[str] | None,
    typer.Option("-f", "--filename", help="Manifests: files or directories of YAML or JSON, - for stdin. Repeatable."),
]
Recursive = Annotated[
    bool, typer.Option("-R", "--recursive", help="Read the directories inside the directories given, too.")
]
More = Annotated[list[str] | None, typer.Argument(metavar="[FILES]...", help="Further manifests, as after -f.")]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig", help="Start from what a running plane or cluster has; manifests replace or add to it."
    ),
]


class InputError(Exception):
    """What the user gave cannot be used; the message says what and where."""


def with_input(run: Callable[[], int]) -> NoReturn:
    """Run a command; wrong input is told on stderr and ends with exit code 2."""
    try:
        code = run()
    except ApiError as error:
        fail(error.message)
    except BrokenPipeError:
        raise  # Whoever reads the answer has had enough: no fault of the input.
    except (InputError, ManifestError, KubeconfigProblem, OSError) as error:
        fail(str(error))
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the objects come from: files, a running cluster, or files on top of a cluster."""

    files: tuple[str, ...]
    kubeconfig: Path | None = None
    recursive: bool = False

    @classmethod
    def of(
        cls, files: Iterable[str] | None, more: Iterable[str] | None, kubeconfig: Path | None, recursive: bool = False
    ) -> Source:
        """Raises InputError when nothing is given."""
        listed = (*(files or ()), *(more or ()))
        if not listed and kubeconfig is None:
            raise InputError(
                "nothing to look at: give manifests with -f FILE, or a running cluster with --kubeconfig FILE"
            )
        return cls(listed, kubeconfig, recursive)

    def snapshot(self) -> Snapshot:
        """What there is. Raises InputError, ManifestError, ApiError, KubeconfigProblem, OSError."""
        read = manifests.located(self.files, recursive=self.recursive, tell=say)
        objects = [manifest.obj for manifest in read]
        if self.kubeconfig is None:
            return snapshot_of(objects, read)
        from isoplane.cli import policy_live  # with HTTP and TLS, which manifests need not wait for

        live, missed = policy_live.fetch(self.kubeconfig)
        found = snapshot_of(policy_live.overlay(live, objects), read)
        return replace(found, unjudged=(*found.unjudged, *missed))

    @property
    def live(self) -> bool:
        return self.kubeconfig is not None


def snapshot_of(objects: Iterable[Mapping[str, Any]], read: Iterable[manifests.Manifest] = ()) -> Snapshot:
    """The snapshot; what is wrong is told with the file of ``read`` that it stands in. Raises InputError."""
    try:
        found = snapshot.read(objects)
    except snapshot.Unreadable as error:
        places = manifests.places(read, error.objects)
        where = f"{' and '.join(places)}: " if places else ""
        raise InputError(f"{where}{error.message}{manifests.hint(error.message)}") from error
    for remark in found.remarks:
        say(remark)
    return found


def answer(source: Source, run: Callable[[Cluster], int]) -> int:
    """Answer from the whole snapshot; 2 when policies that are not judged were left out of the answer."""
    found = source.snapshot()
    return unless_unjudged(found.unjudged, run(found.cluster))


def unless_unjudged(left_out: Iterable[Unjudged], code: int) -> int:
    """Name on stderr every policy that the answer is without; the exit code is then 2."""
    named = list(left_out)
    for policy in named:
        say(f"isoplane: not judged: {policy.id}{f' ({policy.why})' if policy.why else ''}")
    if named:
        say("isoplane: the answer is without these policies: only NetworkPolicy (networking.k8s.io/v1) and "
            "ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) are judged")  # fmt: skip
    return BAD_INPUT if named else code


def with_workloads(cluster: Cluster) -> Cluster:
    """Raises InputError when there is nobody to answer about."""
    if not cluster.endpoints:
        raise InputError("no workload found: give the manifests of the Pods, VMs, Deployments… as well")
    return cluster


def find_party(cluster: Cluster, written: str) -> Party:
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
        raise InputError(f"no workload {written!r}{_near(cluster, parts[-1])}")
    return primary(found[0])


def _near(cluster: Cluster, name: str) -> str:
    names = short_names(cluster.endpoints)
    near = sorted(names[e.id] for e in cluster.endpoints if name in e.name or e.name in name)
    return f"; did you mean {', '.join(near[:3])}?" if near else f"; there are {len(names)} workloads"


def find_port(written: str, target: Party | None) -> Port:
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


def shown(protocol: str, number: int) -> str:
    return "ICMP" if protocol == OTHER else f"{number}/{protocol}"


def listed(ports: list[Port]) -> str:
    return ", ".join(shown(*port) for port in ports)
