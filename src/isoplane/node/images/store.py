"""The image store: what is loaded, pulled and asked for by name.

It decides where an image comes from and when it is fetched; ``sources`` talks to skopeo, ``shelf`` keeps the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from isoplane.node import destinations
from isoplane.node.images import layers, sources
from isoplane.node.images import reference as names
from isoplane.node.images.model import (
    Image,
    ImageError,
    ImageInputError,
    Progress,
    ProgressCallback,
    StoredImage,
)
from isoplane.node.images.shelf import Shelf, present
from isoplane.node.runtime.protocol import (
    ImageListener,
    ImageNews,
    ImageStep,
    RuntimeFailure,
    RuntimeReason,
    nobody_listens,
)

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}
_INSPECT_TIMEOUT = 60.0
_COPY_TIMEOUT = 3600.0
_PROGRESS_PERIOD = 0.1


def _silent(progress: Progress) -> None:
    """A progress callback for callers who do not watch."""


class ImageStore:
    """Images below ``root``. Any number of processes may use one store at a time."""

    def __init__(
        self, root: Path, *, insecure_registries: Sequence[str] = (), pull_from_this_host: bool = False
    ) -> None:
        """``pull_from_this_host``: whether a workload's image may be pulled from a registry on this machine.

        Off, only :meth:`load` (the command line) asks such registries: else whoever may create a Pod could ask around here.
        """
        self._pull_from_this_host = pull_from_this_host
        self.root = root
        self._shelf = Shelf(root)
        self._insecure = tuple(insecure_registries)
        self._pulls: dict[str, asyncio.Task[tuple[Image, float]]] = {}

    # -- reading ------------------------------------------------------------------------------------------------------

    def lookup(self, reference: str) -> Image | None:
        """The image a name means in this store, or None. Raises ValueError when it is not a name."""
        wanted = names.parse(reference)
        record = self._shelf.record(wanted.canonical)
        if record is None and wanted.digest:
            record = self._shelf.by_digest(wanted)
        return self._shelf.image(wanted.canonical, record) if record else None

    async def resolve(
        self, reference: str, policy: str = "IfNotPresent", listener: ImageListener = nobody_listens
    ) -> Image:
        """The image of a unit, pulled where its imagePullPolicy asks for that ('' means the Kubernetes default).

        ``listener`` hears whether it was there, and when it is being pulled.
        Raises RuntimeFailure with InvalidImageName, ErrImageNeverPull or ErrImagePull.
        """
        try:
            wanted = names.parse(reference)
        except ValueError as error:
            raise RuntimeFailure(RuntimeReason.INVALID_IMAGE_NAME, str(error), image=reference) from None
        policy = policy or names.default_pull_policy(reference)
        try:
            found = self.lookup(reference)  # two small files: a thread would take longer
        except (ImageError, OSError) as error:
            raise RuntimeFailure(
                RuntimeReason.ERR_IMAGE_PULL, f"the local image store: {error}", image=reference
            ) from None
        if found is not None and (policy != "Always" or wanted.local or wanted.digest):
            listener(ImageNews(ImageStep.PRESENT, reference))
            return found
        if policy == "Never":
            raise RuntimeFailure(
                RuntimeReason.IMAGE_NEVER_PULL,
                f"image {wanted.canonical} is not in the local image store and imagePullPolicy is Never: "
                "load it with `isoplane image load`",
                image=reference,
            )
        listener(ImageNews(ImageStep.PULLING, reference))
        began = time.monotonic()
        try:
            image, seconds = await self._pull_once(wanted)
        except (ImageError, OSError) as error:
            raise RuntimeFailure(
                RuntimeReason.ERR_IMAGE_PULL,
                f"image {wanted.canonical} is not in the local image store and could not be pulled: {error}. "
                "Load it with `isoplane image load SOURCE --name NAME`, from an OCI layout, an archive or a registry"
                if found is None
                else f"image {wanted.canonical} could not be pulled again, as imagePullPolicy Always asks: {error}. "
                "With imagePullPolicy IfNotPresent the copy in the local image store is used",
                image=reference,
            ) from None
        listener(ImageNews(ImageStep.PULLED, reference, seconds, time.monotonic() - began, image.size))
        return image

    def list(self) -> list[StoredImage]:
        """Every image, with all its names, by name."""
        return self._shelf.list()

    # -- writing ------------------------------------------------------------------------------------------------------

    async def load(self, source: str, name: str | None = None, progress: ProgressCallback | None = None) -> Image:
        """Load one image and name it (``name``, else what the source calls it). Raises ImageError."""
        found = await asyncio.to_thread(sources.recognise, source, self._insecure)
        text = name or found.name
        if not text:
            raise ImageInputError(
                f"{source} does not say what its image is called: give it a name, `--name example/app:1`"
            )
        try:
            wanted = names.parse(text)
        except ValueError as error:
            raise ImageInputError(str(error)) from None
        if wanted.digest and found.transport != "docker":
            raise ImageInputError(f"{text}: a digest cannot be chosen for a loaded image: name it with a tag")
        return await self._load(found, wanted, progress or _silent)

    async def remove(self, reference: str, *, force: bool = False) -> tuple[str, ...]:
        """Forget a name, and its image with the last one. Returns what was removed. Raises ImageError.

        ``force`` removes the name even though a container uses the image, whose content then stays until it is gone.
        """
        return await asyncio.to_thread(self._shelf.remove, reference, force)

    def prune(self) -> tuple[str, ...]:
        """Remove images without a name that nobody uses, and left-overs of crashed loads."""
        return self._shelf.prune()

    # -- pulling ------------------------------------------------------------------------------------------------------

    async def _pull_once(self, wanted: names.Reference) -> tuple[Image, float]:
        """Pull, and the seconds it took; those who ask for the same name meanwhile share the work."""
        task = self._pulls.get(wanted.canonical)
        if task is None:
            task = asyncio.ensure_future(self._pull(wanted))
            self._pulls[wanted.canonical] = task
            task.add_done_callback(lambda _: self._pulls.pop(wanted.canonical, None))
        return await asyncio.shield(task)

    async def _pull(self, wanted: names.Reference) -> tuple[Image, float]:
        began = time.monotonic()
        if wanted.local:
            raise ImageError(
                f"images under {names.LOCAL_DOMAIN}/ are built on this machine (`isoplane image build-demo`)"
            )
        if not self._pull_from_this_host:
            await _check_registry(wanted)
        image = await self._load(sources.registry(wanted, self._insecure), wanted, _silent)
        return image, time.monotonic() - began

    async def _load(self, source: sources.Source, wanted: names.Reference, progress: ProgressCallback) -> Image:
        flags = ("--src-tls-verify=false",) if source.plain_http else ()
        digest, total = "", source.size
        if source.transport == "docker":
            progress(Progress("asking the registry"))
            digest, total = await _remote_manifest(source)
            if total > layers.MAX_BYTES:
                raise ImageError(
                    f"{wanted.canonical} has {total >> 20} MiB of layers; at most {layers.MAX_BYTES >> 20}"
                )
            record = await asyncio.to_thread(self._shelf.record, wanted.canonical)
            if record is not None and record.get("digest") == digest:
                return present(self._shelf.image(wanted.canonical, record), wanted.canonical)
        with self._shelf.scratch() as scratch:
            layout = scratch / "layout"
            copy = sources.run("skopeo", "copy", *flags, source.url, f"oci:{layout}:image", timeout=_COPY_TIMEOUT)
            await _watched(copy, layout, total, progress)
            manifest_digest, manifest, document = await asyncio.to_thread(_read_layout, layout)
            _check_platform(wanted.canonical, document)
            hex_ = manifest_digest.removeprefix("sha256:")
            rootless = () if os.geteuid() == 0 else ("--rootless",)
            if not self._shelf.has(hex_):
                progress(Progress("unpacking", total, total))
                entries = [(layer, _path(layout, str(layer["digest"]))) for layer in manifest.get("layers") or ()]
                await asyncio.to_thread(layers.check, entries)
                unpack = ("raw", "unpack", *rootless, "--image", f"{layout}:image", str(scratch / "rootfs"))
                await sources.run("umoci", *unpack, timeout=_COPY_TIMEOUT)
                size = sum(int(layer.get("size") or 0) for layer in manifest.get("layers") or ())
                await asyncio.to_thread(self._shelf.keep, scratch, hex_, {**document, "isoplaneSize": size})
            pin = self._shelf.pin(hex_)
            try:
                image = await asyncio.to_thread(self._shelf.name, wanted.canonical, hex_, digest or manifest_digest)
            finally:
                os.close(pin)
        progress(Progress("done", total, total))
        return image


async def _check_registry(wanted: names.Reference) -> None:
    """Raises ImageError for a registry on this machine or on a link. Nothing is asked of it, so nothing can be told."""
    host, port = wanted.endpoint
    try:
        await destinations.resolve(host, port)
    except destinations.Unresolved:
        return  # a proxy may know it; skopeo says so otherwise
    except destinations.Refused as refused:
        raise ImageError(
            f"registry {wanted.domain}: {refused}; load its images by hand: `isoplane image load {wanted.canonical}`"
        ) from None


def _read_layout(layout: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(manifest digest, manifest, image configuration) of the one image in a layout that skopeo wrote."""
    try:
        index = json.loads((layout / "index.json").read_bytes())
        digest = str(index["manifests"][0]["digest"])
        manifest = json.loads(_blob(layout, digest))
        document = json.loads(_blob(layout, str(manifest["config"]["digest"])))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ImageError(f"the image's manifest cannot be read: {type(error).__name__}: {error}") from None
    return digest, manifest, document


