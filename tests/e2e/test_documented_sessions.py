"""What the pages tell people to type is typed here, page by page and in order, on a real plane of this host."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from documented_support import Step, steps
from isoplane.node.images.build import Entry, write_layout
from isoplane.node.images.demo import build_demo
from plane_support import wait_until
from qemu_support import CACHE, guest_store
from support import HOST_TOOLS, require

ROOT = Path(__file__).parents[2]
DATA = "/var/lib/isoplane"
APPLY = "kubectl apply " + " ".join(
    f"-f examples/01-pod-and-vm/{name}.yaml" for name in ("00-namespace", "10-pod", "20-vmi", "30-vm")
)
READY = "kubectl wait --for=condition=Ready pod/web vmi/guest vmi/keeper -n shop --timeout=120s"
PAGES = [
    "README.md",
    "docs/guides/getting-started.md",
    "docs/guides/images.md",
    "docs/guides/virtual-machines.md",
    "docs/guides/network-policy.md",
    "docs/guides/metrics.md",
    "docs/guides/operations.md",
]
SAME = {"README.zh-CN.md": "README.md"}
"""Pages with the very commands of another."""
NOT_HERE = {
    "make demo": "test_demos.py runs what it runs; test_setup.py the set-up",
    "make test": "this is it",
    "make setup": "test_setup.py",
    "make format": "`make test` checks what it would change",
    "make fast": "a part of `make test`",
    "isoplane backup /var/backups/isoplane-1.db": "test_backup.py does, to a directory of its own",
    "isoplane restore /var/backups/isoplane-1.db": "test_backup.py does, from a directory of its own",
    "isoplane rotate-key": "test_secrets_at_rest.py does",
    "make bench": "takes an hour of a quiet machine",
    "python -m bench pod_start": "takes minutes of a quiet machine",
    "sudo .venv/bin/python -m bench datapath": "takes eighteen minutes of a quiet machine",
    "sudo .venv/bin/python -m bench datapath_guest": "takes a quarter of an hour of a quiet machine",
    ".venv/bin/python bench/datapath_picture.py": "draws what the one before measured",
    "git clone … isoplane && cd isoplane": "has no address yet",
    ".venv/bin/python -m pytest tests/unit/quota -q": "`make test` runs them all",
    ".venv/bin/mypy src/isoplane/quota": "`make test` runs it on everything",
    "isoplane image load registry.example:5000/team/app:1": "test_oci_images.py loads from a registry on loopback",
    "sudo isoplane policy verify": "test_policy_verify.py",
}
"""Commands that are not typed, each with its reason."""
EXCUSED = {
    "docs/guides/service.md": "installs for good, in places of the host; test_wheel.py, test_cli_up.py and "
    "test_cli_terminal.py try its commands",
    "docs/guides/on-your-cluster.md": "needs a cluster beside the plane; tests/kubernetes/test_operator.py and "
    "test_aggregated_api.py do what it says",
}
"""Pages that are not followed, each with its reason."""
FIRST = {
    ("docs/guides/getting-started.md", "kubectl get workloads -A"): ["isoplane up", APPLY, READY],
    ("docs/guides/virtual-machines.md", "isoplane vm stop keeper -n shop"): ["isoplane up", APPLY, READY],
    ("docs/guides/virtual-machines.md", "isoplane vm start keeper -n shop"): [
        "kubectl wait --for=delete vmi/keeper -n shop --timeout=60s"
    ],
    ("docs/guides/virtual-machines.md", "isoplane vm restart keeper -n shop"): [
        "kubectl wait --for=condition=Ready vm/keeper -n shop --timeout=60s"
    ],
    ("docs/guides/virtual-machines.md", "isoplane vm pause keeper -n shop"): [
        "kubectl wait --for=condition=Ready vm/keeper -n shop --timeout=60s"
    ],
    ("docs/guides/network-policy.md", "isoplane policy diff --kubeconfig ~/.kube/config "
     "-f examples/03-tenant-isolation/corrected"): [
        "isoplane up", "kubectl apply -f examples/03-tenant-isolation/workloads.yaml",
    ],
    ("docs/guides/network-policy.md", "isoplane policy status"): [
        "kubectl wait --for=condition=NetworkPolicyEnforced pod --all -A --timeout=60s",
        "kubectl wait --for=condition=NetworkPolicyEnforced vmi --all -A --timeout=60s",
    ],
    ("docs/guides/metrics.md", "kubectl get --raw /metrics"): ["isoplane up"],
}  # fmt: skip
"""What a page's reader has done by then."""
FINDINGS = re.compile(r"isoplane policy (explain|check|diff) ")
"""Whose answer in the guides is a finding: exit code 1."""
UNSTABLE = {"AGE", "NODE", "IP", "TRANSITIONS"}
"""Columns that differ from one run to the next."""

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.slow, pytest.mark.xdist_group("host")]


