"""Which addresses are not worth fetching: malformed ones, sites without prose, other files."""

from urllib.parse import urlsplit

from gptwo.urls import canonical_key, on_domain

MIN_LENGTH = 9
MAX_LENGTH = 2000

# Sites without prose of their own. None of the first is in OpenAI's list of WebText's 1000 top
# domains; the second adds what the public reproductions leave out although WebText had it.
_NO_PROSE = """
    facebook.com fbcdn.net flickr.com giphy.com gfycat.com i.redd.it imgflip.com imgur.com
    instagram.com livememe.com minus.com qkme.me quickmeme.com redd.it reddit.com
    redditmedia.com redditlog.com sli.mg snapchat.com soundcloud.com spotify.com streamable.com
    tinypic.com twitter.com v.redd.it vimeo.com vine.co x.com youtu.be youtube.com
"""
_ALSO_LEFT_OUT = """
    aliexpress.com amazon.com apple.com bestbuy.com craigslist.org ebay.com etsy.com github.com
    google.com itunes.com newegg.com pinterest.com rollingstone.com steamcommunity.com
    steampowered.com target.com twitch.tv walmart.com wikiwand.com xkcd.com
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
WIKIPEDIA = frozenset({"wikipedia.org", "wikimedia.org"})  # mirrors: the corpus knows their texts


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


def is_wikipedia(host: str) -> bool:
    """Wikipedia in any language; the paper removes it because evaluation sets are made of it."""
    return on_domain(host, WIKIPEDIA)


def is_not_text(url: str) -> bool:
    """Whether the path ends like a picture, film, archive or program."""
    path = urlsplit(url).path.lower()
    return "." in path[-8:] and "." + path.rsplit(".", 1)[-1] in NOT_TEXT
