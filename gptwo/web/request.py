"""One request -> one answer: what came back within the caps, or why nothing did."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import httpcore2

from gptwo.urls import authority, wire_url
from gptwo.web.config import CrawlConfig
from gptwo.web.network import GuardedBackend, PrivateAddressError

TEXT_TYPES = ("text/html", "application/xhtml+xml", "text/plain")

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one request gave: a response, or an outcome that is not "ok"."""

    outcome: str
    status: int = 0
    headers: Headers = field(default_factory=list)
    body: bytes = b""  # as it came, compressed or not; of status 200 only
    detail: str = ""
    date: str = ""  # when it came, ISO 8601

    def header(self, name: bytes) -> str:
        found = [value for key, value in self.headers if key.lower() == name]
        return found[-1].decode("latin-1").strip() if found else ""


class Client:
    """Sends requests over connections that are kept open and guarded."""

    def __init__(self, config: CrawlConfig, connect_to: str = "") -> None:
        self.config = config
        self._pool = httpcore2.AsyncConnectionPool(
            max_connections=config.concurrency * 2,
            max_keepalive_connections=config.concurrency,
            network_backend=GuardedBackend(
                allow_private=config.allow_private, connect_to=connect_to
            ),
        )

    async def close(self) -> None:
        await self._pool.aclose()

    def headers(self, url: str) -> Headers:
        return [
            (b"Host", authority(url).encode()),
            (b"User-Agent", self.config.user_agent.encode()),
            (b"Accept", b"text/html,application/xhtml+xml,text/plain;q=0.8"),
            (b"Accept-Encoding", b"gzip"),
        ]

    async def get(
        self, url: str, max_bytes: int, types: tuple[str, ...] = (), *, cut: bool = False
    ) -> Answer:
        """One GET. `types` are the content types worth reading, none for any.

        A body over `max_bytes` is an outcome of its own, or is cut there.
        """
        seconds = self.config.page_seconds
        limits = {"connect": seconds, "read": seconds, "write": seconds, "pool": None}
        status = 0
        try:
            async with (
                asyncio.timeout(seconds),
                self._pool.stream(
                    "GET", wire_url(url), headers=self.headers(url), extensions={"timeout": limits}
                ) as response,
            ):
                status = response.status
                answer = Answer(
                    outcome="ok", status=status, headers=list(response.headers), date=_now()
                )
                kind = answer.header(b"content-type").split(";")[0].strip().lower()
                if status != 200:  # nobody reads what such a page says, and it may never end
                    return answer
                if types and kind and kind not in types:
                    return Answer(outcome="content-type", status=status, detail=kind[:200])
                body = bytearray()
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) > max_bytes and cut:
                        break
                    if len(body) > max_bytes:
                        detail = f"over {max_bytes:,} bytes"
                        return Answer(outcome="too-large", status=status, detail=detail)
                return replace(answer, body=bytes(body[:max_bytes]))
        except PrivateAddressError as error:
            return Answer(outcome="private-address", detail=str(error))
        except (TimeoutError, httpcore2.TimeoutException):
            return Answer(outcome="timeout", detail=f"over {seconds}s")
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            outcome = "truncated" if status else "connection"
            return Answer(outcome=outcome, detail=str(error)[:200])
        except (ValueError, httpcore2.UnsupportedProtocol) as error:
            return Answer(outcome="bad-url", detail=str(error)[:200])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