class Terminal:
    """A reader at a shell: an environment, a plane in the background, one data directory."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        tools = directory / "bin"
        tools.mkdir()
        for name, text in (("isoplane", f'exec {sys.executable} -m isoplane.cli.main "$@"'), ("sudo", 'exec "$@"')):
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(directory),
            "ISOPLANE_DATA": str(self.data),
            "COLUMNS": "200",
        }
        (directory / ".kube").mkdir()
        (directory / ".kube" / "config").symlink_to(self.data / "kubeconfig")
        self._plane: subprocess.Popen[str] | None = None

    def type(self, command: str) -> str:
        """Run a command as the page says; what it printed. It must end as the page lets one expect."""
        command = command.replace(DATA, str(self.data))
        if command.startswith("isoplane up"):
            return self.up(command.removesuffix("&").split()[1:])
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.environment[name] = value
            return ""
        if command.startswith("isoplane vm console"):
            return self.console(command)
        if command.startswith("isoplane down"):
            self.stop()
        watching = command.endswith("--watch")
        done = subprocess.run(
            ["timeout", "2" if watching else "150", "bash", "-c", command],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        expected = 124 if watching else 1 if FINDINGS.match(command) else 0
        assert done.returncode == expected, f"$ {command}\n{done.stdout}{done.stderr}exit code {done.returncode}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def up(self, arguments: list[str]) -> str:
        """``isoplane up`` in the background, on a port of its own, in place of the one before."""
        self.stop()
        command = [sys.executable, "-m", "isoplane.cli.main", *arguments, "--listen", "127.0.0.1:0"]
        with self.data.with_name("plane.log").open("a") as log:
            self._plane = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._plane.stdout is not None
        line = self._plane.stdout.readline()
        assert line.startswith("ready"), line + self.data.with_name("plane.log").read_text()
        self.environment.setdefault("KUBECONFIG", str(self.data / "kubeconfig"))
        return line

    def stop(self) -> None:
        """SIGTERM, as a service manager or Ctrl-C stops it."""
        if self._plane is not None:
            self._plane.send_signal(signal.SIGTERM)
            assert self._plane.wait(60) == 0
            assert self._plane.stdout is not None
            self._plane.stdout.close()
            self._plane = None

    def console(self, command: str) -> str:
        """Attach on a terminal, look for a moment, detach by Ctrl-]."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            ["bash", "-c", command], cwd=ROOT, env=self.environment, stdin=theirs, stdout=theirs, stderr=theirs
        ) as session:
            os.close(theirs)
            time.sleep(1.5)
            os.write(ours, b"\x1d")
            code = session.wait(20)
            printed = os.read(ours, 65536).decode(errors="replace")
            os.close(ours)
        assert code == 0, printed
        return printed

    def close(self) -> None:
        """Leave nothing on the host."""
        try:
            self.stop()
        finally:
            if self.data.exists():
                self.type("isoplane down --grace 3")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the demo's images, so that they are built once."""
    require(*HOST_TOOLS, "kubectl", root=True)
    store = guest_store()
    if store.lookup("isoplane.io/demo/web:1") is None:
        asyncio.run(build_demo(store))
    return store.root


@pytest.fixture
def terminal(tmp_path: Path, images: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    made.data.mkdir()
    if "images.md" not in str(request.node.name):
        (made.data / "images").symlink_to(images)
    (made.data / "cache").symlink_to(CACHE / "packages")
    yield made
    made.close()


def cells(line: str, header: str) -> Mapping[str, str]:
    """A table's line by its columns, where the header's words begin."""
    starts = [match.start() for match in re.finditer(r"\S+", header)]
    ends = [*starts[1:], max(len(line), len(header)) + 1]
    return {
        header[at:end].strip(): line[at:end].strip()
        for at, end in zip(starts, ends, strict=True)
        if header[at:end].strip() not in UNSTABLE
    }


def table(lines: list[str]) -> list[Mapping[str, str]]:
    return [cells(line, lines[0]) for line in lines[1:]]


def follow(terminal: Terminal, step: Step) -> None:
    """Type it; where the page shows a table, see the same one, as soon as everything has come up."""
    if not step.output:
        terminal.type(step.command)
        return
    shown: list[list[str]] = []

    def same() -> bool:
        shown.append(terminal.type(step.command).rstrip().splitlines())
        return shown[-1][0].split() == step.output[0].split() and table(shown[-1]) == table(list(step.output))

    wait_until(same, 90, f"$ {step.command}\n" + "\n".join(step.output))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_works_as_written(page: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = [step for step in steps(ROOT / page) if step.command not in NOT_HERE]
    assert todo, "a page without commands needs no test"
    if page == "docs/guides/images.md":
        _things_to_load(terminal)
    for step in todo:
        for before in FIRST.get((page, step.command), []):
            terminal.type(before)
        follow(terminal, step)
    if page == "docs/guides/images.md":
        _its_program(terminal, page)


def _things_to_load(terminal: Terminal) -> None:
    """The reader's own files: an archive and a layout."""
    home = terminal.data.parent
    write_layout(home / "layout", [Entry("etc/motd", 0o644, b"hello\n")], {"Cmd": ["/bin/true"]})
    subprocess.run(["skopeo", "copy", "-q", f"oci:{home}/layout", f"docker-archive:{home}/app.tar:app:1"], check=True)
    type_ = terminal.type

    def at_home(command: str) -> str:
        return type_(re.sub(r"load \./", f"load {home}/", command))

    terminal.type = at_home  # type: ignore[method-assign]


def _its_program(terminal: Terminal, page: str) -> None:
    """The guide's own program, on the reader's store."""
    programs = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert programs
    for text in programs:
        subprocess.run([sys.executable, "-c", text.replace(DATA, str(terminal.data))], check=True, cwd=ROOT)
    assert "isoplane.io/mine/web:1" in terminal.type("isoplane image list")


def test_every_page_with_commands_is_typed_or_excused() -> None:
    """No page, and no excuse, is forgotten."""
    written = {}
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")]:
        if path.name != "cli.md" and (found := steps(path)):
            written[path.relative_to(ROOT).as_posix()] = [step.command for step in found]
    for page, other in SAME.items():
        assert written.pop(page) == written[other], f"{page} types something else than {other}"
    untested = {
        f"{page}: {command}"
        for page, commands in written.items()
        for command in commands
        if page not in PAGES and page not in EXCUSED and command not in NOT_HERE
    }
    assert not untested
    everywhere = {command for commands in written.values() for command in commands}
    assert NOT_HERE.keys() <= everywhere, "excuses for what no page says any more"
    assert all(page in written and command in written[page] for page, command in FIRST)