def _path(layout: Path, digest: str) -> Path:
    algorithm, _, hex_ = digest.partition(":")
    return layout / "blobs" / algorithm / hex_


def _blob(layout: Path, digest: str) -> bytes:
    return _path(layout, digest).read_bytes()


def _check_platform(name: str, document: dict[str, Any]) -> None:
    system, architecture = document.get("os") or "linux", document.get("architecture") or ""
    here = _MACHINES.get(platform.machine(), platform.machine())
    if system != "linux" or (architecture and architecture != here):
        raise ImageError(f"{name} is an image for {system}/{architecture or '?'}; this machine is linux/{here}")


async def _remote_manifest(source: sources.Source) -> tuple[str, int]:
    """(digest of what the registry serves under the name, bytes to download for this platform; 0 unknown)."""
    flags = ("--tls-verify=false",) if source.plain_http else ()
    raw = await sources.run("skopeo", "inspect", "--raw", *flags, source.url, timeout=_INSPECT_TIMEOUT)
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    try:
        layers = json.loads(raw).get("layers") or ()
        return digest, sum(int(layer.get("size") or 0) for layer in layers)
    except (ValueError, AttributeError, TypeError):
        raise ImageError(f"{source.url}: the registry answered with something that is not a manifest") from None


async def _watched(work: Awaitable[bytes], layout: Path, total: int, progress: ProgressCallback) -> None:
    """Await a copy and tell how many bytes have arrived."""
    task = asyncio.ensure_future(work)
    if progress is _silent:
        await task
        return

    def measure() -> int:
        return sum(entry.stat().st_size for entry in layout.rglob("*") if entry.is_file())

    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_PROGRESS_PERIOD)
            with contextlib.suppress(OSError):
                done = await asyncio.to_thread(measure)
                progress(Progress("copying", min(done, total) if total else done, total))
        await task
    finally:
        task.cancel()
