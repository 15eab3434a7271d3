"""One HTTP question to a workload, for probes and life-cycle hooks: where it may go, and what is read of the answer.

The status line and the headers decide; the body is not read, so that no answer costs memory, encoded or not.  A host that
a user named is resolved once, and the address that was judged is the one connected to.  When to ask is the caller's.
Source: kubernetes pkg/probe/http (redirects, headers), pkg/kubelet/lifecycle.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from urllib.parse import quote, urljoin, urlsplit

from isoplane.node import destinations
from isoplane.workload.shape import HttpGet

MAX_HEAD = 10 << 10
"""Bytes of an answer's status line and headers."""
MAX_REDIRECTS = 10
USER_AGENT = "kube-probe/1.37"
_REDIRECTS = (301, 302, 303, 307, 308)
_PATH_SAFE = "/%:@!$&'()*+,;=~-._?"


class AskFailure(Exception):
    """The question could not be asked, or the answer is none; the message says why."""


async def get(question: HttpGet, own_address: str) -> int:
    """The status that an HTTP question is answered with in the end. Raises AskFailure, Refused, OSError; mind the time yourself.

    Redirects to the same host are followed, to the address asked first; one elsewhere is the answer, as for the kubelet.
    """
    host = question.host or own_address
    if not host:
        raise AskFailure("the workload has no address yet")
    address = await destinations.resolve(host, question.port) if question.host else own_address
    shown = f"[{host}]" if ":" in host else host
    url = f"{question.scheme.lower()}://{shown}:{question.port}{_path(question.path)}"
    for _ in range(MAX_REDIRECTS + 1):
        status, location = await _once(url, address, dict(question.headers))
        if status not in _REDIRECTS or not location:
            return status
        target = urlsplit(urljoin(url, location))
        if target.scheme not in ("http", "https") or (target.hostname or "") != (urlsplit(url).hostname or ""):
            return status
        url = target.geturl()
    raise AskFailure(f"stopped after {MAX_REDIRECTS} redirects")


def _path(path: str) -> str:
    return quote(path if path.startswith("/") else "/" + path, safe=_PATH_SAFE)


async def _once(url: str, address: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """(status, Location) of one GET, at a fixed address."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    try:
        port = parts.port or (443 if secure else 80)
    except ValueError as error:
        raise AskFailure(f"{url[:200]!r}: {error}") from None
    sent = {"Host": parts.netloc.rpartition("@")[2], "User-Agent": USER_AGENT, "Accept": "*/*"}
    given = {name.lower() for name in headers}
    lines = [*((n, v) for n, v in sent.items() if n.lower() not in given), *headers.items(), ("Connection", "close")]
    if any(char in name + value for name, value in lines for char in "\r\n\0"):
        raise AskFailure("a header must not hold a line break")
    query = f"?{quote(parts.query, safe=_PATH_SAFE)}" if parts.query else ""
    target = quote(parts.path or "/", safe=_PATH_SAFE) + query
    head = f"GET {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
    context, name = (_unverified(), parts.hostname) if secure else (None, None)
    reader, writer = await asyncio.open_connection(address, port, limit=MAX_HEAD, ssl=context, server_hostname=name)
    try:
        writer.write(head.encode())
        await writer.drain()
        while True:
            status, fields = _read(await reader.readuntil(b"\r\n\r\n"))
            if status >= 200:
                return status, fields.get("location", "")
    except asyncio.LimitOverrunError:
        raise AskFailure(f"the answer's headers are longer than {MAX_HEAD >> 10} KiB") from None
    except asyncio.IncompleteReadError:
        raise AskFailure("the answer ended before its headers did") from None
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _read(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not (words[1].isascii() and words[1].isdigit()):
        raise AskFailure(f"the answer is not HTTP: {first[:60]!r}")
    pairs = (line.partition(":") for line in lines if ":" in line)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _unverified() -> ssl.SSLContext:
    """TLS as the kubelet does it for its own workloads: encrypted, the certificate not checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
