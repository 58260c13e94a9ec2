"""network: no connection into private networks, by whatever name."""

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import httpcore2
import pytest
from web_site import Site, link_folder, moved, ok, outcomes, robots, rows, run_crawl

from gptwo.web.network import GuardedBackend, PrivateAddressError, is_public

PRIVATE = """
    127.0.0.1 127.255.255.254 0.0.0.0 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254
    100.64.0.1 100.100.100.200 192.0.0.192 168.63.129.16 192.0.2.1 198.18.0.1
    203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
    ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 ff02::1 2001:db8::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 ::10.0.0.1
    2002:7f00:1:: 2002:a00:1:: 2002:a9fe:a9fe:: 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::a00:1
    2001:0:4136:e378:8000:63bf:3fff:fdd2
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 93.184.215.14 172.15.0.1 172.32.0.1 100.128.0.1 169.253.0.1
    2606:4700::1111 ::ffff:8.8.8.8 2002:808:808:: 64:ff9b::808:808
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public(address: str) -> None:
    assert is_public(address)


class Names:
    """Stands in for the resolver: name -> the answers it gives, one call after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, table: dict[str, list[list[str]]]) -> None:
        self.table, self.asked, self._real = table, [], socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, port: Any, *args: Any, **more: Any) -> list:
        host = host.decode() if isinstance(host, bytes) else host
        if host not in self.table:
            return self._real(host, port, *args, **more)
        self.asked.append(host)
        answers = self.table[host]
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]


class Recorder(httpcore2.AsyncNetworkBackend):
    """Stands in for the network below the guard."""

    def __init__(self, *, unreachable: tuple[str, ...] = ()) -> None:
        self.addresses: list[tuple[str, int]] = []
        self.unreachable = unreachable

    async def connect_tcp(self, host: str, port: int, **more: Any) -> Any:
        self.addresses.append((host, port))
        if host in self.unreachable:
            raise httpcore2.ConnectError("unreachable")
        return "stream"


def connect(host: str, recorder: Recorder, *, allow_private: bool = False) -> Any:
    backend = GuardedBackend(allow_private=allow_private)
    backend._backend = recorder
    return asyncio.run(backend.connect_tcp(host, 80, timeout=1.0))


