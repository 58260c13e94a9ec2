"""One identity for the many spellings of an address."""

import string
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

TRACKING = ("utm_", "fbclid", "gclid", "mc_cid", "mc_eid", "igshid", "ref_src")


def canonical_key(url: str) -> str:
    """The identity of an address; raises ValueError for what is none.

    Host in lower case and punycode without `www.`, decoded path without a trailing slash, sorted
    query without tracking fields; no scheme, no fragment.

    >>> canonical_key("HTTPS://www.Site.example/a%20b/?utm_source=x&b=2&a=1#top")
    'site.example/a b?a=1&b=2'
    """
    parts = urlsplit(url)
    host = host_of(url).removeprefix("www.")
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise ValueError("not an http address")
    port = f":{parts.port}" if parts.port not in (None, 80, 443) else ""
    # Bytes that are not UTF-8 stay apart: /caf%E9 and /caf%E8 are two pages.
    fields = sorted(
        field
        for field in parse_qsl(parts.query, keep_blank_values=True, errors="backslashreplace")
        if not field[0].lower().startswith(TRACKING)
    )
    query = f"?{urlencode(fields)}" if fields else ""
    path = unquote(parts.path, errors="backslashreplace").rstrip("/")
    return _bracketed(host) + port + path + query


def host_of(url: str) -> str:
    """Host in lower case and punycode, without port and brackets; "" for what has none."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
        return host if host.isascii() else host.encode("idna").decode().lower()
    except ValueError:
        return ""


def authority(url: str) -> str:
    """Host and port as a request names them: without user, password and default port."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme.lower())
    port = f":{parts.port}" if parts.port not in (None, usual) else ""
    return _bracketed(host_of(url)) + port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def wire_url(url: str) -> str:
    """An address as it goes over the wire: ASCII, no fragment, no user.

    >>> wire_url("http://me@Bücher.example/a b/é?q=ü#top")
    'http://xn--bcher-kva.example/a%20b/%C3%A9?q=%C3%BC'
    """
    parts = urlsplit(url)
    path = quote(parts.path, safe=string.punctuation) or "/"
    query = f"?{quote(parts.query, safe=string.punctuation)}" if parts.query else ""
    return f"{parts.scheme.lower()}://{authority(url)}{path}{query}"


def on_domain(host: str, domains: frozenset[str]) -> bool:
    """Whether a host is one of `domains` or lies below one."""
    labels = host.split(".")
    return any(".".join(labels[i:]) in domains for i in range(len(labels)))
