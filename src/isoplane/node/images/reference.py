"""Image names as container tools write them: ``busybox`` is ``docker.io/library/busybox:latest``.

Pure text to value and back; whether such an image exists is asked elsewhere.  Source of the grammar:
distribution/reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LOCAL_DOMAIN = "isoplane.io"
"""Images under this domain are built on the machine and never asked of a registry."""

_DEFAULT_DOMAIN = "docker.io"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """A name taken apart. ``tag`` is '' only when ``digest`` is set; a digest pins the image whatever the tag says."""

    domain: str
    path: str
    tag: str
    digest: str

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def canonical(self) -> str:
        """The full name, under which the store keeps the image."""
        text = self.repository
        if self.tag:
            text += f":{self.tag}"
        if self.digest:
            text += f"@{self.digest}"
        return text

    @property
    def local(self) -> bool:
        """Whether only this machine can have it."""
        return self.domain == LOCAL_DOMAIN

    @property
    def endpoint(self) -> tuple[str, int]:
        """The registry's host and port; Docker Hub answers under another name than its images bear."""
        host, colon, port = self.domain.rpartition(":")
        if not colon or self.domain.endswith("]"):
            host, port = self.domain, "443"
        return "registry-1.docker.io" if host == _DEFAULT_DOMAIN else host.strip("[]"), int(port)

    @property
    def loopback(self) -> bool:
        """Whether its registry is on this machine, where plain HTTP is expected."""
        host = self.domain.rsplit(":", 1)[0] if not self.domain.endswith("]") else self.domain
        return host in ("localhost", "[::1]") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def parse(text: str) -> Reference:
    """Read a name. Raises ValueError saying what is wrong with it."""
    rest, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{text!r}: a digest is written @sha256: and 64 hexadecimal digits")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head != head.lower()):
        domain, remainder = head, tail
    else:
        domain, remainder = _DEFAULT_DOMAIN, rest
    path, colon, tag = remainder.partition(":")
    if domain == "index.docker.io":
        domain = _DEFAULT_DOMAIN
    if domain == _DEFAULT_DOMAIN and path and "/" not in path:
        path = f"library/{path}"
    if not _DOMAIN.fullmatch(domain):
        raise ValueError(f"{text!r}: {domain!r} is not a registry host, such as registry.example:5000")
    if not _PATH.fullmatch(path):
        raise ValueError(
            f"{text!r} is not an image name: lower case letters, digits, and single . _ - or / between them"
        )
    if len(domain) + 1 + len(path) > _MAX_NAME:
        raise ValueError(f"{text[:60]!r}…: an image name has at most {_MAX_NAME} characters")
    if colon and not _TAG.fullmatch(tag):
        raise ValueError(f"{text!r}: {tag!r} is not a tag: at most 128 letters, digits, and . _ -")
    return Reference(domain, path, tag or ("" if digest else "latest"), digest)


def default_pull_policy(text: str) -> str:
    """``Always`` for the tag latest, else ``IfNotPresent``, as Kubernetes defaults imagePullPolicy."""
    try:
        reference = parse(text)
    except ValueError:
        return "IfNotPresent"
    return "Always" if reference.tag == "latest" and not reference.digest else "IfNotPresent"