def test_a_name_is_resolved_once_and_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer, on loopback, never comes to use."""
    names = Names(monkeypatch, {"rebind.example": [["8.8.8.8"], ["127.0.0.1"]]})
    recorder = Recorder()
    assert connect("rebind.example", recorder) == "stream"
    assert names.asked == ["rebind.example"] and recorder.addresses == [("8.8.8.8", 80)]
    with pytest.raises(PrivateAddressError, match=r"rebind\.example is 127\.0\.0\.1"):
        connect("rebind.example", recorder)
    assert len(recorder.addresses) == 1


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, {"mixed.example": [["8.8.8.8", "10.0.0.1"]]})
    recorder = Recorder()
    with pytest.raises(PrivateAddressError, match=r"10\.0\.0\.1"):
        connect("mixed.example", recorder)
    assert recorder.addresses == []
    connect("mixed.example", recorder, allow_private=True)
    assert recorder.addresses == [("8.8.8.8", 80)]


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, {"two.example": [["2606:4700::1111", "8.8.8.8", "8.8.8.8"]]})
    recorder = Recorder(unreachable=("2606:4700::1111",))
    assert connect("two.example", recorder) == "stream"
    assert [host for host, _ in recorder.addresses] == ["2606:4700::1111", "8.8.8.8"]
    with pytest.raises(httpcore2.ConnectError):
        connect("two.example", Recorder(unreachable=("2606:4700::1111", "8.8.8.8")))


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "127.1", "0", "::1"])
def test_numbers_in_disguise(host: str) -> None:
    with pytest.raises(PrivateAddressError):
        connect(host, Recorder())


@pytest.mark.parametrize("host", ["unknown.example", "a" * 70 + ".example", "a..example"])
def test_names_that_lead_nowhere(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, {"unknown.example": []})
    with pytest.raises(httpcore2.ConnectError, match="cannot be resolved"):
        connect(host, Recorder())


def test_a_crawl_opens_nothing_on_loopback_unless_told_to(site: Site, tmp_path: Path) -> None:
    port = site.address.split(":")[1]
    urls = [f"http://127.0.0.1:{port}/a", f"http://localhost:{port}/b", f"http://127.1:{port}/c"]
    for url in urls:
        site.pages[url.removeprefix("http://")] = ok()
    address, site.address = site.address, ""  # nothing takes the connections over
    manifest = run_crawl(site, tmp_path, urls, allow_private=False)
    assert set(outcomes(tmp_path / "pages").values()) == {"private-address"}
    assert manifest.counts["outcomes"] == {"private-address": 3} and manifest.counts["fetched"] == 0
    assert site.connections == 0
    assert "127.0.0.1" in rows(tmp_path / "pages")[urls[2]]["detail"]
    (tmp_path / "pages").rename(tmp_path / "closed")
    assert run_crawl(site, tmp_path, urls).counts["fetched"] == 3
    site.address = address


def test_connections_that_are_taken_over_are_checked_too(site: Site, tmp_path: Path) -> None:
    urls = ["http://a.example/1"]
    run_crawl(site, tmp_path, urls, allow_private=False)
    assert outcomes(tmp_path / "pages") == {urls[0]: "private-address"}
    assert site.connections == 0


def test_every_hop_is_checked(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Public pages that redirect into a private network, by page and by robots.txt."""
    host, port = site.address.split(":")
    Names(
        monkeypatch,
        {
            "public.example": [["8.8.8.8"]],
            "robber.example": [["8.8.4.4"]],
            "inner.example": [["10.0.0.7"]],
        },
    )
    real = httpcore2.AnyIOBackend.connect_tcp
    reached = []

    async def to_the_site(self: Any, address: str, number: int, **more: Any) -> Any:
        """The internet of this test: public addresses lead to the site."""
        reached.append(address)
        return await real(self, host, int(port), **more)

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", to_the_site)
    site.pages |= {
        "public.example/page": ok(),
        "public.example/name": moved("http://inner.example/secret"),
        "public.example/number": moved("http://169.254.169.254/latest/meta-data/"),
        "robber.example/robots.txt": moved("http://inner.example/robots.txt"),
        "robber.example/page": ok(),
        "inner.example/secret": ok(),
    }
    urls = [
        f"http://{name}" for name in site.pages if "/robots" not in name and "inner" not in name
    ]
    site.address = ""
    run_crawl(site, tmp_path, urls, allow_private=False)
    found = outcomes(tmp_path / "pages")
    assert found == {
        "http://public.example/page": "ok",
        "http://public.example/name": "private-address",
        "http://public.example/number": "private-address",
        "http://robber.example/page": "private-address",
    }
    assert set(reached) == {"8.8.8.8", "8.8.4.4"}
    assert not any("inner" in url or "169" in url for url in site.urls(robots=True))


def test_names_are_resolved_side_by_side(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead name server holds up its own link, not the crawl."""
    gate = threading.Barrier(24, timeout=5)

    def slow(host: Any, port: Any, *args: Any, **more: Any) -> list:
        gate.wait()  # passes only when all are asked at once
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    urls = [f"http://host-{i}.example/" for i in range(24)]
    link_folder(tmp_path, urls)
    site.address = ""
    run_crawl(site, tmp_path, urls, allow_private=False, concurrency=24)
    assert set(outcomes(tmp_path / "pages").values()) == {"private-address"}


def test_robots_are_asked_at_the_same_port(site: Site, tmp_path: Path) -> None:
    site.pages |= {
        "a.example/robots.txt": robots("User-agent: *\nDisallow: /"),
        "a.example:8080/page": ok(),
        "a.example/page": ok(),
    }
    urls = ["http://a.example/page", "http://a.example:8080/page"]
    run_crawl(site, tmp_path, urls)
    assert outcomes(tmp_path / "pages") == {urls[0]: "robots", urls[1]: "ok"}
