"""What `gptwo serve` allows its clients."""

import ipaddress
from dataclasses import dataclass

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where to listen, and the limits."""

    host: str = "127.0.0.1"
    """Address to listen on; any but loopback needs an API key."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    hosts: tuple[str, ...] = ()
    """A Host that requests may name besides the loopback names; repeatable."""
    origins: tuple[str, ...] = ()
    """An origin whose web pages may ask, such as https://example.org; repeatable."""
    rows: int = 32
    """Texts written at once."""
    queue: int = 512
    """Texts that may wait for a row; more are answered with 503."""
    texts: int = 128
    """Texts that one request may ask for: prompts times best_of, or candidates."""
    connections: int = 512
    """Connections at once."""
    body_bytes: int = 1 << 20
    """Largest body of a request."""
    prefix_bytes: int = 512 << 20
    """Memory for beginnings of prompts that have been read; 0 keeps none."""
    request_seconds: float = 600.0
    """Longest time for an answer."""
    client_seconds: float = 10.0
    """Longest wait for a client that sends its request, or takes its answer, too slowly."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be between 0 and 65535, found {self.port}")
        for name in ("rows", "queue", "texts", "connections", "body_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.prefix_bytes < 0:
            raise ValueError(f"prefix_bytes must be 0 or more, found {self.prefix_bytes}")
        for name in ("request_seconds", "client_seconds"):
            if not 0 < getattr(self, name) <= 86400:
                raise ValueError(f"{name} must be above 0 and at most 86400, a day")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
