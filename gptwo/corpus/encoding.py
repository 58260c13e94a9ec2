"""Bytes -> text, when nobody can be trusted to say which encoding it is."""

import codecs

from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


_SOUND_FOR_EACH = 20  # characters beyond ASCII; in another encoding hardly any comes out sound


def decode(payload: bytes, charset: str = "") -> str:
    """Text of a page or file; what no encoding explains becomes U+FFFD.

    In this order: a byte-order mark; UTF-16 by its zeros; UTF-8 if every byte fits, since other
    encodings hardly ever look like it; what the server said; UTF-8 with few bytes amiss; what the
    page says or its bytes suggest.
    """
    for mark, name in _MARKS:
        if payload.startswith(mark):
            return payload.decode(name, "replace")
    head = payload[:256]  # mostly markup, of which every other byte is zero in UTF-16
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if head[first::2].count(0) > len(head) // 8:
            return payload.decode(name, "replace")
    wide = b"\x1b" in payload or b"\0" in payload  # ISO-2022, UTF-16
    if not wide:
        try:
            return payload.decode("utf-8")
        except UnicodeDecodeError:
            pass
    if charset:
        try:
            return payload.decode(map_encoding_to_html5(charset) or charset)
        except (LookupError, ValueError):
            pass
    damaged = "" if wide else _damaged_utf8(payload)
    if damaged:
        return damaged
    guess = detect_encoding(payload, from_html_meta=True) or "utf-8"
    return bytes_to_str(payload, guess, errors="replace")


def _damaged_utf8(payload: bytes) -> str:
    """Text of a page in UTF-8 that was cut, or pasted together; "" if it looks like another."""
    try:  # some programs write a character beyond U+FFFF as two surrogates
        pairs = payload.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass")
        return pairs.decode("utf-16", "replace")
    except UnicodeDecodeError:
        text = payload.decode("utf-8", "replace")
    amiss = text.count("\ufffd")
    others = len(text) - len(text.encode("ascii", "ignore")) - amiss
    return text if others > _SOUND_FOR_EACH * amiss else ""
