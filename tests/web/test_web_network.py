"""network: no connection into private networks, by whatever name."""

import asyncio
import socket
import threading
import time
from asyncio.selector_events import BaseSelectorEventLoop
from pathlib import Path
from typing import Any

import pytest
from web_site import Site, link_folder, moved, ok, outcomes, robots, rows, run_crawl

from gptwo.errors import ResourceError
from gptwo.urls import authority, host_of, wire_url
from gptwo.web import names as naming
from gptwo.web.address import Address, address_of
from gptwo.web.config import CrawlConfig
from gptwo.web.names import Names, UnknownNameError, look_up
from gptwo.web.network import Guard, PrivateAddressError, is_public, number_of
from gptwo.web.request import Answer, Client, Wanted

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


class Resolver:
    """Stands in for the system's: name -> the answers it gives, one call after the other."""

    def __init__(self, table: dict[str, list[list[str]]]) -> None:
        self.table: dict[str, list[list[str]]] = table
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        answers = self.table.get(host)
        if not answers:
            raise UnknownNameError(f"{host} cannot be resolved: no such name", passing=False)
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def internet(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Public addresses lead to the site; returns every address that a socket connects to."""
    host, port = site.address.split(":")
    real, reached = BaseSelectorEventLoop.sock_connect, []

    async def to_the_site(self: Any, sock: socket.socket, address: tuple) -> None:
        reached.append(address[0])
        if address[0].startswith("203.0."):  # stands for what is unreachable here
            raise OSError(101, "Network is unreachable")
        await real(self, sock, (host, int(port)))

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", to_the_site)
    monkeypatch.setattr(
        "gptwo.web.network.is_public", lambda ip: ip[:6] == "203.0." or is_public(ip)
    )
    site.address = ""
    return reached


def ask(url: str, lookup: Any, *, times: int = 1, **config: Any) -> list[Answer]:
    """What requests give, each over a connection of its own."""

    async def run() -> list[Answer]:
        settings = CrawlConfig(page_seconds=5.0, **config)
        async with Client(settings, lookup=lookup) as client:
            wanted = Wanted(bytes=1000, more=False)
            return [await client.get(address_of(url), wanted) for _ in range(times)]

    return asyncio.run(run())


def test_rebinding_does_not_win(site: Site, internet: list[str]) -> None:
    """A name that is public when it is first asked for and loopback when it is used again."""
    site.pages["rebind.example/"] = ok("<p>public")
    resolver = Resolver({"rebind.example": [["8.8.8.8"], ["127.0.0.1"]]})
    first, second = ask("http://rebind.example/", resolver, times=2, dns_seconds=0.0)
    assert (first.outcome, second.outcome) == ("ok", "private-address")
    assert second.detail == "rebind.example is 127.0.0.1"
    assert internet == ["8.8.8.8"] and resolver.asked == ["rebind.example"] * 2
    assert first.address == "127.0.0.1"  # where the site of this test is


def test_rebinding_does_not_win_through_the_cache(site: Site, internet: list[str]) -> None:
    """What is remembered is pinned, and checked at each connection all the same."""
    site.pages["rebind.example/"] = ok("<p>public")
    resolver = Resolver({"rebind.example": [["8.8.8.8"], ["127.0.0.1"]]})
    found = ask("http://rebind.example/", resolver, times=5)
    assert [answer.outcome for answer in found] == ["ok"] * 5
    assert internet == ["8.8.8.8"] * 5 and resolver.asked == ["rebind.example"]

    async def poisoned() -> None:
        names = Names(300.0, resolver)
        names._known["evil.example"] = (time.monotonic() + 99, ["169.254.169.254"])
        with pytest.raises(PrivateAddressError, match=r"evil\.example is 169\.254"):
            await Guard(names, allow_private=False).resolve("evil.example", 80)

    asyncio.run(poisoned())


def test_no_socket_is_made_for_a_private_address() -> None:
    """The last line: even an address that nobody checked has no socket."""
    guard = Guard(Names(1.0), allow_private=False)
    for family, address in ((socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")):
        with pytest.raises(PrivateAddressError):
            guard.make_socket((family, socket.SOCK_STREAM, 6, "", (address, 80)))
    guard.make_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))).close()


def test_one_private_address_among_public_ones_is_enough(internet: list[str]) -> None:
    resolver = Resolver({"mixed.example": [["8.8.8.8", "10.0.0.1"]]})
    (answer,) = ask("http://mixed.example/", resolver)
    assert answer.outcome == "private-address" and "10.0.0.1" in answer.detail
    assert internet == []
    assert ask("http://mixed.example/", resolver, allow_private=True)[0].status == 404
    assert internet == ["8.8.8.8"]


def test_the_next_address_is_tried(site: Site, internet: list[str]) -> None:
    site.pages["two.example/"] = ok("<p>")
    (answer,) = ask("http://two.example/", Resolver({"two.example": [["203.0.9.9", "8.8.8.8"]]}))
    assert answer.outcome == "ok" and internet == ["203.0.9.9", "8.8.8.8"]
    (answer,) = ask("http://two.example/", Resolver({"two.example": [["203.0.9.9", "203.0.9.8"]]}))
    assert answer.outcome == "connection" and answer.unreached


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7f.0.0.0x1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("10.256", "10.0.1.0"),
        ("0", "0.0.0.0"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("3232235777", "192.168.1.1"),
        ("[::1]", "::1"),
        ("[::ffff:7f00:1]", "::ffff:7f00:1"),
        ("[0:0:0:0:0:ffff:127.0.0.1]", "0:0:0:0:0:ffff:127.0.0.1"),
        ("[fd00:ec2::254]", "fd00:ec2::254"),
        ("[64:ff9b::a9fe:a9fe]", "64:ff9b::a9fe:a9fe"),
    ],
)
def test_numbers_in_disguise(internet: list[str], host: str, address: str) -> None:
    assert number_of(host.strip("[]")) == address
    (answer,) = ask(f"http://{host}:8080/latest/meta-data/", Resolver({}))
    assert answer.outcome == "private-address", answer
    assert internet == []


@pytest.mark.parametrize("host", ["0x7f.example", "1.example", "127.0.0.1.example", "256.1.1.1"])
def test_names_that_only_look_like_numbers(internet: list[str], host: str) -> None:
    assert number_of(host) == ""
    (answer,) = ask(f"http://{host}/", Resolver({}))
    assert answer.outcome in ("dns", "bad-url") and internet == []


@pytest.mark.parametrize("host", ["unknown.example", "a" * 70 + ".example", "a..example"])
def test_names_that_lead_nowhere(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(name: str, *args: Any, **more: Any) -> list:
        name.encode("idna")  # as the real one does
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    (answer,) = ask(f"http://{host}/", None)
    assert answer.outcome in ("dns", "bad-url") and not answer.passing
    with pytest.raises(UnknownNameError, match="cannot be resolved"):
        look_up(host)


# Names


def test_a_name_is_asked_for_once_and_again_when_its_time_is_over() -> None:
    resolver = Resolver({"a.example": [["8.8.8.8"], ["8.8.4.4"]]})

    async def run() -> None:
        names = Names(0.05, resolver)
        found = await asyncio.gather(*(names.addresses("a.example") for _ in range(20)))
        assert found == [["8.8.8.8"]] * 20 and len(resolver.asked) == 1
        await asyncio.sleep(0.06)
        assert await names.addresses("a.example") == ["8.8.4.4"]

    asyncio.run(run())
    assert len(resolver.asked) == 2


def test_unknown_names_are_remembered_shortly_and_passing_faults_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        raise UnknownNameError(f"{host}: no", passing=host.startswith("passing"))

    async def run() -> None:
        names = Names(300.0, lookup)
        for host in ("gone.example", "passing.example"):
            for _ in range(3):
                with pytest.raises(UnknownNameError):
                    await names.addresses(host)
        later = time.monotonic() + 61
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(UnknownNameError):
            await names.addresses("gone.example")

    asyncio.run(run())
    assert asked == ["gone.example", *["passing.example"] * 3, "gone.example"]


def test_the_memory_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "MOST_NAMES", 50)

    async def run() -> None:
        names = Names(300.0, lambda host: ["8.8.8.8"])
        for i in range(120):
            await names.addresses(f"{i}.example")
            await names.addresses("0.example")  # in use: stays
        assert len(names._known) == 50 and "0.example" in names._known
        assert "100.example" in names._known and "5.example" not in names._known
        assert names._asking == {}

    asyncio.run(run())


def test_a_dead_name_server_does_not_hold_up_the_end(site: Site, tmp_path: Path) -> None:
    gate = threading.Event()

    def dead(host: str) -> list[str]:
        gate.wait(30)
        return ["8.8.8.8"]

    began = time.monotonic()
    links = link_folder(tmp_path, ["http://a.example/", "http://b.example/"])
    site.address = ""
    run_crawl(site, tmp_path, [], lookup=dead, page_seconds=0.2, retries=0)
    assert set(outcomes(tmp_path / "pages").values()) == {"timeout"}
    assert time.monotonic() - began < 20 and links.exists()
    gate.set()


def test_too_few_open_files_are_told_before_any_work(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda kind: (256, 256))
    monkeypatch.setattr("resource.setrlimit", lambda kind, limits: None)
    with pytest.raises(ResourceError, match="5,000 hosts at once need 5,128 open files"):
        run_crawl(site, tmp_path, ["http://a.example/1"], concurrency=5000)
    assert site.connections == 0


def test_no_room_for_a_socket_is_our_fault_not_the_links(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Guard, info: Any) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Guard, "make_socket", full)
    with pytest.raises(ResourceError, match="no room for one more connection"):
        run_crawl(site, tmp_path, ["http://a.example/1"])
    assert not (tmp_path / "pages" / "fetched.parquet").exists()


# Whole crawls


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


def test_every_hop_is_checked(site: Site, tmp_path: Path, internet: list[str]) -> None:
    """Public pages that redirect into a private network, by page and by robots.txt."""
    resolver = Resolver(
        {
            "public.example": [["8.8.8.8"]],
            "robber.example": [["8.8.4.4"]],
            "inner.example": [["10.0.0.7"]],
        }
    )
    site.pages |= {
        "public.example/page": ok(),
        "public.example/name": moved("http://inner.example/secret"),
        "public.example/number": moved("http://169.254.169.254/latest/meta-data/"),
        "public.example/hex": moved("http://0x7f000001/"),
        "public.example/octal": moved("http://0177.0.0.1/"),
        "public.example/decimal": moved("http://2130706433/"),
        "public.example/six": moved("http://[::ffff:127.0.0.1]/"),
        "robber.example/robots.txt": moved("http://inner.example/robots.txt"),
        "robber.example/page": ok(),
        "inner.example/secret": ok(),
    }
    urls = [
        f"http://{name}" for name in site.pages if "/robots" not in name and "inner" not in name
    ]
    manifest = run_crawl(site, tmp_path, urls, lookup=resolver, allow_private=False)
    found = outcomes(tmp_path / "pages")
    assert found.pop("http://public.example/page") == "ok"
    assert set(found.values()) == {"private-address"} and len(found) == 7
    assert manifest.counts["outcomes"] == {"ok": 1, "private-address": 7}
    assert manifest.counts["link_rot"] == {"private": 7, "alive": 1}
    assert set(internet) == {"8.8.8.8", "8.8.4.4"}
    assert not any("inner" in url or "169" in url for url in site.urls(robots=True))


def test_names_are_resolved_side_by_side(site: Site, tmp_path: Path) -> None:
    """A dead name server holds up its own link, not the crawl."""
    gate = threading.Barrier(200, timeout=20)

    def slow(host: str) -> list[str]:
        gate.wait()  # passes only when all are asked at once
        return ["10.0.0.1"]

    urls = [f"http://host-{i}.example/" for i in range(200)]
    site.address = ""
    run_crawl(site, tmp_path, urls, lookup=slow, allow_private=False, concurrency=200)
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


# Addresses taken apart


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/x?y=1",
        "https://a-b.example/a/../b;c=d,e(f)%20[g]",
        "http://a.example",
        "http://A.example/",
        "http://a.example/?",
        "http://a.example/#x",
        "http://me:pw@a.example:8080/x?y#z",
        "http://a.example:80/x",
        "https://a.example:443/x",
        "http://127.1/x",
        "http://a.example./x",
        "http://[::1]:8080/x",
        "http://b\u00fccher.example/\u00fc?q=\u00fc",
        'http://a.example/a b"<>\\^`{|}',
        "http://a.example/x?y?z",
    ],
)
def test_the_short_way_takes_addresses_apart_as_the_long_one(url: str) -> None:
    wire = wire_url(url)
    expected = Address(wire, wire.split(":")[0], host_of(url), authority(url))
    assert address_of(url) == expected
    assert address_of(wire) == expected, "taking apart twice changes nothing"
