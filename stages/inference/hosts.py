"""Which URLs may be requested: only allowed hosts, only https except on loopback, never private addresses.

The crawler and the bot use it. Both follow URLs that others wrote, which must not reach services of the local network
(server-side request forgery).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address always means this machine (for `localhost`: RFC 6761)."""
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


def objection(url: URL, hosts: Sequence[str]) -> str | None:
    """Why a URL must not be requested, or None if it may be."""
    host = url.host or ""
    if host not in hosts:
        return "host not allowed"
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(host)):
        return "not https"
    address = _address(host)
    if address and not (address.is_global or address.is_loopback):
        return "private address"
    return None


class Resolver(AbstractResolver):
    """Resolves host names: to fixed addresses for some hosts, else to the system's answers that are public.

    aiohttp connects to the addresses returned here. So a host cannot pass the check with a public address and then be
    resolved again to a private one (DNS rebinding).
    """

    def __init__(self, fixed: Mapping[str, tuple[str, int]], loopback: bool = True) -> None:
        """`fixed`: host -> address and port. `loopback`: whether `localhost` and its like may be resolved."""
        self._fixed = fixed
        self._loopback = loopback
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not self._loopback and is_loopback(host):
            raise OSError(f"{host} is this machine")
        if host in self._fixed:
            address, port = self._fixed[host]
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)]
        answers = await self._system.resolve(host, port, family)
        if not is_loopback(host):
            # An IPv6 address may carry a zone: fe80::1%eth0.
            answers = [answer for answer in answers if ipaddress.ip_address(answer["host"].split("%")[0]).is_global]
        if not answers:
            raise OSError(f"{host} has no public address")
        return answers

    async def close(self) -> None:
        await self._system.close()
