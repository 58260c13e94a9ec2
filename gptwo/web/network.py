"""Connections that refuse to reach into private networks.

The address is checked where it is used: a host is resolved once for each connection, every address
it has must be public, and the connection goes to the address that was checked. A name that changes
its address between check and use (DNS rebinding) or hides a number has no second chance.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import httpcore2


class PrivateAddressError(Exception):
    """A host that leads to this machine or its networks."""


# IPv6 addresses that end in an IPv4 address some gateway may unwrap: NAT64, IPv4-compatible.
_EMBEDDING = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
_UNICAST = ipaddress.IPv6Network("2000::/3")  # the only part of IPv6 that is public
# Called global by the module ipaddress, yet ways into the services of a cloud's own machines.
_REFUSED = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16/32"))


def is_public(address: str) -> bool:
    """Whether an IP address is reachable by everyone: not loopback, private, link-local, ..."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if any(ip in network for network in _EMBEDDING):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _UNICAST:
            return False
    if any(ip in network for network in _REFUSED):
        return False
    return ip.is_global and not ip.is_multicast


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Resolves, checks and pins. `connect_to` ("host:port") takes every connection instead."""

    def __init__(self, *, allow_private: bool, connect_to: str = "") -> None:
        self._allow_private, self._connect_to = allow_private, connect_to
        self._backend: Any = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        if self._connect_to:
            host, _, number = self._connect_to.rpartition(":")
            port = int(number)
        *first, last = await self._checked(host, port)
        for address in first:  # a host may have IPv6 where this machine has none
            with suppress(httpcore2.ConnectError):
                return await self._connect(address, port, timeout, local_address, socket_options)
        return await self._connect(last, port, timeout, local_address, socket_options)

    async def _connect(
        self,
        address: str,
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[Any] | None,
    ) -> httpcore2.AsyncNetworkStream:
        return await self._backend.connect_tcp(
            address,
            port,
            timeout=timeout,
            local_address=local_address,
            socket_options=socket_options,
        )

    async def _checked(self, host: str, port: int) -> list[str]:
        """The addresses of a host, all of them allowed."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        refused = [address for address in addresses if not is_public(address)]
        if refused and not self._allow_private:
            raise PrivateAddressError(f"{host} is {refused[0]}")
        return addresses

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
