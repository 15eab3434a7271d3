"""The API server put together: store, verbs, admission, TLS, listener, kubeconfig.

Controllers and the node attach to it from outside (``local_api``, ``node``); when the whole plane counts as ready is the
command line's decision, through ``not_ready``.
"""

from __future__ import annotations

import gc
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from isoplane.client.streams import NodeBackend, NoNode
from isoplane.http.app import App
from isoplane.http.authentication import Authentication, ClientCertificates
from isoplane.http.listener import Listener
from isoplane.http.peer import Authorities
from isoplane.http.tls import Pki
from isoplane.objects.exposition import Registry
from isoplane.objects.scheme import Scheme
from isoplane.server import kubeconfig
from isoplane.server.admission import AdmissionPlugin, Chain
from isoplane.server.authorization import BuiltIn
from isoplane.server.bootstrap import bootstrap
from isoplane.server.bounded_node import BoundedNode
from isoplane.server.collectors import process_families, store_families
from isoplane.server.control import Control
from isoplane.server.endpoints.documents import Documents
from isoplane.server.endpoints.handlers import Handlers
from isoplane.server.endpoints.service import ApiService
from isoplane.server.local import LocalApi
from isoplane.server.verbs import Verbs
from isoplane.store import Store
from isoplane.store.history import Retention


class ApiServer:
    """Lives between :meth:`start` and :meth:`stop` on one event loop.

    ``listen`` is HOST:PORT (port 0: any free one, see ``url``).  ``kubeconfig_path`` None writes none.
    ``key_file`` encrypts Secrets at rest; None: the one in the data directory.
    ``scheme``: what is served; None: the built-in kinds.  ``admission`` plug-ins run in the given order.
    """

    def __init__(
        self,
        data_dir: Path,
        listen: str = "127.0.0.1:6443",
        kubeconfig_path: Path | None = None,
        *,
        admission: Sequence[AdmissionPlugin] = (),
        node: NodeBackend | None = None,
        retention: Retention | None = None,
        key_file: Path | None = None,
        disk_reserve: int = 0,
        scheme: Scheme | None = None,
    ) -> None:
        self.scheme = scheme or Scheme()
        """What is served; may grow while the server runs."""
        self._data_dir = data_dir
        self._host, self._port = parse_listen(listen)
        self._kubeconfig_path = kubeconfig_path
        self._retention = retention
        self._key_file = key_file
        self._disk_reserve = disk_reserve
        self._admission = Chain(admission)
        self._node: NodeBackend = BoundedNode(node or NoNode())
        self.not_ready = "the API server is starting"
        """What /readyz says is missing; '' when ready. Set by whoever assembles the plane."""
        self.metrics: Registry
        """What /metrics tells; whoever assembles the plane adds its own collectors."""
        self.store: Store
        self.verbs: Verbs
        self.local_api: LocalApi
        self._handlers: Handlers | None = None
        self._listener: Listener | None = None
        self._control: Control | None = None

    async def start(self, prepare: Callable[[ApiServer], Awaitable[None]] | None = None) -> None:
        """Open the store, make what every plane has, ``prepare``, listen, write the kubeconfig.

        ``prepare`` runs when the verbs work in process and nobody outside can ask yet (repairs, computed kinds).
        Raises StoreError, ListenError, KubeconfigError or OSError, each saying what to do; nothing is left open then.
        """
        _spare_the_collector()
        self.store = Store.open(self._data_dir, self._retention, self._key_file, self._disk_reserve, self.scheme)
        self.metrics = Registry()
        self.metrics.register(lambda: store_families(self.store))
        self.metrics.register(process_families)
        try:
            self.verbs = Verbs(self.store, self._admission, scheme=self.scheme)
            self.local_api = LocalApi(self.verbs)
            await bootstrap(self.verbs)
            if prepare is not None:
                await prepare(self)
            pki = Pki(self._data_dir / "pki")
            context = pki.server_context(self._names())
            self._handlers = Handlers(self.verbs, self._node)
            authorizer = BuiltIn()
            app = App(
                ApiService(self._handlers, Documents(_release(), self.scheme), authorizer),
                Authentication([ClientCertificates(Authorities(pki.ca.certificate))]),
                authorizer.authorize,
                ready=lambda: self.not_ready,
                metrics=self.metrics,
                unauthorized="show a client certificate of this server's CA (see its kubeconfig)",
            )
            self._listener = Listener(app, self._host, self._port, context)
            await self._listener.start()
            self._control = Control(self._data_dir, self.store)
            await self._control.start()
            if self._kubeconfig_path is not None:
                kubeconfig.write(self._kubeconfig_path, self.url, pki.ca.certificate, pki.admin())
        except BaseException:
            await self.stop()
            raise
        self.not_ready = ""

    @property
    def url(self) -> str:
        """Where clients on this machine reach the server."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._host, self._host)
        port = self._listener.port if self._listener is not None else self._port
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    @property
    def ca_certificate(self) -> str:
        """The CA that clients check this server against, PEM; for kube-root-ca.crt."""
        return (self._data_dir / "pki" / "ca.crt").read_text()

    @property
    def node(self) -> NodeBackend:
        return self._node

    @node.setter
    def node(self, node: NodeBackend) -> None:
        """Attach the node that answers for logs and exec."""
        self._node = BoundedNode(node)
        if self._handlers is not None:
            self._handlers.node = self._node

    def _names(self) -> list[str]:
        """What clients may call this server: loopback, the host it listens on."""
        names = ["localhost", "127.0.0.1", "::1"]
        if self._host not in ("0.0.0.0", "::", "", *names):
            names.append(self._host)
        return names

    async def stop(self) -> None:
        """Finish running requests, end watches, commit what is pending, release the data directory."""
        self.not_ready = "the API server is stopping"
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None
        if self._control is not None:
            await self._control.stop()
            self._control = None
        await self.store.close()


def parse_listen(text: str) -> tuple[str, int]:
    """HOST:PORT, [V6]:PORT or :PORT. Raises ValueError with what is expected."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address to listen on; write HOST:PORT, such as 127.0.0.1:6443")
    if ":" in host:
        ipaddress.IPv6Address(host)
    return host or "127.0.0.1", int(port)


def _spare_the_collector() -> None:
    """Objects are decoded to many short-lived containers without cycles; the default threshold of 700 allocations makes
    the cycle collector run several times a request for nothing (7 to 10 % of a create)."""
    gc.set_threshold(50_000, 50, 50)


def _release() -> str:
    try:
        return version("isoplane")
    except PackageNotFoundError:
        return "unknown"
