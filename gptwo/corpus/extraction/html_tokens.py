"""Tags, characters by name and number, raw text and comments of HTML, read plainly."""

import re
import sys
from dataclasses import dataclass, field
from html.entities import html5

from gptwo.corpus.extraction.html_tags import ATTRIBUTES, TAG, Flag

SPACE = " \t\n\f\r"

_NAME = re.compile(r"[^ \t\n\f\r/>]*")
_BETWEEN = re.compile(r"[ \t\n\f\r/]*")
_ATTRIBUTE = re.compile(
    r"(?P<name>[^ \t\n\f\r/>][^ \t\n\f\r/>=]*)[ \t\n\f\r]*"
    r"(?:=[ \t\n\f\r]*(?:\"(?P<double>[^\"]*)(?P<closed>\"?)|'(?P<single>[^']*)(?P<shut>'?)"
    r"|(?P<bare>[^ \t\n\f\r>]*)))?"
)
_ENTITY = re.compile(r"&(?:#[xX]([0-9a-fA-F]+);?|#([0-9]+);?|([a-zA-Z0-9]{1,32})(;?))")
_GOES_ON = re.compile(r"[=a-zA-Z0-9]")
_SCRIPT = re.compile(r"<!--|</script[ \t\n\f\r/>]", re.ASCII | re.IGNORECASE)
_INSIDE = re.compile(r"-->|</?script[ \t\n\f\r/>]", re.ASCII | re.IGNORECASE)
_WINDOWS_1252 = {
    number: bytes([number]).decode("windows-1252")
    for number in range(128, 160)
    if number not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_WANTED = ATTRIBUTES | {"href", "style", "hidden", "aria-hidden"}
_NO_SPACE = str.maketrans("", "", SPACE)


# ---- characters by name and number ----


def unescape(text: str, attribute: bool) -> str:
    """What a text or the value of an attribute reads as."""

    def read(found: re.Match[str]) -> str:
        hexadecimal, decimal, name, semicolon = found.groups()
        if hexadecimal or decimal:
            return _character(hexadecimal or decimal, 16 if hexadecimal else 10)
        if semicolon and name + ";" in html5:
            return html5[name + ";"]
        for size in range(min(len(name), 6), 1, -1):  # those without a semicolon
            if name[:size] not in html5:
                continue
            rest = name[size:] + semicolon
            after = rest[:1] or text[found.end() : found.end() + 1]
            if attribute and _GOES_ON.match(after):
                break
            return html5[name[:size]] + rest
        return found.group()

    return _ENTITY.sub(read, text) if "&" in text else text


def _character(digits: str, radix: int) -> str:
    digits = digits.lstrip("0") or "0"
    number = int(digits, radix) if len(digits) < 9 else sys.maxsize
    if number in _WINDOWS_1252:
        return _WINDOWS_1252[number]
    if not number or number > 0x10FFFF or 0xD800 <= number < 0xE000:
        return "\ufffd"
    return chr(number)


# ---- tags ----


@dataclass(slots=True)
class Tag:
    """A start or end tag; its name in lower case."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    flags: int = 0
    self_closing: bool = False

    @property
    def number(self) -> int:
        return TAG.get(self.name, TAG["#other"])


def _lower(text: str) -> str:
    return text.translate(_LOWER)  # of ASCII alone, as names are compared


def _flags(name: str, value: str) -> int:
    value = _lower(value.lstrip(SPACE))
    if name == "hidden":
        return Flag.HIDDEN
    if name == "aria-hidden":
        return Flag.ARIA_HIDDEN if value.startswith("true") else 0
    if name == "style":
        style = value.translate(_NO_SPACE)
        return Flag.NOT_SHOWN if "display:none" in style or "visibility:hidden" in style else 0
    if name != "href":
        return 0
    return Flag.LINK | (Flag.LOCAL_LINK if value.startswith(("#", "javascript:")) else 0)


def read_tag(page: str, at: int) -> tuple[Tag | None, int]:
    """The tag whose name is at `at` and where it ends; None when the page ends first."""
    name = _NAME.match(page, at)
    assert name
    tag, at, seen = Tag(_lower(name.group())), name.end(), set[str]()
    while True:
        between = _BETWEEN.match(page, at)
        assert between
        at = between.end()
        if page[at : at + 1] == ">":
            tag.self_closing = between.group().endswith("/")
            return tag, at + 1
        found = _ATTRIBUTE.match(page, at)
        if not found:
            return None, at
        at = found.end()
        if "" in (found["closed"], found["shut"]):
            return None, at
        key = _lower(found["name"])
        if key in seen or key not in _WANTED:
            continue  # the first of two counts
        seen.add(key)
        value = found["double"] or found["single"] or found["bare"] or ""
        value = unescape(value, attribute=True)
        tag.flags |= _flags(key, value)
        if key in ATTRIBUTES:
            tag.attributes[key] = value


# ---- raw text and comments ----


def raw_end(page: str, at: int, name: str) -> int:
    """Where the end tag of raw text is."""
    if name == "plaintext":
        return len(page)
    if name == "script":
        return _script_end(page, at)
    found = re.compile(rf"</{name}[ \t\n\f\r/>]", re.ASCII | re.IGNORECASE).search(page, at)
    return found.start() if found else len(page)


def _script_end(page: str, at: int) -> int:
    """The same of a script: between <!-- <script and --> it may hold an end tag."""
    while found := _SCRIPT.search(page, at):
        if found.group() != "<!--":
            return found.start()
        inner = False
        for mark in _INSIDE.finditer(page, found.start() + 2):
            if mark.group() == "-->":
                at = mark.end()
                break
            ends = mark.group()[1] == "/"
            if ends and not inner:
                return mark.start()
            inner = not ends
        else:
            break
    return len(page)


def comment_end(page: str, at: int) -> int:
    """Past the end of a comment whose <!-- is at `at`."""
    stop = at + 3
    while (stop := page.find(">", stop + 1)) >= 0:
        if page[stop - 2 : stop] == "--" or (stop - at > 6 and page[stop - 3 : stop] == "--!"):
            return stop + 1
    return len(page)
