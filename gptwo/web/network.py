"""Connections that refuse to reach into private networks.

The address is checked where it is used: every address of a host must be public, the connection goes
to an address that was checked, and the socket itself is made only for such a one. A name that
changes its address between check and use (DNS rebinding) or hides a number has no second chance:
what the cache of names holds is checked again for each connection.
"""

import ipaddress
import socket
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from gptwo.web.names import Names

KEEPALIVE_SECONDS = 30.0
NUMBER_SUFFIX = ".number.invalid"  # how a number is called where something takes all connections


class PrivateAddressError(OSError):
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


def number_of(host: str) -> str:
    """The address that a host spells as a number, "" for a name.

    Systems take more spellings than one: 127.0.0.1 is 2130706433, 0x7f000001, 0177.0.0.1 and 127.1.

    >>> number_of("0x7f.1"), number_of("site.example")
    ('127.0.0.1', '')
    """
    if ":" in host:
        return host  # only an IPv6 address may hold one
    if not host[-1:].isalnum() or not host[:1].isdigit():
        return ""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return ""


class Guard(AbstractResolver):
    """What the connector asks for addresses and sockets.

    `connect_to` ("host:port") takes every connection instead; it is checked all the same.
    """

    def __init__(self, names: Names, *, allow_private: bool, connect_to: str = "") -> None:
        self._names, self._allow_private, self._connect_to = names, allow_private, connect_to

    def refuse(self, host: str, address: str) -> None:
        if not self._allow_private and not is_public(address):
            raise PrivateAddressError(f"{host} is {address}")

    def dial(self, host: str) -> str:
        """The host to give to the connector, which asks for no address of a plain number."""
        number = number_of(host)
        if not number:
            return host
        if self._connect_to:
            return number.replace(".", "-").replace(":", "-") + NUMBER_SUFFIX
        self.refuse(host, number)
        return number

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses of a host, all of them allowed."""
        if self._connect_to:
            host, _, number = self._connect_to.rpartition(":")
            port = int(number)
        addresses = await self._names.addresses(host)
        for address in addresses:
            self.refuse(host, address)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in addresses
        ]

    def make_socket(self, info: Any) -> socket.socket:
        """The socket for one address: the last place where it can be refused."""
        family, kind, protocol, _, address = info
        self.refuse(str(address[0]), str(address[0]))
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Nothing is held."""


def connector(guard: Guard) -> aiohttp.TCPConnector:
    """Keeps connections open between requests to a host; the crawl limits how many there are."""
    return aiohttp.TCPConnector(
        limit=0,
        resolver=guard,
        use_dns_cache=False,
        socket_factory=guard.make_socket,
        keepalive_timeout=KEEPALIVE_SECONDS,
    )
