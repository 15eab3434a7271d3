"""Where the node may connect on behalf of somebody who may only create workloads: never to itself.

A name is resolved once, and the address judged here is the one to connect to; who asks what is the caller's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket


class Refused(Exception):
    """A host that is not to be reached, or that has no address; the message says why."""


class Unresolved(Refused):
    """A name without an address."""


async def resolve(host: str, port: int) -> str:
    """The one address to connect to for a host that a user named. Raises Refused when any of its addresses is forbidden."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError) as error:
        raise Unresolved(f"host {host!r} cannot be resolved: {error}") from None
    addresses = [str(one[4][0]) for one in found]
    for address in addresses:
        if why := forbidden(address):
            raise Refused(f"host {host!r} is not asked: it is {why}")
    return addresses[0]


def forbidden(address: str) -> str:
    """Why nobody may have the node connect to an address; '' when one may."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback or ip.is_unspecified:
        return "a loopback address"
    if ip.is_link_local:
        return "a link-local address"
    if ip.is_multicast:
        return "a multicast address"
    return "an address of the node" if _own(ip) else ""


def _own(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the kernel holds an address itself: it then is its own source towards it. No packet is sent."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(ip), 9))
        except OSError:
            return False  # no route: connecting will fail as well
        return ipaddress.ip_address(str(probe.getsockname()[0]).partition("%")[0]) == ip
