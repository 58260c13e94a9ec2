"""Connections that refuse to reach into private networks.

The address is checked where it is used: a host is resolved once for each connection, every address
it has must be public, and the connection goes to the address that was checked. A name that changes
its address between check and use (DNS rebinding) or hides a number has no second chance.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import httpcore2


class PrivateAddressError(Exception):
    """A host that leads to this machine or its networks."""


def is_public(address: str) -> bool:
    """Whether an IP address is reachable by everyone: not loopback, private, link-local, ..."""
    ip = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return (mapped or ip).is_global and not ip.is_multicast and (not mapped or mapped.is_global)


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
        address = await self._checked(host, port)
        return await self._backend.connect_tcp(
            address,
            port,
            timeout=timeout,
            local_address=local_address,
            socket_options=socket_options,
        )

    async def _checked(self, host: str, port: int) -> str:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        refused = [address for address in addresses if not is_public(address)]
        if refused and not self._allow_private:
            raise PrivateAddressError(f"{host} is {refused[0]}")
        return addresses[0]

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
