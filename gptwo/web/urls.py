"""One identity for the many spellings of an address, and the lists of what is not fetched."""

from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

TRACKING = ("utm_", "fbclid", "gclid", "mc_cid", "mc_eid", "igshid", "ref_src")
MIN_LENGTH = 9
MAX_LENGTH = 2000

# Sites without prose of their own. None of the first is in OpenAI's list of WebText's 1000 top
# domains; the second adds what the public reproductions leave out although WebText had it.
_NO_PROSE = """
    facebook.com fbcdn.net flickr.com giphy.com gfycat.com i.redd.it imgflip.com imgur.com
    instagram.com livememe.com minus.com pinterest.com qkme.me quickmeme.com redd.it reddit.com
    redditmedia.com redditlog.com sli.mg snapchat.com soundcloud.com spotify.com streamable.com
    tinypic.com twitch.tv twitter.com v.redd.it vimeo.com vine.co x.com youtu.be youtube.com
"""
_ALSO_LEFT_OUT = """
    aliexpress.com amazon.com apple.com bestbuy.com craigslist.org ebay.com etsy.com github.com
    google.com itunes.com newegg.com rollingstone.com steamcommunity.com steampowered.com target.com
    walmart.com xkcd.com
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

    Host in lower case without `www.`, decoded path without a trailing slash, sorted query without
    tracking fields; no scheme, no fragment.

    >>> canonical_key("HTTPS://www.Site.example/a%20b/?utm_source=x&b=2&a=1#top")
    'site.example/a b?a=1&b=2'
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").removeprefix("www.")
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise ValueError("not an http address")
    port = f":{parts.port}" if parts.port not in (None, 80, 443) else ""
    fields = sorted(
        field
        for field in parse_qsl(parts.query, keep_blank_values=True)
        if not field[0].lower().startswith(TRACKING)
    )
    query = f"?{urlencode(fields)}" if fields else ""
    return host + port + unquote(parts.path).rstrip("/") + query


def host_of(url: str) -> str:
    """Lower-case host, without the port."""
    return (urlsplit(url).hostname or "").rstrip(".")


def url_fault(url: str) -> str:
    """Why a string is not worth fetching, or "": too short or long, white space, another scheme."""
    if not MIN_LENGTH <= len(url) <= MAX_LENGTH:
        return "url-length"
    if any(char.isspace() or not char.isprintable() for char in url):
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
