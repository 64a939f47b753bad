"""Which addresses a crawl may ask: allowed hosts only, by https unless on loopback, and never a private network's."""

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
    """Whether a host's name or address can only mean this machine (RFC 6761 for `localhost`)."""
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


def objection(url: URL, hosts: Sequence[str]) -> str | None:
    """Why an address must not be asked; None if it may."""
    host = url.host or ""
    if host not in hosts:
        return "a host that is not allowed"
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(host)):
        return "not https"
    address = _address(host)
    if address and not (address.is_global or address.is_loopback):
        return "a private address"
    return None


class Resolver(AbstractResolver):
    """Names -> addresses: fixed ones for some hosts, the system's for others if they are public.

    The connection goes to the very address that was checked, so that a name that changes its mind gains nothing.
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
        found = await self._system.resolve(host, port, family)
        if not is_loopback(host):
            found = [each for each in found if ipaddress.ip_address(each["host"].split("%")[0]).is_global]
        if not found:
            raise OSError(f"{host} has no public address")
        return found

    async def close(self) -> None:
        await self._system.close()
