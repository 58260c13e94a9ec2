"""An address as a crawl uses it: taken apart once, for each of its requests."""

import re
import string
from dataclasses import dataclass

from yarl import URL

from gptwo.urls import authority, host_of, wire_url

_SAFE = re.escape("".join(set(string.printable) - set(string.whitespace) - set("#?")))
# Nearly all: nothing to quote, a host in lower case that is no number, no user.
_PLAIN = re.compile(
    rf"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\.[a-z]+)/[{_SAFE}]*(?:\?[{_SAFE}?]+)?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """One address.

    Attributes:
        url: as it goes over the wire: ASCII, no fragment, no user.
        host: in lower case and punycode, without port.
        authority: host and port, the latter where it is not the scheme's own.
    """

    url: str
    scheme: str
    host: str
    authority: str

    @property
    def robots(self) -> "Address":
        url = f"{self.scheme}://{self.authority}/robots.txt"
        return Address(url, self.scheme, self.host, self.authority)

    def dialled(self, host: str) -> URL:
        """The same with `host` to connect to."""
        url = URL(self.url, encoded=True)
        return url if host == self.host else url.with_host(host)


def address_of(url: str) -> Address:
    """Take an address apart.

    >>> address_of("http://me@Site.Example:8080/a b#top").url
    'http://site.example:8080/a%20b'
    """
    found = _PLAIN.fullmatch(url)
    if found:
        return Address(url, found[1], found[2], found[2])
    wire = wire_url(url)
    return Address(wire, wire.partition(":")[0], host_of(wire), authority(wire))
