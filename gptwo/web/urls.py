"""One identity for the many spellings of an address, and the lists of what is not fetched."""

import string
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

TRACKING = ("utm_", "fbclid", "gclid", "mc_cid", "mc_eid", "igshid", "ref_src")
MIN_LENGTH = 9
MAX_LENGTH = 2000

# Sites without prose of their own. None of the first is in OpenAI's list of WebText's 1000 top
# domains; the second adds what the public reproductions leave out although WebText had it.
_NO_PROSE = """
    facebook.com fbcdn.net flickr.com giphy.com gfycat.com i.redd.it imgflip.com imgur.com
    instagram.com livememe.com minus.com qkme.me quickmeme.com redd.it reddit.com
    redditmedia.com redditlog.com sli.mg snapchat.com soundcloud.com spotify.com streamable.com
    tinypic.com twitch.tv twitter.com v.redd.it vimeo.com vine.co x.com youtu.be youtube.com
"""
_ALSO_LEFT_OUT = """
    aliexpress.com amazon.com apple.com bestbuy.com craigslist.org ebay.com etsy.com github.com
    google.com itunes.com newegg.com pinterest.com rollingstone.com steamcommunity.com
    steampowered.com target.com walmart.com xkcd.com
"""
_ENDINGS = """
    .3gp .7z .ai .apk .avi .bin .bmp .bz2 .css .deb .dmg .doc .docx .eps .exe .flac .flv .gif .gifv
    .gz .ico .iso .jar .jpeg .jpg .js .m4a .m4v .mkv .mov .mp3 .mp4 .mpeg .mpg .msi .ogg .ogv .otf
    .pdf .png .ppt .pptx .ps .psd .rar .rpm .rss .svg .swf .tar .tgz .tif .tiff .torrent .ttf .wav
    .webm .webp .wma .wmv .woff .woff2 .xls .xlsx .xml .xz .zip
"""
BLOCKED = {
    "webtext": frozenset(_NO_PROSE.split()),
    "openwebtext": frozenset(_NO_PROSE.split() + _ALSO_LEFT_OUT.split()),
}
NOT_TEXT = frozenset(_ENDINGS.split())


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
    """Host in lower case and punycode, without the port and the brackets of IPv6."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    return host if host.isascii() else host.encode("idna").decode().lower()


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


def url_fault(url: str) -> str:
    """Why a string is not worth fetching, or "": too short or long, white space, another scheme."""
    if not MIN_LENGTH <= len(url) <= MAX_LENGTH:
        return "url-length"
    if " " in url or not url.isprintable():  # no other white space is printable
        return "url-malformed"
    try:
        canonical_key(url)
    except ValueError:
        return "url-malformed"
    return ""


def on_domain(host: str, domains: frozenset[str]) -> bool:
    """Whether a host is one of `domains` or lies below one."""
    labels = host.split(".")
    return any(".".join(labels[i:]) in domains for i in range(len(labels)))


def is_wikipedia(host: str) -> bool:
    """Wikipedia in any language; the paper removes it because evaluation sets are made of it."""
    return on_domain(host, frozenset({"wikipedia.org", "wikiwand.com", "wikimedia.org"}))


def is_not_text(url: str) -> bool:
    """Whether the path ends like a picture, film, archive or program."""
    path = urlsplit(url).path.lower()
    return "." in path[-8:] and "." + path.rsplit(".", 1)[-1] in NOT_TEXT
