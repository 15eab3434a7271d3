"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, controller-manager, scheduler and kwok's nodes.

The binaries come from ``tools/kubernetes.sh``. Every process is a child of the test, listens on 127.0.0.1 alone, writes to
one directory and is ended by pid.  What the tests ask of it is in the files beside this one.
"""

from __future__ import annotations

import base64
import os
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from isoplane.client.http import HttpApi
from isoplane.http.tls import Identity, Pki
from support import free_port

ROOT = Path(__file__).parent.parent.parent
ADMIN = ("kubernetes-admin", "system:masters")
READY_SECONDS = 90.0
_SERVER_NAMES = ("127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.96.0.1")


def binaries(*, build: bool) -> Path | None:
    """Where the binaries are; None when they are not there and may not, or cannot, be built."""
    command = [str(ROOT / "tools" / "kubernetes.sh"), *([] if build else ["--have"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


class ControlPlane:
    """The processes of one control plane and what is needed to talk to it. ``start`` before use, ``stop`` at the end."""

    def __init__(self, directory: Path, programs: Path, *, api_flags: Sequence[str] = ()) -> None:
        self.directory = directory
        self.port = free_port()
        self.kubeconfig = directory / "admin.kubeconfig"
        self._programs = programs
        self._api_flags = tuple(api_flags)
        self._etcd = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *, controllers: bool = True, scheduler: bool = True, kwok: bool = False) -> ControlPlane:
        """Start what is asked for and wait until the API server is ready."""
        self._prepare()
        self.start_etcd()
        self.start_api_server()
        if controllers:
            self._run("kube-controller-manager", self._controller_manager_flags())
        if scheduler:
            self._run("kube-scheduler", ["--leader-elect=false", "--secure-port=0", *self._client_flags("scheduler")])
        if kwok:
            self._run("kwok", self._kwok_flags())
        return self

    def start_etcd(self) -> None:
        """Start etcd on its data, which a restart finds again."""
        url, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{free_port()}"
        self._run("etcd", [
            f"--data-dir={self.directory / 'etcd'}", f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}", "--unsafe-no-fsync", "--logger=zap", "--log-level=warn",
        ])  # fmt: skip
        self._wait("etcd", lambda: _answers(f"{url}/health", None))

    def start_api_server(self) -> None:
        """Start kube-apiserver and wait for /readyz."""
        self._run("kube-apiserver", self._api_server_flags())
        context = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        self._wait("kube-apiserver", lambda: _answers(f"https://127.0.0.1:{self.port}/readyz", context))

    def stop_process(self, name: str, number: int = signal.SIGTERM) -> None:
        """End one of the processes (by its program's name) and wait for it."""
        process = self._processes.pop(name)
        process.send_signal(number)
        process.wait(30)

    def stop(self) -> None:
        """End every process, the last one started first."""
        for name in reversed(list(self._processes)):
            process = self._processes[name]
            process.send_signal(signal.SIGTERM if name == "etcd" else signal.SIGKILL)
            process.wait(30)
        self._processes.clear()

    def api(self, kubeconfig: Path | None = None) -> HttpApi:
        """A client, as the administrator unless told otherwise."""
        return HttpApi.from_kubeconfig(kubeconfig or self.kubeconfig)

    def kubectl(self, *arguments: str, stdin: str = "", kubeconfig: Path | None = None) -> str:
        """What kubectl of the same version prints; its error raises."""
        done = subprocess.run(
            [str(self._programs / "kubectl"), "--kubeconfig", str(kubeconfig or self.kubeconfig), *arguments],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def user(self, name: str, *groups: str) -> Path:
        """A kubeconfig for a client certificate of this user."""
        path = self.directory / f"{name.replace(':', '-')}.kubeconfig"
        self._write_kubeconfig(path, Pki(self._pki).client(name, groups))
        return path

    def log(self, name: str) -> str:
        """The end of what a process logged."""
        return (self.directory / f"{name}.log").read_text(errors="replace")[-6000:]

    @property
    def _pki(self) -> Path:
        return self.directory / "pki"

    def _prepare(self) -> None:
        cluster, front = Pki(self._pki), Pki(self.directory / "front-proxy")
        cluster.server(_SERVER_NAMES)
        proxy = front.client("front-proxy-client", ())
        (self.directory / "front-proxy" / "client.crt").write_bytes(proxy.certificate)
        (self.directory / "front-proxy" / "client.key").write_bytes(proxy.key)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self._pki / "sa.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        (self._pki / "sa.pub").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        self._write_kubeconfig(self.kubeconfig, cluster.client(*ADMIN[:1], ADMIN[1:]))
        for component in ("controller-manager", "scheduler"):
            identity = cluster.client(f"system:kube-{component}", ())
            self._write_kubeconfig(self.directory / f"{component}.kubeconfig", identity)

    def _write_kubeconfig(self, path: Path, identity: Identity) -> None:
        def data(raw: bytes) -> str:
            return base64.b64encode(raw).decode()

        server = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority-data": data((self._pki / "ca.crt").read_bytes()),
        }
        user = {"client-certificate-data": data(identity.certificate), "client-key-data": data(identity.key)}
        config: Mapping[str, object] = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": server}], "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)

    def _api_server_flags(self) -> list[str]:
        pki, front = self._pki, self.directory / "front-proxy"
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd}", f"--secure-port={self.port}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--allow-privileged=true",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            "--service-cluster-ip-range=10.96.0.0/16", f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'server.crt'}", f"--tls-private-key-file={pki / 'server.key'}",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            f"--requestheader-client-ca-file={front / 'ca.crt'}", "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={front / 'client.crt'}", f"--proxy-client-key-file={front / 'client.key'}",
            "--profiling=false", *self._api_flags,
        ]  # fmt: skip

    def _client_flags(self, component: str) -> list[str]:
        path = self.directory / f"{component}.kubeconfig"
        return [f"--kubeconfig={path}", f"--authentication-kubeconfig={path}", f"--authorization-kubeconfig={path}"]

    def _controller_manager_flags(self) -> list[str]:
        return [
            "--leader-elect=false", "--secure-port=0", "--use-service-account-credentials=true",
            "--kube-api-qps=500", "--kube-api-burst=1000", f"--root-ca-file={self._pki / 'ca.crt'}",
            f"--service-account-private-key-file={self._pki / 'sa.key'}",
            f"--cluster-signing-cert-file={self._pki / 'ca.crt'}", f"--cluster-signing-key-file={self._pki / 'ca.key'}",
            *self._client_flags("controller-manager"),
        ]  # fmt: skip

    def _kwok_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig}", f"--config={self._programs / 'stages.yaml'}",
            "--manage-all-nodes", "--node-ip=127.0.0.1", "--node-lease-duration-seconds=40",
            f"--server-address=127.0.0.1:{free_port()}",
        ]  # fmt: skip

    def _run(self, name: str, flags: Sequence[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(self._programs / name), *flags], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd=self.directory, env={**os.environ, "HOME": str(self.directory)},
            )  # fmt: skip

    def _wait(self, name: str, good: object) -> None:
        assert callable(good)
        deadline = time.monotonic() + READY_SECONDS
        while not good():
            ended = self._processes[name].poll()
            assert ended is None, f"{name} ended with {ended}:\n{self.log(name)}"
            assert time.monotonic() < deadline, f"{name} was not ready in {READY_SECONDS:.0f} s:\n{self.log(name)}"
            time.sleep(0.1)


def node(name: str, *, cpu: str = "8", memory: str = "16Gi", pods: str = "110") -> dict[str, object]:
    """A Node for kwok to keep Ready."""
    amounts = {"cpu": cpu, "memory": memory, "pods": pods, "ephemeral-storage": "100Gi"}
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"allocatable": amounts, "capacity": amounts},
    }  # fmt: skip


def _answers(url: str, context: ssl.SSLContext | None) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
